package keeper

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/batchyard/batchyard/agent/run"
)

// leaseTimer fires when a moment of the boot clock has passed, also if the
// machine slept over it.
type leaseTimer struct{ file *os.File }

func newLeaseTimer() (*leaseTimer, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_BOOTTIME, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("make lease timer: %w", err)
	}
	return &leaseTimer{os.NewFile(uintptr(fd), "lease timer")}, nil
}

// set makes the timer fire at a moment, instead of any set before.
func (l *leaseTimer) set(at int64) error {
	conn, err := l.file.SyscallConn()
	if err != nil {
		return err
	}
	spec := &unix.ItimerSpec{Value: unix.NsecToTimespec(max(at, 1))}
	var serr error
	err = conn.Control(func(fd uintptr) {
		serr = unix.TimerfdSettime(int(fd), unix.TFD_TIMER_ABSTIME, spec, nil)
	})
	return errors.Join(err, serr)
}

// run calls fire each time the timer fires, until close.
func (l *leaseTimer) run(fire func()) {
	var expirations [8]byte
	for {
		if _, err := l.file.Read(expirations[:]); err != nil {
			return
		}
		fire()
	}
}

func (l *leaseTimer) close() { l.file.Close() }

// setLease moves the end of the agent's lease.
func (h *holder) setLease(until int64, timer *leaseTimer) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lease = until
	return timer.set(until)
}

// expire kills all tasks if the lease has run out.
func (h *holder) expire() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if run.BootTime() < h.lease || h.alive == 0 {
		return
	}
	h.log.Warn("lease has run out, killing all tasks", "tasks", h.alive)
	h.killAll(run.LeaseExpired)
}

// leaseLeft is how long the lease still lasts.
func (h *holder) leaseLeft() time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	return max(0, time.Duration(h.lease-run.BootTime()))
}
