package batch

import (
	"errors"
	"fmt"
	"strings"
)

// Code is a word of the protocol for what went wrong.
type Code string

// Codes the service answers with. The api package maps each to its status.
const (
	CodeInvalidRequestBody          Code = "InvalidRequestBody"
	CodeInvalidPropertyValue        Code = "InvalidPropertyValue"
	CodePropertyNotSupported        Code = "PropertyNotSupported"
	CodeMissingRequiredProperty     Code = "MissingRequiredProperty"
	CodeInvalidQueryParameterValue  Code = "InvalidQueryParameterValue"
	CodeInvalidHeaderValue          Code = "InvalidHeaderValue"
	CodeInvalidRange                Code = "InvalidRange"
	CodeInvalidURI                  Code = "InvalidUri"
	CodeUnsupportedVersion          Code = "UnsupportedApiVersion"
	CodeMissingParameter            Code = "MissingRequiredQueryParameter"
	CodeUnsupportedVerb             Code = "UnsupportedHttpVerb"
	CodeNotImplemented              Code = "OperationNotSupported"
	CodeAuthenticationFailed        Code = "AuthenticationFailed"
	CodeForbidden                   Code = "Forbidden"
	CodeConditionNotMet             Code = "ConditionNotMet"
	CodeNotModified                 Code = "NotModified"
	CodeRequestBodyTooLarge         Code = "RequestBodyTooLarge"
	CodeResourceNotFound            Code = "ResourceNotFound"
	CodeAccountNotFound             Code = "AccountNotFound"
	CodeAccountExists               Code = "AccountExists"
	CodePoolNotFound                Code = "PoolNotFound"
	CodePoolExists                  Code = "PoolExists"
	CodePoolBeingDeleted            Code = "PoolBeingDeleted"
	CodePoolBeingResized            Code = "PoolBeingResized"
	CodePoolNotResizing             Code = "PoolNotResizing"
	CodePoolQuotaReached            Code = "PoolQuotaReached"
	CodeNodeNotFound                Code = "NodeNotFound"
	CodeNodeBeingRebooted           Code = "NodeBeingRebooted"
	CodeNodeBeingReimaged           Code = "NodeBeingReimaged"
	CodeNodeStateUnusable           Code = "NodeStateUnusable"
	CodeNodeNotReady                Code = "NodeNotReady"
	CodeSchedulingAlreadyEnabled    Code = "NodeAlreadyInTargetSchedulingState"
	CodeOperationNotValidOnNode     Code = "OperationNotValidOnNode"
	CodeOperationInvalidForState    Code = "OperationInvalidForCurrentState"
	CodeJobNotFound                 Code = "JobNotFound"
	CodeJobExists                   Code = "JobExists"
	CodeJobBeingDeleted             Code = "JobBeingDeleted"
	CodeJobBeingTerminated          Code = "JobBeingTerminated"
	CodeJobCompleted                Code = "JobCompleted"
	CodeJobDisabled                 Code = "JobDisabled"
	CodeJobNotActive                Code = "JobNotActive"
	CodeTaskNotFound                Code = "TaskNotFound"
	CodeTaskExists                  Code = "TaskExists"
	CodeTaskCompleted               Code = "TaskCompleted"
	CodeTaskNotCompleted            Code = "TaskNotCompleted"
	CodeTaskFilesUnavailable        Code = "TaskFilesUnavailable"
	CodeTaskFilesCleanedup          Code = "TaskFilesCleanedup"
	CodeTaskDependenciesNotOnJob    Code = "TaskDependenciesNotSpecifiedOnJob"
	CodeFileNotFound                Code = "FileNotFound"
	CodeFilePathNotFound            Code = "FilePathNotFound"
	CodeUnsupportedOnDirectory      Code = "OperationNotSupportedOnDirectory"
	CodeInternalError               Code = "InternalError"
	CodeOperationTimedOut           Code = "OperationTimedOut"
	CodeServerBusy                  Code = "ServerBusy"
	CodeTooManyRequests             Code = "TooManyRequests"
	CodeAuthenticationHeaderInvalid Code = "InvalidAuthenticationInfo"
)

// Detail is one fact of an error: which property, which value, why.
type Detail struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// Error is what a caller may be told, in the protocol's words. Everything
// else is an internal error and is only logged.
type Error struct {
	Code    Code
	Message string
	Details []Detail
	// Err is the cause; it is logged, never shown.
	Err error
}

func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s", e.Code, e.Message)
	for _, d := range e.Details {
		fmt.Fprintf(&b, " (%s: %s)", d.Key, d.Value)
	}
	if e.Err != nil {
		fmt.Fprintf(&b, ": %v", e.Err)
	}
	return b.String()
}

func (e *Error) Unwrap() error { return e.Err }

// Is matches errors of the same code, so that errors.Is(err, &Error{Code: c})
// asks for a code.
func (e *Error) Is(target error) bool {
	other, ok := target.(*Error)
	return ok && other.Code == e.Code
}

// CodeOf is the protocol's code inside err, or "".
func CodeOf(err error) Code {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return ""
}

// Errorf makes an Error with a message for the caller.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// notFound words by noun: the object itself has a code of its own.
var notFoundCodes = map[string]Code{
	"pool": CodePoolNotFound, "compute node": CodeNodeNotFound, "job": CodeJobNotFound,
	"task": CodeTaskNotFound, "file": CodeFileNotFound, "account": CodeAccountNotFound,
}

// NotFound says that a noun of that id does not exist.
func NotFound[T ~string](noun string, id T) *Error {
	code, ok := notFoundCodes[noun]
	if !ok {
		code = CodeResourceNotFound
	}
	return Errorf(code, "The specified %s does not exist: %q.", noun, string(id))
}

// InvalidValue refuses a property: 400 InvalidPropertyValue with the name, the
// value and the reason, which should say what would be right.
func InvalidValue(property string, value any, reason string, args ...any) *Error {
	return &Error{
		Code:    CodeInvalidPropertyValue,
		Message: "The value provided for one of the properties in the request body is invalid.",
		Details: []Detail{
			{"PropertyName", property},
			{"PropertyValue", shown(value)},
			{"Reason", fmt.Sprintf(reason, args...)},
		},
	}
}

// Missing says that a required property is not there.
func Missing(property string) *Error {
	return &Error{
		Code:    CodeMissingRequiredProperty,
		Message: "A required property was not specified in the request body.",
		Details: []Detail{{"PropertyName", property}, {"Reason", "The property is required"}},
	}
}

// NotSupported refuses a property of the protocol that this release does not
// act on; nothing is accepted and ignored.
func NotSupported(property, reason string) *Error {
	return &Error{
		Code:    CodePropertyNotSupported,
		Message: "A property in the request body is not supported by this service.",
		Details: []Detail{{"PropertyName", property}, {"Reason", reason}},
	}
}

// maxShown bounds how much of a caller's value an error repeats.
const maxShown = 256

func shown(value any) string {
	text := fmt.Sprint(value)
	if len(text) > maxShown {
		return Shorten(text, maxShown) + "…"
	}
	return text
}
