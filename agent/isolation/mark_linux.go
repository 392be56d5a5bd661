package isolation

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// sessionTracker tracks a slot on hosts where no control group may be written.
//
// The keeper is a subreaper: a process whose parent has ended becomes a child
// of the keeper. So once the main process has ended, everything of the task
// that still runs hangs below children of the keeper that it did not fork,
// orphans, and each that is killed brings the next layer up. To tell whose an
// orphan is, whatever session and environment it has given itself, each task is
// born with a mark that is inherited and that no program has a use for: the
// soft limit on processor time under a real-time policy, set to a huge number
// that encodes node and slot.
type sessionTracker struct{ mark uint64 }

func newSessionTracker(mark uint64) *sessionTracker { return &sessionTracker{mark} }

// SlotBits is the part of a mark that tells the slot.
const SlotBits = 16

// NodeMark is the mark of all tasks of the node, with slot 0. It is far above
// any processor time and below "no limit".
func NodeMark(dir string) uint64 {
	sum := sha256.Sum256([]byte("mark " + dir))
	return 1<<62 | binary.LittleEndian.Uint64(sum[:])>>(2+SlotBits)<<SlotBits
}

func (t *sessionTracker) BornInto() int { return -1 }
func (t *sessionTracker) Enter() error  { return nil }
func (t *sessionTracker) Leave() error  { return nil }

// Ended kills the main process's group while its number is still taken.
func (t *sessionTracker) Ended(main int) { _ = unix.Kill(-main, unix.SIGKILL) }

func (t *sessionTracker) Empty() bool {
	pids, err := t.orphans()
	return err == nil && len(pids) == 0
}

func (t *sessionTracker) Kill(main int) error {
	if main > 0 {
		_ = unix.Kill(-main, unix.SIGKILL)
	}
	pids, err := t.orphans()
	for _, pid := range pids {
		killWithGroup(pid)
	}
	return err
}

func (t *sessionTracker) Wait(orphan <-chan struct{}, timeout time.Duration) {
	waitOrphan(orphan, timeout)
}

func (t *sessionTracker) Close() {}

// orphans lists the slot's processes among those that were handed to the
// keeper. The kernel hands them to its first thread.
func (t *sessionTracker) orphans() ([]int, error) {
	pids, err := childrenOf(os.Getpid())
	if err != nil {
		return nil, err
	}
	var mine []int
	for _, pid := range pids {
		if markOf(pid) == t.mark {
			mine = append(mine, pid)
		}
	}
	return mine, nil
}

// killWithGroup kills an orphan and the group it is in, at once and so faster
// than the group can fork. A process can only join groups of its own session,
// so that everything in the group is of the same task.
func killWithGroup(pid int) {
	if pgid, err := unix.Getpgid(pid); err == nil && pgid > 1 && pgid != unix.Getpgrp() {
		_ = unix.Kill(-pgid, unix.SIGKILL)
	}
	_ = unix.Kill(pid, unix.SIGKILL)
}

// waitOrphan waits until an orphan was reaped or the timeout has passed.
func waitOrphan(orphan <-chan struct{}, timeout time.Duration) {
	t := time.NewTimer(timeout)
	defer t.Stop()
	select {
	case <-orphan:
	case <-t.C:
	}
}

// childrenOf lists the children of a process's first thread.
func childrenOf(pid int) ([]int, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if errors.Is(err, os.ErrNotExist) {
		return childrenByScan(pid)
	}
	if err != nil {
		return nil, err
	}
	var pids []int
	for f := range strings.FieldsSeq(string(text)) {
		if child, err := strconv.Atoi(f); err == nil {
			pids = append(pids, child)
		}
	}
	return pids, nil
}

// childrenByScan does the same on kernels built without that file.
func childrenByScan(parent int) ([]int, error) {
	all, err := allPIDs()
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, pid := range all {
		if _, ppid := statOf(pid); ppid == strconv.Itoa(parent) {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// statOf reads the state and the parent of a process, both empty if it is gone.
func statOf(pid int) (state, parent string) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", ""
	}
	// The name of the program stands in parentheses and may contain any.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < 2 {
		return "", ""
	}
	return fields[0], fields[1]
}

// isZombie reports whether a process has ended and waits for its parent.
func isZombie(pid int) bool {
	state, _ := statOf(pid)
	return state == "Z" || state == "X"
}

// allPIDs lists every process that /proc shows.
func allPIDs() ([]int, error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// markOf reads the mark of a process, 0 if it has none or is gone.
func markOf(pid int) uint64 {
	var lim unix.Rlimit
	err := unix.Prlimit(pid, unix.RLIMIT_RTTIME, nil, &lim)
	if errors.Is(err, unix.EPERM) {
		lim.Cur = markByFile(pid)
	} else if err != nil {
		return 0
	}
	if lim.Cur == unix.RLIM_INFINITY {
		return 0
	}
	return lim.Cur
}

// markByFile reads the mark where the process belongs to another user and this
// one lacks the capability to ask for limits; the file is open to all.
func markByFile(pid int) uint64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pid))
	if err != nil {
		return 0
	}
	for line := range bytes.Lines(text) {
		if rest, ok := bytes.CutPrefix(line, []byte("Max realtime timeout")); ok {
			if f := bytes.Fields(rest); len(f) > 0 {
				n, _ := strconv.ParseUint(string(f[0]), 10, 64)
				return n
			}
		}
	}
	return 0
}
