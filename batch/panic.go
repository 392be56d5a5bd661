package batch

import (
	"fmt"
	"log/slog"
	"runtime/debug"
)

// Panic is the error of a piece of work that panicked: one attempt, request or
// duty that meets a bug fails by itself, and all others go on.
type Panic struct {
	// Value is what it panicked with.
	Value any
	// Stack is where, for the log.
	Stack string
}

// Error says with what.
func (p *Panic) Error() string { return fmt.Sprintf("internal error: %v", p.Value) }

// LogValue has the stack with it.
func (p *Panic) LogValue() slog.Value {
	return slog.GroupValue(slog.String("panic", fmt.Sprint(p.Value)), slog.String("stack", p.Stack))
}

// Guard does a piece of work and returns its error, a *Panic if it panics. What
// else has to be true when work is given up, its own deferred calls see to.
func Guard(work func() error) (err error) {
	defer func() {
		if value := recover(); value != nil {
			err = &Panic{Value: value, Stack: string(debug.Stack())}
		}
	}()
	return work()
}
