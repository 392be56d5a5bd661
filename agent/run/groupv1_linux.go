package run

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Children are born into the first version's groups because the thread that
// forks them is there. A thread that writes "0" moves itself, alone, which costs
// microseconds; moving another process makes the kernel wait for all of its
// processors, which costs milliseconds.

// selfEntry is an open "tasks" file of a group, through which threads enter.
type selfEntry struct{ file *os.File }

func openEntry(dir string) (selfEntry, error) {
	f, err := os.OpenFile(filepath.Join(dir, "tasks"), os.O_WRONLY, 0)
	return selfEntry{f}, err
}

func (e selfEntry) enter() error {
	_, err := e.file.WriteAt([]byte("0"), 0)
	return err
}

// freezerTracker tracks a slot by a freezer group of the first version, for
// kernels and containers without the second.
type freezerTracker struct {
	dir    string
	in, up selfEntry
}

func newFreezerTracker(node, name string) (*freezerTracker, error) {
	dir := filepath.Join(node, name)
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	in, err := openEntry(dir)
	if err != nil {
		return nil, err
	}
	up, err := openEntry(node)
	if err != nil {
		in.file.Close()
		return nil, err
	}
	return &freezerTracker{dir: dir, in: in, up: up}, nil
}

func (t *freezerTracker) bornInto() int { return -1 }

// enter and leave keep the forking thread out of the group while it may be
// frozen.
func (t *freezerTracker) enter() error { return t.in.enter() }
func (t *freezerTracker) leave() error { return t.up.enter() }
func (t *freezerTracker) ended(int)    {}
func (t *freezerTracker) empty() bool  { return groupIsEmpty(t.dir) }

// kill freezes, kills and thaws. A frozen process of this version takes its
// signal when it thaws; one that was about to fork freezes first, and its child
// with it, so the listing comes to an end.
func (t *freezerTracker) kill(int) error {
	if err := writeGroup(t.dir, "freezer.state", "FROZEN"); err != nil {
		return err
	}
	err := killListed(t.dir)
	return errors.Join(err, writeGroup(t.dir, "freezer.state", "THAWED"))
}

func (t *freezerTracker) wait(orphan <-chan struct{}, timeout time.Duration) {
	waitOrphan(orphan, timeout)
}

func (t *freezerTracker) close() {
	t.in.file.Close()
	t.up.file.Close()
}

// v1Limiter limits a slot in the first version's trees of memory and pids. Time
// of processors is a matter of the node as a whole.
type v1Limiter struct {
	memory, pids string
	entries      []selfEntry
	// threads counts the forking threads that live in the groups, and so in
	// the count of pids.
	threads   int64
	now       Limits
	oom, peak *os.File
	kills     int64
}

func newV1Limiter(g *groups, name string) (*v1Limiter, error) {
	l := &v1Limiter{now: Limits{MemoryBytes: -1, Processes: -1}}
	if err := l.open(g, name); err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

func (l *v1Limiter) open(g *groups, name string) error {
	if g.cpu != "" {
		if err := l.addEntry(g.cpu); err != nil {
			return err
		}
	}
	if g.pids != "" {
		l.pids = filepath.Join(g.pids, name)
		if err := l.addSlot(l.pids); err != nil {
			return err
		}
	}
	if g.memory == "" {
		return nil
	}
	l.memory = filepath.Join(g.memory, name)
	if err := l.addSlot(l.memory); err != nil {
		return err
	}
	var err error
	if l.oom, err = os.Open(filepath.Join(l.memory, "memory.oom_control")); err != nil {
		return err
	}
	l.peak, err = os.OpenFile(filepath.Join(l.memory, "memory.max_usage_in_bytes"), os.O_RDWR, 0)
	return err
}

func (l *v1Limiter) addSlot(dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return l.addEntry(dir)
}

func (l *v1Limiter) addEntry(dir string) error {
	e, err := openEntry(dir)
	if err != nil {
		return err
	}
	l.entries = append(l.entries, e)
	return nil
}

func (l *v1Limiter) enter() error {
	for _, e := range l.entries {
		if err := e.enter(); err != nil {
			return fmt.Errorf("enter %s: %w", e.file.Name(), err)
		}
	}
	l.threads++
	return nil
}

func (l *v1Limiter) begin(want Limits) error {
	if l.memory != "" {
		if want.MemoryBytes != l.now.MemoryBytes {
			if err := setV1Memory(l.memory, want.MemoryBytes); err != nil {
				return err
			}
			l.now.MemoryBytes = want.MemoryBytes
		}
		l.kills = l.oomKills()
		_, _ = l.peak.WriteAt([]byte("0"), 0)
	}
	limit := want.Processes
	if limit > 0 {
		limit += l.threads
	}
	if l.pids != "" && limit != l.now.Processes {
		if err := writeGroup(l.pids, "pids.max", orMax(limit)); err != nil {
			return err
		}
		l.now.Processes = limit
	}
	return nil
}

func (l *v1Limiter) oomKills() int64 {
	var buf [256]byte
	return keyed(readAt(l.oom, buf[:]), "oom_kill")
}

func (l *v1Limiter) usage() usage {
	if l.memory == "" {
		return usage{}
	}
	var buf [32]byte
	return usage{
		oomKills: l.oomKills() - l.kills,
		limit:    l.now.MemoryBytes,
		peak:     number(readAt(l.peak, buf[:])),
	}
}

func (l *v1Limiter) close() {
	for _, e := range l.entries {
		e.file.Close()
	}
	for _, f := range []*os.File{l.oom, l.peak} {
		if f != nil {
			f.Close()
		}
	}
}

// setV1Memory bounds memory, and memory and swap together. The second may never
// be below the first, so the order of writing depends on the direction.
func setV1Memory(dir string, bytes int64) error {
	text := "-1"
	if bytes > 0 {
		text = strconv.FormatInt(bytes, 10)
	}
	const memory, sum = "memory.limit_in_bytes", "memory.memsw.limit_in_bytes"
	first := writeGroup(dir, memory, text)
	if first != nil && !errors.Is(first, unix.EINVAL) {
		return first
	}
	if err := writeGroup(dir, sum, text); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if first != nil {
		return writeGroup(dir, memory, text)
	}
	return nil
}

// noLimiter is for hosts without control groups.
type noLimiter struct{}

func (noLimiter) enter() error       { return nil }
func (noLimiter) begin(Limits) error { return nil }
func (noLimiter) usage() usage       { return usage{} }
func (noLimiter) close()             {}
