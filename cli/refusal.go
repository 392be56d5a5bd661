package cli

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/client"
)

// Exit codes of the program. A command that stands for a task, such as run,
// ends with the exit code of the task instead.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitNotFound    = 3
	exitForbidden   = 4 // who calls is not known, or may not
	exitConflict    = 5
	exitBusy        = 6 // a quota, or too much at once
	exitUnreachable = 7
	exitNoOutcome   = 125 // a task ended without an exit code of its own
	exitInterrupted = 130
)

// usageError is a wrong call of a command.
type usageError struct{ error }

func (u usageError) Unwrap() error { return u.error }

// exitStatus is the exit code of a command that has said all there is to say.
type exitStatus int

func (e exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// exitCode is what a script is told of an error.
func exitCode(err error) int {
	if status, ok := errors.AsType[exitStatus](err); ok {
		return int(status)
	}
	if _, ok := errors.AsType[usageError](err); ok {
		return exitUsage
	}
	if refused, ok := errors.AsType[*client.Refusal](err); ok {
		return exitCodeOfStatus(refused.Status)
	}
	if _, ok := errors.AsType[*url.Error](err); ok {
		return exitUnreachable
	}
	switch batch.CodeOf(err) {
	case batch.CodePoolNotFound, batch.CodeJobNotFound, batch.CodeTaskNotFound, batch.CodeAccountNotFound:
		return exitNotFound
	case batch.CodeConditionNotMet, batch.CodePoolExists, batch.CodeJobExists, batch.CodeTaskExists:
		return exitConflict
	}
	if errors.Is(err, context.Canceled) {
		return exitInterrupted
	}
	return exitFailed
}

// exitCodeOfStatus tells scripts apart what they can do something about: what is not
// there, who may not, what another state forbids, and what is worth another try.
func exitCodeOfStatus(status int) int {
	switch status {
	case http.StatusNotFound:
		return exitNotFound
	case http.StatusUnauthorized, http.StatusForbidden:
		return exitForbidden
	case http.StatusConflict, http.StatusPreconditionFailed:
		return exitConflict
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		return exitBusy
	}
	return exitFailed
}

// explain is an error in the words for a person: what happened, which value was
// wrong, what would help, and under which id the server's log has it.
func explain(err error) string {
	if refused, ok := errors.AsType[*client.Refusal](err); ok {
		return explainRefusal(refused)
	}
	if failed, ok := errors.AsType[*url.Error](err); ok {
		return explainUnreachable(failed)
	}
	return err.Error()
}

// explainRefusal has what the service said, a fact a line, and what to look at
// where the service cannot know it. The request's id comes last: it is for whoever
// reads the server's log.
func explainRefusal(r *client.Refusal) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s", r.Err.Code, printable(r.Err.Message))
	for _, d := range r.Err.Details {
		fmt.Fprintf(&b, "\n  %s: %s", printable(d.Key), printable(d.Value))
	}
	if r.Err.Code == batch.CodeAuthenticationFailed {
		fmt.Fprintf(&b, "\n  Check %s, %s and the clock of this machine.", envAccount, envKey)
	}
	if r.RequestID != "" {
		fmt.Fprintf(&b, "\n  request %s", printable(r.RequestID))
	}
	return b.String()
}

// explainUnreachable is for what went wrong before there was an answer. The two
// cases that everybody meets once are told with what to do about them.
func explainUnreachable(failed *url.Error) string {
	endpoint := failed.URL
	if u, err := url.Parse(failed.URL); err == nil {
		endpoint = u.Scheme + "://" + u.Host
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](failed.Err); ok {
		return fmt.Sprintf("the certificate of %s is signed by an authority that this machine does not know.\n"+
			"  Name the authority's file in SSL_CERT_FILE ('batchyard dev' prints where its own is).", endpoint)
	}
	if _, ok := errors.AsType[*net.OpError](failed.Err); ok && endpoint == devEndpoint {
		return fmt.Sprintf("nobody answers at %s.\n  Start 'batchyard dev' in another terminal, or set %s, %s and %s.",
			endpoint, envEndpoint, envAccount, envKey)
	}
	return fmt.Sprintf("cannot reach %s: %v", endpoint, failed.Err)
}
