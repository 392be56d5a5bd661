package keeper

import (
	"slices"

	"github.com/batchyard/batchyard/agent/run"
)

// The line is of tasks that start when others make room. The node's agent has
// prepared all for them, so that between the end of a short task and the start
// of the next nobody need be asked, and no processor waits.

// lineUp puts a task at the end of the line; reply is called once it runs, has
// failed to start, or leaves the line.
func (h *holder) lineUp(s *run.Spec, reply func(*run.Started, error)) {
	if err := checkSpec(s); err != nil {
		reply(nil, err)
		return
	}
	if h.enqueue(s, reply) {
		h.openAhead()
	}
}

// enqueue puts a task that is new into the line.
func (h *holder) enqueue(s *run.Spec, reply func(*run.Started, error)) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	known := h.tasks[s.ID] != nil
	t, err := h.find(s, reply)
	if known {
		return false
	}
	if err == nil && !h.mayStart() {
		err = run.ErrNoLease
	}
	if err != nil {
		h.drop(t, err)
		return false
	}
	h.line = append(h.line, t)
	return true
}

// opened is of how many in line the output files are open. Each fork copies
// all that are open, and each program that begins has them closed.
const opened = 4

// openAhead opens the output files of one of the first in line that has not, so
// that it is not done between the end of a task and the start of the next. What
// is wrong with them is told when the task is to start.
func (h *holder) openAhead() {
	t, spec := h.unopened()
	if t == nil {
		return
	}
	o, err := openOutputs(spec, h.forker.null)
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case err != nil: // once is enough
	case t.phase == inLine && h.tasks[t.id] == t:
		t.outputs = o
	default:
		o.close()
	}
}

// unopened is the first whose files are to be opened, nil if there is none, and
// what it is to run, which it forgets when it has started.
func (h *holder) unopened() (*task, *run.Spec) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, t := range h.line[:min(len(h.line), opened)] {
		if !t.ahead {
			t.ahead = true
			return t, t.spec
		}
	}
	return nil, nil
}

// withdraw takes a task out of line. Reply is told how it was started, if it was.
func (h *holder) withdraw(id string, reply func(*run.Started)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.tasks[id]
	switch {
	case t == nil:
		reply(nil)
	case t.phase == inLine:
		h.leaveLine(t)
		h.drop(t, run.ErrUnknown)
		reply(nil)
	case t.phase == starting:
		t.waiters = append(t.waiters, func(s *run.Started, _ error) { reply(s) })
	default:
		reply(&t.started)
	}
}

// leaveLine takes a task out of line, if it is there. The caller holds the lock.
func (h *holder) leaveLine(t *task) {
	if i := slices.Index(h.line, t); i >= 0 {
		h.line = slices.Delete(h.line, i, i+1)
	}
}

// clearLine forgets all that are in line, and says why unless that is nil. The
// caller holds the lock.
func (h *holder) clearLine(why error) {
	for _, t := range h.line {
		if why == nil {
			t.waiters = nil
		}
		h.drop(t, why)
	}
	h.line = nil
}

// follow is the task that takes the room of one that has ended, nil if that did
// not go well or the first in line needs other room; the agent decides then. The
// caller holds the lock.
func (h *holder) follow(t *task) *task {
	r := t.result
	if !t.yields || r.Reason != run.Exited || r.ExitCode != 0 || r.OOMKills > 0 ||
		len(h.line) == 0 || h.line[0].room != t.room || !h.mayStart() {
		return nil
	}
	next := h.line[0]
	if err := h.admit(next); err != nil {
		h.log.Error("slot not passed on", "task", next.id, "error", err)
		return nil
	}
	h.line = slices.Delete(h.line, 0, 1)
	r.Next = next.id
	return next
}
