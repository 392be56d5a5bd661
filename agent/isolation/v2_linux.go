package isolation

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/batchyard/batchyard/agent/run"
)

// unifiedTracker tracks a slot by a group of the second version: a child is
// cloned straight into it, the kernel kills all of it at once, and says when
// the last process has gone.
//
// The group is a leaf below the slot's own, which has the limits, so that it can
// be replaced cheaply. It must be after it was killed: since 6.14 the kernel
// counts the kills of a group, compares the count of the forking thread's group
// with that of the group that is cloned into, and kills the child at birth if
// they differ.
type unifiedTracker struct {
	dir    string
	fd     int
	events *os.File // cgroup.events
	killer *os.File // cgroup.kill, nil on kernels before 5.14
	killed atomic.Bool
}

func newUnifiedTracker(slot string) (*unifiedTracker, error) {
	if err := os.Mkdir(slot, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	t := &unifiedTracker{dir: filepath.Join(slot, "task"), fd: -1}
	return t, t.renew()
}

// renew replaces the group, which must be empty, by a new one.
func (t *unifiedTracker) renew() (err error) {
	t.Close()
	if err := os.Remove(t.dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.Mkdir(t.dir, 0o755); err != nil {
		return err
	}
	if t.fd, err = unix.Open(t.dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		return fmt.Errorf("open %s: %w", t.dir, err)
	}
	if t.events, err = os.Open(filepath.Join(t.dir, "cgroup.events")); err != nil {
		return err
	}
	if t.killer, err = os.OpenFile(filepath.Join(t.dir, "cgroup.kill"), os.O_WRONLY, 0); err != nil {
		t.killer = nil
	}
	t.killed.Store(false)
	return nil
}

func (t *unifiedTracker) BornInto() int { return t.fd }
func (t *unifiedTracker) Leave() error  { return nil }
func (t *unifiedTracker) Ended(int)     {}

func (t *unifiedTracker) Enter() error {
	if t.killed.Load() {
		return t.renew()
	}
	return nil
}

func (t *unifiedTracker) Empty() bool {
	var buf [128]byte
	return bytes.Contains(readAt(t.events, buf[:]), []byte("populated 0"))
}

func (t *unifiedTracker) Kill(int) error {
	if t.killer != nil {
		t.killed.Store(true)
		_, err := t.killer.WriteAt([]byte("1"), 0)
		return err
	}
	// Frozen processes of this version can be killed, and cannot fork.
	_ = writeGroup(t.dir, "cgroup.freeze", "1")
	err := killListed(t.dir)
	_ = writeGroup(t.dir, "cgroup.freeze", "0")
	return err
}

// Wait waits for the kernel's notice that cgroup.events has changed since it
// was last read. Orphans say nothing that this does not say better.
func (t *unifiedTracker) Wait(_ <-chan struct{}, timeout time.Duration) {
	conn, err := t.events.SyscallConn()
	if err != nil {
		return
	}
	_ = conn.Control(func(fd uintptr) {
		_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLPRI}}, int(timeout.Milliseconds()))
	})
}

func (t *unifiedTracker) Close() {
	if t.fd >= 0 {
		unix.Close(t.fd)
		t.fd = -1
	}
	for _, f := range []*os.File{t.events, t.killer} {
		if f != nil {
			f.Close()
		}
	}
	t.events, t.killer = nil, nil
}

// killListed kills each process of a group, again and again until a listing
// shows none that was not killed before. The group is frozen meanwhile, which
// ends the race with processes that fork.
func killListed(dir string) error {
	killed := map[int]bool{}
	for range 20 {
		pids, err := groupPIDs(dir)
		if err != nil {
			return err
		}
		fresh := false
		for _, pid := range pids {
			if !killed[pid] {
				killed[pid], fresh = true, true
				_ = unix.Kill(pid, unix.SIGKILL)
			}
		}
		if !fresh {
			break
		}
	}
	return nil
}

// unifiedLimiter limits a slot in the second version's tree.
type unifiedLimiter struct {
	dir    string
	has    map[string]bool
	now    run.Limits
	events *os.File // memory.events
	peak   *os.File // memory.peak, held open since resets are per descriptor
	resets bool     // whether memory.peak can be reset, since kernel 6.12
	kills  int64    // oom_kill when the task began
}

func newUnifiedLimiter(dir string, has map[string]bool) (*unifiedLimiter, error) {
	l := &unifiedLimiter{dir: dir, has: has, now: run.Limits{MemoryBytes: -1, Processes: -1}}
	if !has["memory"] {
		return l, nil
	}
	var err error
	if l.events, err = os.Open(filepath.Join(dir, "memory.events")); err != nil {
		return nil, err
	}
	// A task that is out of memory ends as a whole rather than with a hole.
	_ = writeGroup(dir, "memory.oom.group", "1")
	if l.peak, err = os.OpenFile(filepath.Join(dir, "memory.peak"), os.O_RDWR, 0); err != nil {
		l.peak = nil
	}
	return l, nil
}

func (l *unifiedLimiter) Enter(bool) error { return nil }
func (l *unifiedLimiter) Leave() error     { return nil }

func (l *unifiedLimiter) Begin(want run.Limits) error {
	if l.has["memory"] {
		if want.MemoryBytes != l.now.MemoryBytes {
			if err := setUnifiedMemory(l.dir, want.MemoryBytes); err != nil {
				return err
			}
			l.now.MemoryBytes = want.MemoryBytes
		}
		l.kills = l.oomKills()
		if l.peak != nil {
			_, err := l.peak.WriteAt([]byte("r"), 0)
			l.resets = err == nil
		}
	}
	if l.has["pids"] && want.Processes != l.now.Processes {
		if err := writeGroup(l.dir, "pids.max", orMax(want.Processes)); err != nil {
			return err
		}
		l.now.Processes = want.Processes
	}
	return nil
}

func (l *unifiedLimiter) oomKills() int64 {
	var buf [512]byte
	return keyed(readAt(l.events, buf[:]), "oom_kill")
}

func (l *unifiedLimiter) Usage() Usage {
	if !l.has["memory"] {
		return Usage{}
	}
	u := Usage{OOMKills: l.oomKills() - l.kills, Limit: l.now.MemoryBytes}
	if l.resets {
		var buf [32]byte
		u.Peak = number(readAt(l.peak, buf[:]))
	}
	return u
}

func (l *unifiedLimiter) Close() {
	if l.events != nil {
		l.events.Close()
	}
	if l.peak != nil {
		l.peak.Close()
	}
}

// setUnifiedMemory bounds memory and swap of a group together: no swap, since
// the two cannot be bounded as a sum in this version.
func setUnifiedMemory(dir string, bytes int64) error {
	if err := writeGroup(dir, "memory.max", orMax(bytes)); err != nil {
		return err
	}
	swap := "max"
	if bytes > 0 {
		swap = "0"
	}
	// The file is missing on hosts without swap accounting.
	if err := writeGroup(dir, "memory.swap.max", swap); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
