package keeper

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/batchyard/batchyard/agent/isolation"
)

// A slot runs one task at a time. It owns the groups that the task is in.
type slot struct {
	number  int
	tracker isolation.Tracker
	limiter isolation.Limiter
	orphan  chan struct{} // size one: an orphan of some slot was reaped
}

func newSlot(g *isolation.Groups, n int) (*slot, error) {
	t, l, err := g.Slot(n)
	if err != nil {
		return nil, err
	}
	return &slot{number: n, tracker: t, limiter: l, orphan: make(chan struct{}, 1)}, nil
}

func (s *slot) close() {
	s.tracker.Close()
	s.limiter.Close()
}

// taskSlack is how late timers of tasks may fire, in nanoseconds: the system's
// usual value. The keeper has another, see package run.
const taskSlack = 50_000

// A thread is an operating system thread that forks tasks. It lives as long as
// the keeper, because the parent death signal of a process is sent when the
// thread that forked it ends (https://go.dev/issue/27505).
type thread struct {
	// patient threads may wait for a program that is being written to.
	patient bool
	// in is the slot that the thread forked in last, whose groups it may still
	// be in.
	in *slot
	// cradle is where its children are born.
	cradle cradle
	// stranded threads are in namespaces that are not the node's, and must not
	// fork any more.
	stranded bool
}

// newThread makes the calling goroutine's thread one that forks. Unless it is
// for administrators it gives up the right to gain privileges, which children
// inherit and nothing can undo.
func (h *holder) newThread(patient, admin bool) (*thread, error) {
	runtime.LockOSThread()
	h.mu.Lock()
	h.threads = append(h.threads, unix.Gettid())
	h.mu.Unlock()
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, taskSlack, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("set timer slack: %w", err)
	}
	hurry()
	// What a keeper without root may do in namespaces of its own is not for tasks.
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil && !errors.Is(err, unix.EINVAL) {
		return nil, fmt.Errorf("give up capabilities: %w", err)
	}
	if !admin {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return nil, fmt.Errorf("give up new privileges: %w", err)
		}
	}
	if err := h.groups.Enter(); err != nil {
		return nil, err
	}
	return &thread{patient: patient}, nil
}

// hurry has the calling thread run before tasks whenever it is ready to. It never
// runs for long, and as long as it waits a slot is empty. The kernel gives a
// thread the processor sooner that asks for short slices (from 6.12 on) and
// that is favoured, which takes a capability; to be refused does no harm.
// Children do not inherit it.
func hurry() {
	const resetOnFork = 1 // SCHED_FLAG_RESET_ON_FORK
	attr := &unix.SchedAttr{
		Size: unix.SizeofSchedAttr, Policy: unix.SCHED_NORMAL, Flags: resetOnFork, Nice: -10,
		Runtime: uint64(100 * time.Microsecond),
	}
	if unix.SchedSetAttr(0, attr, 0) != nil {
		attr.Nice = 0
		_ = unix.SchedSetAttr(0, attr, 0)
	}
}

// enter takes the thread into the slot, so that a child is born there.
func (th *thread) enter(s *slot) error {
	err := errors.Join(s.limiter.Enter(th.in == s), s.tracker.Enter())
	th.in = s
	if err != nil {
		return fmt.Errorf("enter slot %d: %w", s.number, err)
	}
	return nil
}

// leave takes it out of those groups in which it would count or be frozen.
func (th *thread) leave(s *slot) error {
	if err := errors.Join(s.limiter.Leave(), s.tracker.Leave()); err != nil {
		return fmt.Errorf("leave slot %d: %w", s.number, err)
	}
	return nil
}

// forker is what all slots share to start processes.
type forker struct {
	birth   *birth
	machine *isolation.Machine // nil where there is none of the node's own
	mark    uint64             // 0 where groups tell tasks apart
	null    int                // the null device
}

// separates tells whether tasks can have namespaces of their own.
func (f *forker) separates() bool { return f.machine != nil && f.machine.Separates() }

// start starts the process of a task, on a thread that forks.
func (f *forker) start(th *thread, t *task) (pid int, at time.Time, err error) {
	s := t.slot
	if err := s.limiter.Begin(t.limits); err != nil {
		return 0, at, fmt.Errorf("set limits of slot %d: %w", s.number, err)
	}
	if t.outputs == nil {
		if t.outputs, err = openOutputs(t.spec, f.null); err != nil {
			return 0, at, err
		}
	}
	defer t.closeOutputs()
	if err := f.birth.hold(f.limits(t)); err != nil {
		return 0, at, err
	}
	defer f.birth.release()
	if err := th.enter(s); err != nil {
		return 0, at, err
	}
	child := f.newborn(t)
	begin := func() (err error) {
		pid, err = startProgram(t.spec, th.patient, func(file string) (int, error) {
			at = time.Now()
			return th.cradle.fork(file, child)
		})
		return err
	}
	if t.private {
		err = f.machine.Private(s.number, begin)
		if _, th.stranded = errors.AsType[*isolation.StrandedError](err); th.stranded && pid > 0 {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	} else {
		err = begin()
	}
	// A thread that stays behind in a group would stop with it, so the task
	// cannot be.
	if left := th.leave(s); left != nil {
		if err == nil {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		return 0, at, errors.Join(err, left)
	}
	return pid, at, err
}

func (f *forker) limits(t *task) birthLimits {
	b := birthLimits{files: t.limits.OpenFiles, size: t.limits.FileBytes}
	if f.mark != 0 {
		b.mark = f.mark | uint64(t.slot.number)
		// Counted per user, so it is only of use for users of our own.
		if t.spec.User != nil && os.Geteuid() == 0 {
			b.procs = t.nodeProcesses
		}
	}
	return b
}
