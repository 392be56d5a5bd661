package agent

import (
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/batchyard/batchyard/batch"
)

// health is what is wrong with the node. The server shows it, and gives no
// tasks to a node that is unfit; those that had not begun are given back, so
// that a node that can run none does not use up all there are.
type health struct {
	agent *Agent

	mu       sync.Mutex // guards troubles; held while nothing else is done
	troubles map[cause]trouble
}

// trouble is one thing that is wrong.
type trouble struct {
	batch.NodeError
	unfit bool // no task is to begin until it is over
}

// cause says what a trouble is about. There is one of each at most.
type cause int

const (
	causeShare     cause = iota // the node's files use up its share of the disk
	causeDisk                   // the filesystem has no room
	causeMemory                 // the machine has no memory
	causeLeftovers              // what tasks left uses up the node's memory
	causeStarts                 // tasks do not start
	causePanic                  // something went wrong in the agent itself
	causeRestart                // the agent is started again and again
	causeUsers                  // tasks cannot have users of their own
)

// Codes of a node's errors.
const (
	errorDiskFull    = "DiskFull"
	errorOutOfMemory = "OutOfMemory"
	errorNoStarts    = "TasksDoNotStart"
	errorPanic       = "AgentInternalError"
	errorRestarts    = "AgentRestarted"
	errorNoUsers     = "NoTaskUsers"
)

// tell notes a trouble, in place of an earlier one of its cause.
func (h *health) tell(c cause, unfit bool, code, message string, details ...batch.NameValue) {
	h.change(func() {
		h.troubles[c] = trouble{batch.NodeError{Code: code, Message: message, ErrorDetails: details}, unfit}
	})
}

// over notes that a trouble is over, if there was one.
func (h *health) over(c cause) {
	h.change(func() { delete(h.troubles, c) })
}

// has tells whether there is a trouble of a cause that makes the node unfit.
func (h *health) has(c cause) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.troubles[c].unfit
}

// change changes troubles and does what follows.
func (h *health) change(do func()) {
	h.mu.Lock()
	if h.troubles == nil {
		h.troubles = map[cause]trouble{}
	}
	before, fitBefore := h.list(), h.fitNow()
	do()
	fit, same := h.fitNow(), slices.EqualFunc(before, h.list(), sameError)
	h.mu.Unlock()
	if desk := h.agent.desk; desk != nil && fit != fitBefore {
		if fit {
			desk.schedule()
		} else {
			desk.giveBack()
		}
	}
	if !same || fit != fitBefore {
		h.agent.note(atOnce)
	}
}

func sameError(a, b batch.NodeError) bool {
	return a.Code == b.Code && a.Message == b.Message && slices.Equal(a.ErrorDetails, b.ErrorDetails)
}

// fit tells whether tasks may begin.
func (h *health) fit() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.fitNow()
}

// fitNow is fit for a caller that holds the lock.
func (h *health) fitNow() bool {
	for _, t := range h.troubles {
		if t.unfit {
			return false
		}
	}
	return true
}

// list has all troubles in their order; the caller holds the lock.
func (h *health) list() []batch.NodeError {
	var all []batch.NodeError
	for c := causeShare; c <= causeUsers; c++ {
		if t, is := h.troubles[c]; is {
			all = append(all, t.NodeError)
		}
	}
	return all
}

// report adds what is wrong. It is asked after the desk, so that attempts are
// not given back before it is known why.
func (h *health) report(report *batch.NodeReport) {
	h.mu.Lock()
	defer h.mu.Unlock()
	report.Errors, report.Unfit = h.list(), !h.fitNow()
}

// panicTime is how long the node shows that something went wrong in its agent.
const panicTime = time.Hour

// guard does a piece of work of which a panic ends neither the agent nor other
// work: it is the error of this one, logged with its stack and told in the
// node's errors.
func (a *Agent) guard(what string, work func() error) error {
	var returned error
	err := batch.Guard(func() error { returned = work(); return returned })
	if err == nil || returned != nil {
		return returned
	}
	a.Log.Error("internal error", "in", what, "err", err)
	a.health.tell(causePanic, false, errorPanic, "Something went wrong in the node's agent, in: "+what+". Its log has more.",
		detail("Message", firstLine(err.Error())))
	if a.working != nil {
		a.work.Go(func() {
			if pause(a.working, panicTime) {
				a.health.over(causePanic)
			}
		})
	}
	return err
}

// firstLine is the first line of a text, for a message.
func firstLine(text string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	return line
}
