package keeper

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// forkPatience is how long a fork may keep the reaper from children. It takes
// longer only if the program is on a disk that does not answer.
const forkPatience = 100 * time.Millisecond

// reap waits for children, one after another, until the holder is closed and no
// task is left, and says so. It is the only place that does, and it sees the
// orphans that tasks leave behind as well, because the keeper is their subreaper.
//
// When a task has ended it forks the next in line itself. If that takes long,
// another thread goes on here and this one becomes one of those that fork; it
// must not end, since its children would end with it.
func (h *holder) reap(over chan<- error) {
	th, err := h.newThread(false, false)
	if err != nil {
		h.log.Error("tasks in line are started by other threads", "error", err)
		th = nil
	}
	err = h.reapOn(th, func() { go h.reap(over) })
	if errors.Is(err, errReplaced) {
		h.plain.mu.Lock()
		h.plain.size++
		h.plain.mu.Unlock()
		h.workOn(th, &h.plain)
	}
	over <- err
	if th != nil {
		select {} // until the process ends
	}
}

// errReplaced tells a reaper that another has taken its place.
var errReplaced = errors.New("another thread reaps")

// reapOn reaps, and forks on a thread that may be nil. If a fork takes long it
// calls replace, and returns errReplaced.
func (h *holder) reapOn(th *thread, replace func()) error {
	w := &forkWatch{replace: replace}
	for {
		pid, err := peekChild()
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.ECHILD):
			if !h.awaitBirth() {
				return nil
			}
		case err != nil:
			return fmt.Errorf("wait for children: %w", err)
		default:
			next := h.reapOne(pid)
			if next == nil {
				continue
			}
			if th == nil || next.spec.Admin || next.private {
				h.queue(next)
				continue
			}
			w.begin()
			h.fork(th, next)
			h.openAhead()
			if !w.end() {
				return errReplaced
			}
		}
	}
}

// forkWatch calls replace if a fork takes longer than forkPatience. Its timer
// runs on from one fork to the next: setting one for each would wake another
// thread each time.
type forkWatch struct {
	replace func()

	mu    sync.Mutex // guards all below
	since time.Time  // when the fork under way began, zero if there is none
	armed bool       // the timer runs
	fired bool       // replace was called
}

func (w *forkWatch) begin() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.since = time.Now()
	if !w.armed {
		w.armed = true
		time.AfterFunc(forkPatience, w.look)
	}
}

// end is false if the fork took so long that replace was called.
func (w *forkWatch) end() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.since = time.Time{}
	return !w.fired
}

func (w *forkWatch) look() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.armed = !w.since.IsZero(); !w.armed {
		return
	}
	if left := forkPatience - time.Since(w.since); left > 0 {
		time.AfterFunc(left, w.look)
		return
	}
	w.fired = true
	w.replace()
}

// awaitBirth waits until a child may have been born, false if none will be. It
// waits in the kernel, as for children.
func (h *holder) awaitBirth() bool {
	select {
	case <-h.idle:
		return false
	default:
	}
	var count [8]byte
	_, err := unix.Read(h.born, count[:])
	return err == nil || errors.Is(err, unix.EINTR)
}

// wakeReaper lets the reaper look for children again. While children live nobody
// takes from the counter, and a counter that is full would block the writer and
// with it the keeper, so it is raised by one and not more.
func (h *holder) wakeReaper() {
	var one [8]byte
	binary.NativeEndian.PutUint64(one[:], 1)
	_, _ = unix.Write(h.born, one[:])
}

// unsignalChildren forgoes the signal that tells of a child's end. Nobody wants it,
// since the reaper waits in the kernel, but the Go runtime handles it, which wakes
// some other thread for every child. The usual disposition does nothing, while to
// ignore the signal would have the kernel reap. That this is refused does no harm.
func unsignalChildren() {
	var usual [8]uint64 // zero whatever the order of the fields
	_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(unix.SIGCHLD), uintptr(unsafe.Pointer(&usual)), 0, 8, 0, 0)
}

// peekChild blocks until a child has ended and leaves it unreaped, so that its
// number stays taken.
func peekChild() (int, error) {
	var info unix.Siginfo
	if err := unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
		return 0, err
	}
	return siginfoPID(&info), nil
}

// siginfoPID reads the process number, the first field of the union that
// follows three numbers and is aligned to a pointer.
func siginfoPID(info *unix.Siginfo) int {
	const align = unsafe.Sizeof(uintptr(0))
	const offset = (3*4 + align - 1) &^ (align - 1)
	return int(*(*int32)(unsafe.Add(unsafe.Pointer(info), offset)))
}

// reapOne reaps a child that has ended. A stranger is an orphan, or a task whose
// forking thread has not yet entered it into the books, or the attempt to start
// a program that could not be started, which that thread may reap itself. It
// returns the task that is to be forked now, if there is one.
func (h *holder) reapOne(pid int) (next *task) {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.pids[pid]
	if t != nil {
		t.slot.tracker.Ended(pid)
	}
	e := exit{births: h.births}
	_, err := syscall.Wait4(pid, &e.status, 0, &e.usage)
	if err != nil {
		return nil
	}
	e.at = time.Now()
	if t != nil {
		return h.ended(t, e)
	}
	if h.forking > 0 {
		h.early[pid] = e
	}
	for _, s := range h.slots {
		signalOne(s.orphan)
	}
	return nil
}

// signalOne wakes whoever waits on a channel of size one.
func signalOne(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
