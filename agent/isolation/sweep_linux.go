package isolation

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"golang.org/x/sys/unix"
)

// A keeper that dies leaves groups behind and perhaps processes that are no
// child of a main process. The next keeper of the node reads in the record
// which groups there were, empties and removes them before it does anything
// else.

// Record is the file in the node's private folder that lists its groups.
type Record struct {
	path string
	Dirs []string `json:"dirs"`
}

// ReadRecord reads the record in the node's private folder, an empty one if there
// is none.
func ReadRecord(dir string) (*Record, error) {
	r := &Record{path: filepath.Join(dir, "groups.json")}
	text, err := os.ReadFile(r.path)
	if errors.Is(err, os.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return nil, err
	}
	// A record torn by a crash of the machine is empty or cut; the machine's
	// groups died with it.
	if err := json.Unmarshal(text, r); err != nil {
		r.Dirs = nil
	}
	return r, nil
}

// Add notes more folders and writes the record by renaming, so that it is
// whole whenever this process is killed.
func (r *Record) Add(dirs []string) error {
	known := map[string]bool{}
	for _, dir := range r.Dirs {
		known[dir] = true
	}
	changed := false
	for _, dir := range dirs {
		if !known[dir] {
			r.Dirs, changed = append(r.Dirs, dir), true
		}
	}
	if !changed {
		return nil
	}
	return r.save()
}

func (r *Record) save() error {
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if err := os.WriteFile(r.path+".new", text, 0o600); err != nil {
		return err
	}
	return os.Rename(r.path+".new", r.path)
}

// Delete removes the file, once there are no groups any more.
func (r *Record) Delete() error {
	if err := os.Remove(r.path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// Sweep kills whatever an earlier keeper of the node left running and waits
// until it is gone, then removes the groups.
func (r *Record) Sweep(ctx context.Context, mark uint64) error {
	for _, dir := range r.Dirs {
		// The record is in a private folder, yet what is removed should carry
		// our name whatever is in it.
		if !strings.HasPrefix(filepath.Base(dir), "batchyard-") {
			continue
		}
		if err := sweepGroup(ctx, dir); err != nil {
			return fmt.Errorf("clear group %s: %w", dir, err)
		}
	}
	if err := sweepMarked(ctx, mark); err != nil {
		return err
	}
	// Empty groups do no harm: those that cannot be removed are used again, or
	// stay in the record.
	r.Dirs = slices.DeleteFunc(r.Dirs, func(dir string) bool { return removeGroups(dir) == nil })
	return nil
}

// sweepGroup kills the processes of a group and of the groups below it. It
// works on any hierarchy: the processes of a task are in its groups of all.
func sweepGroup(ctx context.Context, dir string) error {
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	_ = writeGroup(dir, "cgroup.kill", "1")
	list := func() ([]int, error) { return groupPIDsBelow(dir) }
	return killUntilGone(ctx, list, func(pid int) { _ = unix.Kill(pid, unix.SIGKILL) })
}

func groupPIDsBelow(dir string) ([]int, error) {
	var all []int
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || !e.IsDir() {
			return err
		}
		// A group left frozen would not take the signal.
		_ = writeGroup(path, "freezer.state", "THAWED")
		pids, err := groupPIDs(path)
		all = append(all, pids...)
		return err
	})
	return all, err
}

// sweepMarked kills the processes that carry the node's mark. It also serves
// nodes with control groups, in case an earlier keeper had none.
func sweepMarked(ctx context.Context, mark uint64) error {
	list := func() ([]int, error) {
		pids, err := allPIDs()
		if err != nil {
			return nil, err
		}
		var marked []int
		for _, pid := range pids {
			if markOf(pid)>>SlotBits == mark>>SlotBits && pid != os.Getpid() && !isZombie(pid) {
				marked = append(marked, pid)
			}
		}
		return marked, nil
	}
	return killUntilGone(ctx, list, killWithGroup)
}

// killUntilGone kills what list finds and waits for each to end, until list
// finds nothing more.
func killUntilGone(ctx context.Context, list func() ([]int, error), kill func(pid int)) error {
	for {
		pids, err := list()
		if err != nil {
			return err
		}
		var ends []int
		for _, pid := range pids {
			// The descriptor names the process for good, so that the wait below
			// cannot be for a stranger with the same number.
			fd, err := unix.PidfdOpen(pid, 0)
			kill(pid)
			if err == nil {
				ends = append(ends, fd)
			}
		}
		running := 0
		for _, fd := range ends {
			if !waitPidfd(ctx, fd) {
				running++
			}
			unix.Close(fd)
		}
		switch {
		case len(pids) == 0 || len(ends) == 0:
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("%d processes of an earlier keeper do not end: %w", running, ctx.Err())
		}
	}
}

// waitPidfd waits for a process to end, until ctx ends.
func waitPidfd(ctx context.Context, fd int) bool {
	for ctx.Err() == nil {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 200)
		if n > 0 {
			return true
		}
		if err != nil && !errors.Is(err, unix.EINTR) {
			return false
		}
	}
	return false
}
