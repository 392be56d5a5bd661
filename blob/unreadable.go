package blob

import (
	"bytes"
	"io"
	"net/http"
	"time"

	"github.com/google/uuid"
)

// Unreadable is the answer, from its first line on, to a request whose address
// or whose headers cannot be read, so that there is no request to be handled. It
// has the words of the protocol; the connection ends with it.
func Unreadable(now time.Time) []byte {
	id := uuid.NewString()
	f := refuse(invalidURI, "The address or a header of the request cannot be read: in an address, a percent sign is followed by two hexadecimal digits.")
	text := errorBody(f, id, now)
	answer := http.Response{
		StatusCode: f.status, ProtoMajor: 1, ProtoMinor: 1, Close: true, ContentLength: int64(len(text)),
		Header: http.Header{
			"Content-Type": {"application/xml"}, "X-Ms-Request-Id": {id}, "X-Ms-Error-Code": {string(f.code)},
			"X-Ms-Version": {defaultVersion}, "Date": {now.UTC().Format(http.TimeFormat)},
		},
		Body: io.NopCloser(bytes.NewReader(text)),
	}
	var b bytes.Buffer
	_ = answer.Write(&b) // a buffer takes all
	return b.Bytes()
}
