package blob

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/batchyard/batchyard/auth"
	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/disk"
)

// code is a word of the storage protocol for what went wrong.
type code string

const (
	authenticationFailed        code = "AuthenticationFailed"
	blobAlreadyExists           code = "BlobAlreadyExists"
	blobNotFound                code = "BlobNotFound"
	blockCountExceedsLimit      code = "BlockCountExceedsLimit"
	blockListTooLong            code = "BlockListTooLong"
	cannotVerifyCopySource      code = "CannotVerifyCopySource"
	conditionNotMet             code = "ConditionNotMet"
	containerAlreadyExists      code = "ContainerAlreadyExists"
	containerNotFound           code = "ContainerNotFound"
	corsPreflightFailure        code = "CorsPreflightFailure"
	crc64Mismatch               code = "Crc64Mismatch"
	featureNotSupported         code = "FeatureNotSupportedForAccount"
	internalError               code = "InternalError"
	invalidAuthenticationInfo   code = "InvalidAuthenticationInfo"
	invalidBlobOrBlock          code = "InvalidBlobOrBlock"
	invalidBlockID              code = "InvalidBlockId"
	invalidBlockList            code = "InvalidBlockList"
	invalidHeaderValue          code = "InvalidHeaderValue"
	invalidInput                code = "InvalidInput"
	invalidMD5                  code = "InvalidMd5"
	invalidMetadata             code = "InvalidMetadata"
	invalidQueryParameterValue  code = "InvalidQueryParameterValue"
	invalidRange                code = "InvalidRange"
	invalidResourceName         code = "InvalidResourceName"
	invalidURI                  code = "InvalidUri"
	invalidXMLDocument          code = "InvalidXmlDocument"
	leaseNotPresent             code = "LeaseNotPresentWithBlobOperation"
	md5Mismatch                 code = "Md5Mismatch"
	metadataTooLarge            code = "MetadataTooLarge"
	missingContentLengthHeader  code = "MissingContentLengthHeader"
	missingRequiredHeader       code = "MissingRequiredHeader"
	missingRequiredQuery        code = "MissingRequiredQueryParameter"
	noAuthenticationInformation code = "NoAuthenticationInformation"
	noPendingCopyOperation      code = "NoPendingCopyOperation"
	operationTimedOut           code = "OperationTimedOut"
	outOfRangeQuery             code = "OutOfRangeQueryParameterValue"
	publicAccessNotPermitted    code = "PublicAccessNotPermitted"
	requestBodyTooLarge         code = "RequestBodyTooLarge"
	serverBusy                  code = "ServerBusy"
	sourceConditionNotMet       code = "SourceConditionNotMet"
	unauthorizedBlobOverwrite   code = "UnauthorizedBlobOverwrite"
	unsatisfiableCondition      code = "UnsatisfiableCondition"
	unsupportedHeader           code = "UnsupportedHeader"
	unsupportedHTTPVerb         code = "UnsupportedHttpVerb"
	unsupportedQueryParameter   code = "UnsupportedQueryParameter"

	permissionMismatch   code = "AuthorizationPermissionMismatch"
	protocolMismatch     code = "AuthorizationProtocolMismatch"
	resourceTypeMismatch code = "AuthorizationResourceTypeMismatch"
	serviceMismatch      code = "AuthorizationServiceMismatch"
	sourceIPMismatch     code = "AuthorizationSourceIPMismatch"
)

// status is the HTTP status that goes with a code; most are 400.
func (c code) status() int {
	switch c {
	case noAuthenticationInformation, invalidAuthenticationInfo:
		return http.StatusUnauthorized
	case authenticationFailed, corsPreflightFailure, unauthorizedBlobOverwrite, permissionMismatch,
		protocolMismatch, resourceTypeMismatch, serviceMismatch, sourceIPMismatch:
		return http.StatusForbidden
	case blobNotFound, containerNotFound, cannotVerifyCopySource:
		return http.StatusNotFound
	case unsupportedHTTPVerb:
		return http.StatusMethodNotAllowed
	case blobAlreadyExists, containerAlreadyExists, blockCountExceedsLimit, featureNotSupported,
		noPendingCopyOperation, publicAccessNotPermitted:
		return http.StatusConflict
	case missingContentLengthHeader:
		return http.StatusLengthRequired
	case conditionNotMet, sourceConditionNotMet, leaseNotPresent:
		return http.StatusPreconditionFailed
	case requestBodyTooLarge:
		return http.StatusRequestEntityTooLarge
	case invalidRange:
		return http.StatusRequestedRangeNotSatisfiable
	case internalError, operationTimedOut:
		return http.StatusInternalServerError
	case serverBusy:
		return http.StatusServiceUnavailable
	default:
		return http.StatusBadRequest
	}
}

// fault is an error that the client is told of. Everything else is an internal
// error and is only logged.
type fault struct {
	code    code
	message string
	details []detail
	status  int // instead of that of the code; for 304
	// content is the header Content-Range, which a range that is not there has.
	content string
}

// detail is an element of the error body beside code and message.
type detail struct{ name, value string }

func (f *fault) Error() string { return string(f.code) + ": " + f.message }

func refuse(c code, format string, args ...any) *fault {
	return &fault{code: c, message: fmt.Sprintf(format, args...), status: c.status()}
}

// with adds an element to the body of the error.
func (f *fault) with(name, value string) *fault {
	f.details = append(f.details, detail{name, value})
	return f
}

// of adds how large the blob is of which a range was asked for.
func (f *fault) of(size int64) *fault {
	f.content = fmt.Sprintf("bytes */%d", size)
	return f
}

func invalidHeader(name, value, why string) *fault {
	return refuse(invalidHeaderValue, "The value of the header %s is not valid: %s.", name, why).
		with("HeaderName", name).with("HeaderValue", clip(value))
}

func invalidQuery(name, value, why string) *fault {
	return refuse(invalidQueryParameterValue, "The value of the query parameter %s is not valid: %s.", name, why).
		with("QueryParameterName", name).with("QueryParameterValue", clip(value)).with("Reason", why)
}

func missingHeader(name string) *fault {
	return refuse(missingRequiredHeader, "The request lacks the header %s.", name).with("HeaderName", name)
}

// clip shortens what is quoted back to the client.
func clip(s string) string {
	const most = 100
	if len(s) > most {
		s = batch.Shorten(s, most) + "…"
	}
	return s
}

// asFault gives what the client is told of an error.
func asFault(err error) *fault {
	var f *fault
	if errors.As(err, &f) {
		return f
	}
	var refused *auth.Error
	if errors.As(err, &refused) {
		return authFault(refused)
	}
	if full, ok := errors.AsType[*disk.FullError](err); ok {
		return refuse(serverBusy, "The disk under %s is full. Please retry when there is room.", full.Path)
	}
	if busy, ok := errors.AsType[*batch.Error](err); ok && busy.Code == batch.CodeServerBusy {
		return refuse(serverBusy, "%s", busy.Message)
	}
	return refuse(internalError, "The server encountered an internal error. Please retry the request.")
}

// authFault puts a refusal of package auth into the words of the protocol.
func authFault(e *auth.Error) *fault {
	c, status := authenticationFailed, 0
	switch e.Reason {
	case auth.CredentialMissing:
		c = noAuthenticationInformation
	case auth.SchemeUnknown:
		c = invalidAuthenticationInfo
	case auth.HeaderMalformed:
		c, status = invalidAuthenticationInfo, http.StatusBadRequest
	case auth.SASProtocol:
		c = protocolMismatch
	case auth.SASAddress:
		c = sourceIPMismatch
	case auth.SASService:
		c = serviceMismatch
	case auth.SASResourceType:
		c = resourceTypeMismatch
	case auth.SASPermission:
		c = permissionMismatch
	}
	f := refuse(c, "The request is not accepted: %s.", e.Message)
	if status != 0 {
		f.status = status
	}
	if e.StringToSign != "" {
		f = f.with("AuthenticationErrorDetail",
			"The signature did not match. Server used following string to sign: '"+e.StringToSign+"'.")
	}
	return f
}

// writeFault answers with an error. A HEAD and a 304 have no body.
func (c *call) writeFault(f *fault) {
	h := c.w.Header()
	for name := range h {
		if !slices.Contains(keptHeaders, name) && f.status != http.StatusNotModified {
			delete(h, name) // Del would miss names that are not written in HTTP's way
		}
	}
	h.Set("X-Ms-Error-Code", string(f.code))
	if f.content != "" {
		h.Set("Content-Range", f.content)
	}
	if f.status == http.StatusUnauthorized {
		h.Set("Www-Authenticate", "SharedKey, SharedKeyLite")
	}
	if f.status == http.StatusServiceUnavailable {
		h.Set("Retry-After", "10")
	}
	c.allowWrite(0)
	if c.r.Method == http.MethodHead || f.status == http.StatusNotModified {
		c.w.WriteHeader(f.status)
		return
	}
	body := errorBody(f, c.id, c.now)
	h.Set("Content-Type", "application/xml")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	c.w.WriteHeader(f.status)
	_, _ = c.w.Write(body) // the client has gone if this fails
}

// keptHeaders are those of a half-made answer that an error has too.
var keptHeaders = []string{"X-Ms-Request-Id", "X-Ms-Client-Request-Id", "X-Ms-Version", "Server", "Allow", "Connection"}

func errorBody(f *fault, id string, now time.Time) []byte {
	var b strings.Builder
	element := func(name, value string) {
		b.WriteString("<" + name + ">" + escapeXML(value) + "</" + name + ">")
	}
	b.WriteString(`<?xml version="1.0" encoding="utf-8"?><Error>`)
	element("Code", string(f.code))
	element("Message", fmt.Sprintf("%s\nRequestId:%s\nTime:%s", f.message, id,
		now.UTC().Format("2006-01-02T15:04:05.0000000Z")))
	for _, d := range f.details {
		element(d.name, d.value)
	}
	b.WriteString("</Error>")
	return []byte(b.String())
}
