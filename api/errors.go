package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"strings"

	"github.com/go-json-experiment/json"

	"github.com/batchyard/batchyard/batch"
)

// Codes that only this package answers with.
const (
	codeNoPreparation       batch.Code = "JobPreparationTaskOrReleaseTaskNotSpecified"
	codeJobScheduleNotFound batch.Code = "JobScheduleNotFound"
	codeApplicationNotFound batch.Code = "ApplicationNotFound"
	codeCertificateNotFound batch.Code = "CertificateNotFound"
	codeNodeUserNotFound    batch.Code = "NodeUserNotFound"
	codeExtensionNotFound   batch.Code = "ExtensionNotFound"
	codeUsageMetricsRetired batch.Code = "PoolUsageMetricAPIRetired"
)

// statuses has the status of each code. What is not here is a mistake of ours
// and answered as an internal error.
var statuses = map[batch.Code]int{
	batch.CodeInvalidRequestBody:         http.StatusBadRequest,
	batch.CodeInvalidPropertyValue:       http.StatusBadRequest,
	batch.CodePropertyNotSupported:       http.StatusBadRequest,
	batch.CodeMissingRequiredProperty:    http.StatusBadRequest,
	batch.CodeInvalidQueryParameterValue: http.StatusBadRequest,
	batch.CodeInvalidHeaderValue:         http.StatusBadRequest,
	batch.CodeInvalidURI:                 http.StatusBadRequest,
	batch.CodeUnsupportedVersion:         http.StatusBadRequest,
	batch.CodeMissingParameter:           http.StatusBadRequest,
	batch.CodeTaskDependenciesNotOnJob:   http.StatusBadRequest,
	codeUsageMetricsRetired:              http.StatusBadRequest,

	batch.CodeAuthenticationHeaderInvalid: http.StatusUnauthorized,
	batch.CodeAuthenticationFailed:        http.StatusForbidden,
	batch.CodeForbidden:                   http.StatusForbidden,
	batch.CodePoolQuotaReached:            http.StatusForbidden,

	batch.CodeResourceNotFound: http.StatusNotFound,
	batch.CodeAccountNotFound:  http.StatusNotFound,
	batch.CodePoolNotFound:     http.StatusNotFound,
	batch.CodeNodeNotFound:     http.StatusNotFound,
	batch.CodeJobNotFound:      http.StatusNotFound,
	batch.CodeTaskNotFound:     http.StatusNotFound,
	batch.CodeFileNotFound:     http.StatusNotFound,
	batch.CodeFilePathNotFound: http.StatusNotFound,
	codeJobScheduleNotFound:    http.StatusNotFound,
	codeApplicationNotFound:    http.StatusNotFound,
	codeCertificateNotFound:    http.StatusNotFound,
	codeNodeUserNotFound:       http.StatusNotFound,
	codeExtensionNotFound:      http.StatusNotFound,

	batch.CodeUnsupportedVerb: http.StatusMethodNotAllowed,

	batch.CodeAccountExists:            http.StatusConflict,
	batch.CodePoolExists:               http.StatusConflict,
	batch.CodePoolBeingDeleted:         http.StatusConflict,
	batch.CodePoolBeingResized:         http.StatusConflict,
	batch.CodePoolNotResizing:          http.StatusConflict,
	batch.CodeNodeBeingRebooted:        http.StatusConflict,
	batch.CodeNodeBeingReimaged:        http.StatusConflict,
	batch.CodeNodeStateUnusable:        http.StatusConflict,
	batch.CodeNodeNotReady:             http.StatusConflict,
	batch.CodeSchedulingAlreadyEnabled: http.StatusConflict,
	batch.CodeOperationNotValidOnNode:  http.StatusConflict,
	batch.CodeOperationInvalidForState: http.StatusConflict,
	batch.CodeJobExists:                http.StatusConflict,
	batch.CodeJobBeingDeleted:          http.StatusConflict,
	batch.CodeJobBeingTerminated:       http.StatusConflict,
	batch.CodeJobCompleted:             http.StatusConflict,
	batch.CodeJobDisabled:              http.StatusConflict,
	batch.CodeJobNotActive:             http.StatusConflict,
	batch.CodeTaskExists:               http.StatusConflict,
	batch.CodeTaskCompleted:            http.StatusConflict,
	batch.CodeTaskNotCompleted:         http.StatusConflict,
	batch.CodeTaskFilesUnavailable:     http.StatusConflict,
	batch.CodeTaskFilesCleanedup:       http.StatusConflict,
	batch.CodeUnsupportedOnDirectory:   http.StatusConflict,
	codeNoPreparation:                  http.StatusConflict,

	batch.CodeNotModified:         http.StatusNotModified,
	batch.CodeConditionNotMet:     http.StatusPreconditionFailed,
	batch.CodeRequestBodyTooLarge: http.StatusRequestEntityTooLarge,
	batch.CodeInvalidRange:        http.StatusRequestedRangeNotSatisfiable,
	batch.CodeTooManyRequests:     http.StatusTooManyRequests,
	batch.CodeInternalError:       http.StatusInternalServerError,
	batch.CodeOperationTimedOut:   http.StatusInternalServerError,
	batch.CodeServerBusy:          http.StatusServiceUnavailable,
	// 501 is the one status of its class that clients do not try again.
	batch.CodeNotImplemented: http.StatusNotImplemented,
}

// retryAfter is what clients that are told to come back are told to wait, in
// seconds.
const retryAfter = "1"

// errorBody is an error of the protocol.
type errorBody struct {
	Metadata string         `json:"odata.metadata,omitempty"`
	Code     batch.Code     `json:"code"`
	Message  errorMessage   `json:"message"`
	Values   []batch.Detail `json:"values,omitempty"`
}

// errorMessage is the sentence for a person; clients decide by the code alone.
type errorMessage struct {
	Lang  string `json:"lang"`
	Value string `json:"value"`
}

// shown gives what a caller is told about an error, and its status. What is no
// batch.Error is an internal error and told to nobody: it may name files, rows and
// machines. A deadline has a code of its own, since the operation may have been
// carried out all the same: a caller has to look before it repeats it.
func shown(err error) (*batch.Error, int) {
	if errors.Is(err, context.DeadlineExceeded) {
		return batch.Errorf(batch.CodeOperationTimedOut, "Operation could not be completed within the specified time."), http.StatusInternalServerError
	}
	if e, ok := errors.AsType[*batch.Error](err); ok {
		if status, known := statuses[e.Code]; known {
			return e, status
		}
	}
	return batch.Errorf(batch.CodeInternalError, "Server encountered an internal error. Please try again after some time."), http.StatusInternalServerError
}

// fail answers with an error. It is the one place where the error of a handler
// ends, so that each is written once and logged once.
func (c *call) fail(err error) {
	if c.gone(err) {
		c.stopped = true
		return
	}
	if errors.Is(err, context.Canceled) && c.context().Err() != nil {
		err = context.Cause(c.context()) // the time for the first byte is over
	}
	e, status := shown(err)
	if e.Code == batch.CodeInternalError {
		c.Log.ErrorContext(c.context(), "request failed", c.logged("error", err)...)
	}
	if c.status != 0 {
		// Too late to say it; the connection must not look like a full answer.
		panic(http.ErrAbortHandler)
	}
	c.writeError(e, status)
}

// gone tells whether the caller went away, so that there is nobody to answer.
func (c *call) gone(err error) bool {
	return errors.Is(err, context.Canceled) && errors.Is(context.Cause(c.context()), context.Canceled)
}

// failPanic logs a bug with the place it came from and answers like any
// internal error.
func (c *call) failPanic(p any) {
	c.Log.ErrorContext(c.context(), "request panicked", c.logged("panic", fmt.Sprint(p), "stack", string(debug.Stack()))...)
	if c.status != 0 {
		panic(http.ErrAbortHandler)
	}
	e, status := shown(nil)
	c.writeError(e, status)
}

// logged are the facts by which an operator finds a request.
func (c *call) logged(more ...any) []any {
	return append([]any{"requestId", c.id, "method", c.r.Method, "path", c.r.URL.Path, "account", string(c.account)}, more...)
}

// writeError writes what [shown] gave. 304 and answers to HEAD have no body, by the
// rules of HTTP; their status has to say it all.
func (c *call) writeError(e *batch.Error, status int) {
	h := c.w.Header()
	switch status {
	case http.StatusNotModified:
		c.writeHead(status)
		return
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		h.Set("Retry-After", retryAfter)
	}
	if c.r.Method == http.MethodHead {
		c.writeHead(status)
		return
	}
	body := c.errorBody(e)
	body.Metadata = c.metadata("Microsoft.Azure.Batch.Protocol.Entities.Container.errors/@Element")
	text, err := json.Marshal(body)
	if err != nil {
		// Only text that is not UTF-8 does not encode; drop what may hold it.
		body.Values = nil
		body.Message.Value = strings.ToValidUTF8(body.Message.Value, "\uFFFD")
		text, _ = json.Marshal(body)
	}
	c.writeText(status, text)
}

// errorBody words an error as the service does, with the id and the time of the
// request at the end of the message.
func (c *call) errorBody(e *batch.Error) errorBody {
	values := make([]batch.Detail, len(e.Details))
	for i, d := range e.Details {
		values[i] = batch.Detail{Key: d.Key, Value: strings.ToValidUTF8(d.Value, "\uFFFD")}
	}
	return errorBody{
		Code: e.Code,
		Message: errorMessage{Lang: "en-US", Value: fmt.Sprintf("%s\nRequestId:%s\nTime:%s",
			e.Message, c.id, c.Now().UTC().Format("2006-01-02T15:04:05.0000000Z"))},
		Values: values,
	}
}

// badParameter refuses a value of the query.
func badParameter(name, value, reason string) *batch.Error {
	return &batch.Error{
		Code:    batch.CodeInvalidQueryParameterValue,
		Message: "Value for one of the query parameters specified in the request URI is invalid.",
		Details: []batch.Detail{
			{Key: "QueryParameterName", Value: name},
			{Key: "QueryParameterValue", Value: clip(value)},
			{Key: "Reason", Value: reason},
		},
	}
}

// badHeader refuses a value of a header.
func badHeader(name, value, reason string) *batch.Error {
	return &batch.Error{
		Code:    batch.CodeInvalidHeaderValue,
		Message: "The value for one of the HTTP headers is not in the correct format.",
		Details: []batch.Detail{
			{Key: "HeaderName", Value: name},
			{Key: "HeaderValue", Value: clip(value)},
			{Key: "Reason", Value: reason},
		},
	}
}

// busy asks the caller to send the same again. It is for what has not been begun.
func busy(reason string) *batch.Error {
	return batch.Errorf(batch.CodeServerBusy, "%s Please retry after some time.", reason)
}

// clip bounds how much of a caller's text is repeated, and makes it text: an
// answer with bytes that are not UTF-8 could not be encoded.
func clip(s string) string {
	const most = 256
	if len(s) > most {
		s = batch.Shorten(s, most) + "…"
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}
