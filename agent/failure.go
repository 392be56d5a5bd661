package agent

import (
	"errors"
	"syscall"

	"github.com/batchyard/batchyard/batch"
)

// taskFailure is an error that is the task's own failure, in the protocol's
// words.
type taskFailure struct{ info batch.FailureInfo }

func (f *taskFailure) Error() string { return f.info.Message }

func userFailure(code batch.FailureCode, message string, details ...batch.NameValue) error {
	return &taskFailure{batch.FailureInfo{Category: batch.UserError, Code: code, Message: message, Details: details}}
}

func detail(name, value string) batch.NameValue { return batch.NameValue{Name: name, Value: value} }

// failureOf is what a task shows for an error: its own words, or a fault of
// the node.
func failureOf(err error) *batch.FailureInfo {
	if own, ok := errors.AsType[*taskFailure](err); ok {
		return &own.info
	}
	code, message := batch.FailureCommandLaunch, "The compute node could not prepare the task"
	if noSpace(err) {
		code, message = batch.FailureDiskFull, noSpaceMessage
	}
	return &batch.FailureInfo{
		Category: batch.ServerError, Code: code, Message: message, Details: []batch.NameValue{detail("Message", err.Error())},
	}
}

// failureText is what a failure says in one line.
func failureText(f *batch.FailureInfo) string {
	for _, d := range f.Details {
		if d.Name == "Message" {
			return firstLine(d.Value)
		}
	}
	return f.Message
}

// noSpace tells whether a disk or a quota is full.
func noSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
