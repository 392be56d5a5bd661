package api

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/google/uuid"

	"github.com/batchyard/batchyard/batch"
)

// Unreadable is the answer, from its first line on, to a request whose address
// or whose headers cannot be read, so that there is no request to be handled. It
// has the words of the protocol; the connection ends with it.
func Unreadable(now time.Time) []byte {
	id := uuid.NewString()
	text, err := json.Marshal(errorBody{
		Code: batch.CodeInvalidURI,
		Message: errorMessage{Lang: "en-US", Value: fmt.Sprintf("%s\nRequestId:%s\nTime:%s",
			"The address or a header of the request cannot be read: in an address, a percent sign is followed by two hexadecimal digits.",
			id, now.UTC().Format("2006-01-02T15:04:05.0000000Z"))},
	})
	if err != nil {
		text = nil // there is nothing in it that could fail
	}
	answer := http.Response{
		StatusCode: http.StatusBadRequest, ProtoMajor: 1, ProtoMinor: 1, Close: true, ContentLength: int64(len(text)),
		Header: http.Header{
			"Content-Type": {contentType}, "Dataserviceversion": {"3.0"}, "Request-Id": {id}, "Date": {now.UTC().Format(http.TimeFormat)},
			"X-Content-Type-Options": {"nosniff"},
		},
		Body: io.NopCloser(bytes.NewReader(text)),
	}
	var b bytes.Buffer
	_ = answer.Write(&b) // a buffer takes all
	return b.Bytes()
}
