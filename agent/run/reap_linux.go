package run

import (
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// reap waits for children, one after another, until the holder is closed and no
// task is left. It is the only place that does, and it sees the orphans that
// tasks leave behind as well, because the keeper is their subreaper.
func (h *holder) reap() error {
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
			h.reapOne(pid)
		}
	}
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
// a program that could not be started, which that thread may reap itself.
func (h *holder) reapOne(pid int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.pids[pid]
	if t != nil {
		t.slot.tracker.ended(pid)
	}
	e := exit{births: h.births}
	_, err := syscall.Wait4(pid, &e.status, 0, &e.usage)
	if err != nil {
		return
	}
	e.at = time.Now()
	if t != nil {
		h.ended(t, e)
		return
	}
	if h.forking > 0 {
		h.early[pid] = e
	}
	for _, s := range h.slots {
		signalOne(s.orphan)
	}
}
