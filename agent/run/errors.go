package run

import (
	"errors"
	"fmt"
)

// Codes of the protocol that a StartError carries.
const (
	CodeProgramNotFound = "CommandProgramNotFound"
	CodeLaunchFailed    = "CommandLaunchFailed"
)

var (
	// ErrUnknown is returned for an execution that the keeper does not hold:
	// it never started, was forgotten, or was lost with an earlier keeper.
	ErrUnknown = errors.New("execution is not known to the keeper")
	// ErrNoLease refuses to start a task that would have to be killed at once,
	// because no lease was given or the last one has run out.
	ErrNoLease = errors.New("the node holds no lease")
	// ErrKeeperLost is returned for a request that the keeper may or may not
	// have carried out before it died. Whatever it started is dead.
	ErrKeeperLost = errors.New("the keeper process was lost")
	// ErrClosed is returned after Close or Shutdown.
	ErrClosed = errors.New("keeper connection is closed")
	// ErrSuperseded is returned once another agent process has taken over the
	// node's keeper.
	ErrSuperseded = errors.New("another agent has taken over the keeper")
	// ErrNoLine refuses to line up an execution because the keeper is of an
	// earlier version that has no line.
	ErrNoLine = errors.New("the keeper has no line")
	// ErrFull refuses to start a task because the keeper holds as many as it
	// may; forget results first.
	ErrFull = errors.New("the keeper holds too many executions")
)

// StartError says that a command could not be started and that the command,
// its directory or its files are to blame, not the node.
type StartError struct {
	// Code is CodeProgramNotFound or CodeLaunchFailed.
	Code string
	// Message is fit for the eyes of the task's owner.
	Message string
}

// Error returns the message.
func (e *StartError) Error() string { return e.Message }

// LaunchFailed is the error of a command that is itself to blame.
func LaunchFailed(format string, args ...any) *StartError {
	return &StartError{Code: CodeLaunchFailed, Message: fmt.Sprintf(format, args...)}
}

// Codes of errors that travel from keeper to agent beside those of StartError.
const (
	codeUnknown    = "Unknown"
	codeNoLease    = "NoLease"
	codeFull       = "Full"
	codeSuperseded = "Superseded"
	codeInternal   = "Internal"
)

// WireError is an error on its way from keeper to agent.
type WireError struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// ToWire makes err fit for the wire.
func ToWire(err error) *WireError {
	var start *StartError
	switch {
	case errors.As(err, &start):
		return &WireError{Code: start.Code, Message: start.Message}
	case errors.Is(err, ErrUnknown):
		return &WireError{Code: codeUnknown}
	case errors.Is(err, ErrNoLease):
		return &WireError{Code: codeNoLease}
	case errors.Is(err, ErrFull):
		return &WireError{Code: codeFull}
	case errors.Is(err, ErrSuperseded):
		return &WireError{Code: codeSuperseded}
	default:
		return &WireError{Code: codeInternal, Message: err.Error()}
	}
}

// err is the inverse of ToWire.
func (e *WireError) err() error {
	switch e.Code {
	case CodeProgramNotFound, CodeLaunchFailed:
		return &StartError{Code: e.Code, Message: e.Message}
	case codeUnknown:
		return ErrUnknown
	case codeNoLease:
		return ErrNoLease
	case codeFull:
		return ErrFull
	case codeSuperseded:
		return ErrSuperseded
	default:
		return fmt.Errorf("keeper: %s", e.Message)
	}
}
