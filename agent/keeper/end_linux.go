package keeper

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/batchyard/batchyard/agent/run"
)

// kill ends a task because the agent asks for it.
func (h *holder) kill(id string, grace time.Duration) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.tasks[id]
	if t == nil || t.phase == inLine {
		return run.ErrUnknown
	}
	h.wish(t, run.Killed, grace)
	return nil
}

// killAll ends every task at once. The caller holds the lock.
func (h *holder) killAll(why run.Reason) {
	h.clearLine(run.ErrNoLease)
	for _, t := range h.tasks {
		h.wish(t, why, 0)
	}
}

// wish ends a task for a reason, as soon as it has started. A task whose main
// process has ended is being cleared away already and keeps its reason.
func (h *holder) wish(t *task, why run.Reason, grace time.Duration) {
	if t.phase >= ending {
		return
	}
	if t.reason == "" {
		t.reason = why
	}
	t.grace = grace
	if t.phase == running {
		h.end(t, grace)
	}
}

// end signals a running task. The caller holds the lock, so that the main
// process is not reaped meanwhile and its number is its own.
func (h *holder) end(t *task, grace time.Duration) {
	if grace > 0 {
		_ = unix.Kill(-t.pid, unix.SIGTERM)
		t.stopTimer()
		t.timer = time.AfterFunc(grace, func() {
			h.mu.Lock()
			defer h.mu.Unlock()
			if t.phase == running {
				h.end(t, 0)
			}
		})
		return
	}
	if err := t.slot.tracker.Kill(t.pid); err != nil {
		h.log.Error("group could not be killed", "task", t.id, "error", err)
		_ = unix.Kill(-t.pid, unix.SIGKILL)
	}
}

func (t *task) stopTimer() {
	if t.timer != nil {
		t.timer.Stop()
		t.timer = nil
	}
}

// ended notes that a task's main process was reaped, and clears its slot. It
// returns the task that is to be forked in it, if there is one. The caller
// holds the lock.
func (h *holder) ended(t *task, e exit) *task {
	delete(h.pids, t.pid)
	t.stopTimer()
	t.pid = 0
	t.result = e.result(t)
	if !t.private && t.slot.tracker.Empty() {
		return h.finish(t)
	}
	t.phase = ending
	h.sweepers.Go(func() { h.sweep(t) })
	return nil
}

// sweep kills what the task left behind, and reports its end when that is gone.
func (h *holder) sweep(t *task) {
	reported := false
	for start := time.Now(); !t.slot.tracker.Empty(); {
		if err := t.slot.tracker.Kill(0); err != nil {
			h.log.Error("leftovers could not be killed", "task", t.id, "error", err)
		}
		t.slot.tracker.Wait(t.slot.orphan, sweepAgain)
		if !reported && time.Since(start) > sweepLimit {
			h.log.Error("leftovers do not die", "task", t.id, "slot", t.slot.number)
			h.mu.Lock()
			t.result.Leftovers = true
			h.conclude(t)
			h.announce(t)
			h.mu.Unlock()
			reported = true
		}
	}
	if t.private {
		if err := h.forker.machine.Forget(t.slot.number); err != nil {
			h.log.Error("temporary files of a task are left", "task", t.id, "error", err)
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if reported {
		t.slot.limiter.Usage() // the next task's begins from here
		h.retire(t)
		return
	}
	if next := h.finish(t); next != nil {
		h.queue(next)
	}
}

// finish ends a task of which nothing is left, and returns the one that is to be
// forked in its place, if there is one. The caller holds the lock.
func (h *holder) finish(t *task) *task {
	h.conclude(t)
	h.retire(t)
	next := h.follow(t)
	h.announce(t)
	return next
}

// conclude completes the result. The caller holds the lock.
func (h *holder) conclude(t *task) {
	r := t.result
	u := t.slot.limiter.Usage()
	r.OOMKills, r.MemoryPeak = u.OOMKills, u.Peak
	r.MemoryLimit = smallest(u.Limit, h.node.MemoryBytes)
	r.Reason = t.reason
	if r.Reason == "" {
		r.Reason = run.Exited
		if r.OOMKills > 0 && (r.Signal == int(unix.SIGKILL) || r.ExitCode != 0) {
			r.Reason = run.OOMKilled
		}
	}
	t.phase = ended
}

// announce tells the agent of an end: at once, unless the node goes on without
// its help. The caller holds the lock.
func (h *holder) announce(t *task) {
	switch m := (&run.Message{Exited: t.held()}); {
	case h.reporter == nil:
	case t.result.Next != "":
		_ = h.reporter.Post(m)
	default:
		_ = h.reporter.Send(m)
	}
}

// retire gives the slot back.
func (h *holder) retire(t *task) {
	h.free = append(h.free, t.slot)
	h.alive--
	if h.closing && h.alive == 0 {
		h.becomeIdle()
	}
}

func (h *holder) becomeIdle() {
	close(h.idle)
	h.wakeReaper()
}

func smallest(a, b int64) int64 {
	if a <= 0 || (b > 0 && b < a) {
		return max(b, 0)
	}
	return a
}

// close kills all tasks and refuses new ones. Idle tells when all have ended.
func (h *holder) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closing {
		return
	}
	h.closing = true
	h.killAll(run.Killed)
	if h.alive == 0 {
		h.becomeIdle()
	}
}

// exit is how a child ended.
type exit struct {
	status syscall.WaitStatus
	usage  syscall.Rusage
	at     time.Time
	births uint64
}

func (e exit) result(t *task) *run.Result {
	r := &run.Result{
		ExitCode:  e.status.ExitStatus(),
		Started:   t.started.At,
		Ended:     e.at,
		UserCPU:   time.Duration(e.usage.Utime.Nano()),
		SystemCPU: time.Duration(e.usage.Stime.Nano()),
		MaxRSS:    int64(e.usage.Maxrss) << 10, //nolint:unconvert // it has 32 bits on some systems
	}
	if r.Ended.Round(0).Before(r.Started.Round(0)) { // the date was set back
		r.Ended = r.Started.Add(r.Ended.Sub(r.Started))
	}
	if e.status.Signaled() {
		r.Signal = int(e.status.Signal())
	}
	return r
}
