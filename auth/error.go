package auth

import (
	"fmt"
	"net/http"

	"github.com/batchyard/batchyard/batch"
)

// Reason names why a request was not accepted, for programs: the edges map it
// to the codes of their protocol.
type Reason string

// Reasons that concern the request as a whole.
const (
	CredentialMissing Reason = "CredentialMissing" // neither an Authorization header nor a SAS
	SchemeUnknown     Reason = "SchemeUnknown"     // an Authorization header of a kind that is not spoken here
	HeaderMalformed   Reason = "HeaderMalformed"   // an Authorization header that does not parse
	AccountUnknown    Reason = "AccountUnknown"    // no such account, said by the caller with UnknownAccount
	DateMissing       Reason = "DateMissing"       // neither the protocol's date header nor Date
	DateMalformed     Reason = "DateMalformed"     // a date that is not an HTTP date
	DateOutOfWindow   Reason = "DateOutOfWindow"   // clocks differ by more than DateWindow, or a replay
	SignatureMismatch Reason = "SignatureMismatch" // signed with another key, or something else was signed
	RequestTooLong    Reason = "RequestTooLong"    // more address or headers than a signature may cover
	TokenInvalid      Reason = "TokenInvalid"      // a bearer token that is not the expected one
)

// Reasons that concern a shared access signature.
const (
	SASMalformed         Reason = "SASMalformed"         // a parameter is missing, repeated or does not parse
	SASUnsupported       Reason = "SASUnsupported"       // a kind or version of SAS that is not served here
	SASPolicyUnsupported Reason = "SASPolicyUnsupported" // it names a stored access policy
	SASNotYetValid       Reason = "SASNotYetValid"       // used before its start
	SASExpired           Reason = "SASExpired"           // used at or after its expiry
	SASProtocol          Reason = "SASProtocol"          // HTTPS only, used over HTTP
	SASAddress           Reason = "SASAddress"           // used from an address outside of its range
	SASService           Reason = "SASService"           // an account SAS that does not cover the Blob service
	SASResourceType      Reason = "SASResourceType"      // it does not cover this level: service, container or object
	SASPermission        Reason = "SASPermission"        // it lacks the permission that the operation needs
)

// Error is a refusal that may be shown to the caller.
type Error struct {
	Reason  Reason
	Message string // says what to do about it; never holds a key or an expected signature

	// StringToSign is the text that the signature was compared for, the most
	// likely of the candidates. It holds nothing but what the request itself
	// says, and tells the author of a client where the two sides differ.
	// Only set with SignatureMismatch.
	StringToSign string
}

// Error gives the message.
func (e *Error) Error() string { return e.Message }

// Status is the HTTP status to answer with: 401 if the request did not say who
// it speaks for in a way that could be understood, 403 if it did and is refused.
func (e *Error) Status() int {
	switch e.Reason {
	case CredentialMissing, SchemeUnknown, HeaderMalformed, TokenInvalid:
		return http.StatusUnauthorized
	default:
		return http.StatusForbidden
	}
}

// UnknownAccount is the refusal for an account that does not exist. It is here
// so that every edge says it in the same words.
func UnknownAccount(name string) *Error {
	return refuse(AccountUnknown, "there is no account %q here: check the account name and the endpoint", clip(name))
}

func refuse(reason Reason, format string, args ...any) *Error {
	return &Error{Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// clip shortens what is quoted back to the sender.
func clip(s string) string {
	const most = 100
	if len(s) <= most {
		return s
	}
	return batch.Shorten(s, most) + "…"
}
