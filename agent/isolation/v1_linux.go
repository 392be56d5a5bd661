package isolation

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/batchyard/batchyard/agent/run"
)

// Children are born into the first version's groups because the thread that
// forks them is there. A thread that writes "0" moves itself, alone, which costs
// microseconds; moving another process makes the kernel wait for all of its
// processors, which costs milliseconds.

// openTasks opens the file of a group through which threads enter.
func openTasks(dir string) (*os.File, error) {
	return os.OpenFile(filepath.Join(dir, "tasks"), os.O_WRONLY, 0)
}

// openSlot makes a slot's group and opens the same.
func openSlot(dir string) (*os.File, error) {
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	return openTasks(dir)
}

// join moves the calling thread into a group.
func join(tasks *os.File) error {
	_, err := tasks.WriteAt([]byte("0"), 0)
	return err
}

// freezerTracker tracks a slot by a freezer group of the first version, for
// kernels and containers without the second.
type freezerTracker struct {
	dir    string
	in, up *os.File // "tasks" of the slot's group, and of the node's
}

func newFreezerTracker(node, name string) (*freezerTracker, error) {
	t := &freezerTracker{dir: filepath.Join(node, name)}
	var err error
	if t.in, err = openSlot(t.dir); err != nil {
		return nil, err
	}
	if t.up, err = openTasks(node); err != nil {
		t.in.Close()
		return nil, err
	}
	return t, nil
}

func (t *freezerTracker) BornInto() int { return -1 }

// Enter and leave keep the forking thread out of the group while it may be
// frozen.
func (t *freezerTracker) Enter() error { return join(t.in) }
func (t *freezerTracker) Leave() error { return join(t.up) }
func (t *freezerTracker) Ended(int)    {}
func (t *freezerTracker) Empty() bool  { return groupIsEmpty(t.dir) }

// Kill freezes, kills and thaws. A frozen process of this version takes its
// signal when it thaws; one that was about to fork freezes first, and its child
// with it, so the listing comes to an end.
func (t *freezerTracker) Kill(int) error {
	if err := writeGroup(t.dir, "freezer.state", "FROZEN"); err != nil {
		return err
	}
	err := killListed(t.dir)
	return errors.Join(err, writeGroup(t.dir, "freezer.state", "THAWED"))
}

func (t *freezerTracker) Wait(orphan <-chan struct{}, timeout time.Duration) {
	waitOrphan(orphan, timeout)
}

func (t *freezerTracker) Close() {
	t.in.Close()
	t.up.Close()
}

// v1Limiter limits a slot in the first version's trees of memory and pids. Time
// of processors is a matter of the node as a whole.
type v1Limiter struct {
	memory, pids         string   // folders, "" without the controller
	inMemory, inPids, up *os.File // "tasks" of both, and of the node's pids
	oom, peak            *os.File
	now                  run.Limits
	kills                int64 // when somebody looked last
}

func newV1Limiter(g *Groups, name string) (*v1Limiter, error) {
	l := &v1Limiter{now: run.Limits{MemoryBytes: -1, Processes: -1}}
	if err := l.open(g, name); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

func (l *v1Limiter) open(g *Groups, name string) (err error) {
	if g.pids != "" {
		l.pids = filepath.Join(g.pids, name)
		if l.inPids, err = openSlot(l.pids); err != nil {
			return err
		}
		if l.up, err = openTasks(g.pids); err != nil {
			return err
		}
	}
	if g.memory == "" {
		return nil
	}
	l.memory = filepath.Join(g.memory, name)
	if l.inMemory, err = openSlot(l.memory); err != nil {
		return err
	}
	if l.oom, err = os.Open(filepath.Join(l.memory, "memory.oom_control")); err != nil {
		return err
	}
	l.kills = l.oomKills()
	l.peak, err = os.OpenFile(filepath.Join(l.memory, "memory.max_usage_in_bytes"), os.O_RDWR, 0)
	return err
}

// Enter enters both groups. What a thread is charged for memory is little, so it
// may stay in that one; in the other it would count as a process of the task.
func (l *v1Limiter) Enter(again bool) error {
	var err error
	if l.memory != "" && !again {
		err = join(l.inMemory)
	}
	if l.pids != "" {
		err = errors.Join(err, join(l.inPids))
	}
	return err
}

func (l *v1Limiter) Leave() error {
	if l.pids == "" {
		return nil
	}
	return join(l.up)
}

func (l *v1Limiter) Begin(want run.Limits) error {
	if l.memory != "" {
		if want.MemoryBytes != l.now.MemoryBytes {
			if err := setV1Memory(l.memory, want.MemoryBytes); err != nil {
				return err
			}
			l.now.MemoryBytes = want.MemoryBytes
		}
		_, _ = l.peak.WriteAt([]byte("0"), 0)
	}
	limit := want.Processes
	if limit == 1 {
		limit = 2 // one is the thread that forks, as long as it does
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

func (l *v1Limiter) Usage() Usage {
	if l.memory == "" {
		return Usage{}
	}
	before := l.kills
	l.kills = l.oomKills()
	u := Usage{OOMKills: l.kills - before, Limit: l.now.MemoryBytes}
	if u.OOMKills > 0 { // only then does anybody ask
		var buf [32]byte
		u.Peak = number(readAt(l.peak, buf[:]))
	}
	return u
}

func (l *v1Limiter) Close() {
	for _, f := range []*os.File{l.inMemory, l.inPids, l.up, l.oom, l.peak} {
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

func (noLimiter) Enter(bool) error       { return nil }
func (noLimiter) Leave() error           { return nil }
func (noLimiter) Begin(run.Limits) error { return nil }
func (noLimiter) Usage() Usage           { return Usage{} }
func (noLimiter) Close()                 {}
