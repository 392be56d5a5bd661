package keeper

import (
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/batchyard/batchyard/agent/isolation"
	"github.com/batchyard/batchyard/agent/run"
)

const (
	// maxHeld bounds what the keeper remembers, running and ended.
	maxHeld = 1 << 16
	// sweepLimit is how long the end of a task waits for leftovers that do not
	// die. A killed process can stay only inside the kernel.
	sweepLimit = 30 * time.Second
	// sweepAgain is when killing is repeated if nothing was heard meanwhile.
	sweepAgain = time.Second
)

// phase is how far a task of the keeper is.
//
//	inLine ──▶ starting ──▶ running ──▶ ending ──▶ ended
//	                            └──────────────────▲
//
// It is ending while leftovers of it are being killed.
type phase int

const (
	inLine phase = iota
	starting
	running
	ending
	ended
)

// task is one execution as the keeper holds it.
type task struct {
	id            string
	spec          *run.Spec // nil once it has started
	limits        run.Limits
	nodeProcesses int64
	room          int
	yields        bool
	private       bool     // it has namespaces of its own
	outputs       *outputs // nil until they are open, and once it has started
	ahead         bool     // it was tried to open them ahead of time
	slot          *slot
	birth         uint64

	phase   phase
	pid     int // 0 before it has started and once it is reaped
	started run.Started
	reason  run.Reason    // why it was ended, "" if it was not
	grace   time.Duration // of a kill that came while it was starting
	timer   *time.Timer   // ends the grace period
	result  *run.Result
	waiters []func(*run.Started, error)
}

// holder holds the node's tasks: the heart of the keeper.
type holder struct {
	log    *slog.Logger
	forker *forker
	groups *isolation.Groups
	born   int           // event descriptor: there is a child to wait for
	idle   chan struct{} // closed once closing and nothing is alive

	plain, admin pool // threads that fork

	mu       sync.Mutex // guards all below, and the fields of tasks
	tasks    map[string]*task
	line     []*task // those in line, in order
	pids     map[int]*task
	slots    []*slot
	free     []*slot
	alive    int // tasks that have not ended
	node     run.NodeLimits
	lease    int64 // when it ends, in nanoseconds of the boot clock; 0: never had
	closing  bool
	reporter *run.Wire // the agent to tell of an end, nil if there is none
	births   uint64
	forking  int          // tasks that are starting
	settled  sync.Cond    // wakes who waits until there are none
	early    map[int]exit // ends of children that are not yet in pids
	sweepers sync.WaitGroup
	threads  []int // numbers of the threads that fork
}

func newHolder(g *isolation.Groups, f *forker, log *slog.Logger) (*holder, error) {
	born, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make event descriptor: %w", err)
	}
	h := &holder{
		log:    log,
		forker: f,
		groups: g,
		born:   born,
		idle:   make(chan struct{}),
		tasks:  map[string]*task{},
		pids:   map[int]*task{},
		early:  map[int]exit{},
	}
	h.settled.L = &h.mu
	h.plain.init(false, max(2, min(16, runtime.NumCPU())))
	h.admin.init(true, 2)
	return h, nil
}

// start begins a task and calls reply once it runs or has failed to. It forks
// on the calling thread if th is not nil and the task is no administrator's,
// otherwise it leaves that to one that is free.
func (h *holder) start(s *run.Spec, th *thread, reply func(*run.Started, error)) {
	if err := checkSpec(s); err != nil {
		reply(nil, err)
		return
	}
	t := h.enlist(s, reply)
	switch {
	case t == nil:
	case th == nil || s.Admin || t.private:
		h.queue(t)
	default:
		h.fork(th, t)
	}
}

// enlist enters a task into the books, nil if there is nothing to fork.
func (h *holder) enlist(s *run.Spec, reply func(*run.Started, error)) *task {
	h.mu.Lock()
	defer h.mu.Unlock()
	t, err := h.find(s, reply)
	if t == nil || t.phase != inLine {
		return nil
	}
	h.leaveLine(t)
	if err == nil {
		err = h.admit(t)
	}
	if err != nil {
		h.drop(t, err)
		return nil
	}
	return t
}

// find is the task of a specification, a new one if need be, which then is as if
// in line. Reply is called once it has started, or at once if it has. The
// caller holds the lock.
func (h *holder) find(s *run.Spec, reply func(*run.Started, error)) (*task, error) {
	t := h.tasks[s.ID]
	if t != nil && t.phase > starting {
		reply(&t.started, nil)
		return t, nil
	}
	var err error
	if t == nil {
		// The name stays when the rest of the message is not needed any more.
		t = &task{id: strings.Clone(s.ID), spec: s, room: s.Room, yields: s.Yields, private: s.Private && h.forker.separates()}
		if len(h.tasks) >= maxHeld {
			err = run.ErrFull
		}
		h.tasks[t.id] = t
	}
	t.waiters = append(t.waiters, reply)
	return t, err
}

// drop forgets a task that has not started. The caller holds the lock.
func (h *holder) drop(t *task, why error) {
	delete(h.tasks, t.id)
	t.closeOutputs()
	t.answer(nil, why)
}

// admit gives a task a slot. The caller holds the lock.
func (h *holder) admit(t *task) error {
	if !h.mayStart() {
		return run.ErrNoLease
	}
	slot, err := h.takeSlot()
	if err != nil {
		return err
	}
	h.births++
	h.forking++
	h.alive++
	t.phase, t.slot, t.birth, t.limits, t.nodeProcesses = starting, slot, h.births, t.spec.Limits, h.node.Processes
	if t.limits.Processes == 0 {
		t.limits.Processes = h.node.TaskProcesses
	}
	if t.limits.FileBytes == 0 {
		t.limits.FileBytes = h.node.FileBytes
	}
	return nil
}

// mayStart tells whether a task may begin now. The caller holds the lock.
func (h *holder) mayStart() bool { return !h.closing && run.BootTime() < h.lease }

func (h *holder) takeSlot() (*slot, error) {
	if n := len(h.free); n > 0 {
		s := h.free[n-1]
		h.free = h.free[:n-1]
		return s, nil
	}
	s, err := newSlot(h.groups, len(h.slots))
	if err != nil {
		return nil, err
	}
	h.slots = append(h.slots, s)
	return s, nil
}

func (h *holder) forked(t *task, pid int, at time.Time, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.forking--
	if err != nil {
		h.failed(t, err)
	} else {
		h.runs(t, pid, at)
	}
	if h.forking == 0 {
		clear(h.early)
		h.settled.Broadcast()
	}
}

func (h *holder) failed(t *task, err error) {
	h.drop(t, err)
	h.retire(t)
}

// runs enters a started process into the books. It may have ended already, or
// somebody may want it to.
func (h *holder) runs(t *task, pid int, at time.Time) {
	t.phase, t.pid, t.spec = running, pid, nil
	t.started = run.Started{PID: pid, At: at, Up: run.BootTime() - int64(time.Since(at))}
	h.pids[pid] = t
	t.answer(&t.started, nil)
	h.wakeReaper()
	if e, ok := h.early[pid]; ok && e.births >= t.birth {
		if next := h.ended(t, e); next != nil {
			h.queue(next)
		}
		return
	}
	if t.reason != "" {
		h.end(t, t.grace)
	}
}

func (t *task) answer(s *run.Started, err error) {
	for _, reply := range t.waiters {
		reply(s, err)
	}
	t.waiters = nil
}

func (t *task) closeOutputs() {
	if t.outputs != nil {
		t.outputs.close()
		t.outputs = nil
	}
}

func (t *task) held() *run.Held {
	held := &run.Held{ID: t.id, Started: t.started}
	if t.phase == ended {
		held.Result = t.result
	}
	return held
}

// forget drops results that the agent has safe. Tasks that run stay.
func (h *holder) forget(ids []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, id := range ids {
		if t := h.tasks[id]; t != nil && t.phase == ended {
			delete(h.tasks, id)
		}
	}
}

// list is everything that is held. What has not started yet is left out: whoever
// asked for it has yet to hear of it. The caller holds the lock.
func (h *holder) list() []run.Held {
	var all []run.Held
	for _, t := range h.tasks {
		if t.phase > starting {
			all = append(all, *t.held())
		}
	}
	slices.SortFunc(all, func(a, b run.Held) int { return a.Started.At.Compare(b.Started.At) })
	return all
}
