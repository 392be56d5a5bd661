package agent

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
)

// diskWatch holds the node to its share of the disk. Filesystems of other
// people's machines have no quota to rely on, so it measures while commands
// run. A single file is bounded by a resource limit at once; many files are
// found at the next measuring. The command that uses most is ended.
//
// To measure is to look at every file, so it is done at the beginning, when the
// free space of the whole filesystem has sunk so far that the share may be used
// up, and now and then, in case somebody else made room meanwhile. It takes at
// most a twentieth of one core, and without need a two-hundredth.
type diskWatch struct {
	tree  *tree
	limit int64
	agent *Agent

	mu      sync.Mutex // guards running
	running map[*watched]struct{}
}

// watched is a command that may use the disk.
type watched struct {
	place string
	end   context.CancelCauseFunc
}

const (
	lookEvery    = time.Second
	measureEvery = 30 * time.Second
	measureShare = 20
	routineShare = 200
)

func newDiskWatch(t *tree, limit int64, a *Agent) *diskWatch {
	return &diskWatch{tree: t, limit: limit, agent: a, running: map[*watched]struct{}{}}
}

// watch makes the command at a place one that may be ended, until the function
// that it returns is called.
func (w *diskWatch) watch(place string, end context.CancelCauseFunc) func() {
	c := &watched{place, end}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.running[c] = struct{}{}
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.running, c)
	}
}

// run looks until the agent stops.
func (w *diskWatch) run() {
	var measured time.Time // the last time
	var cost time.Duration // of it
	var free, room int64   // then, on the filesystem and of the share
	for wait := time.Duration(0); pause(w.agent.working, wait); {
		now := w.tree.free()
		wait = lookEvery
		routine := max(measureEvery, routineShare*cost)
		if !measured.IsZero() && (!w.busy() || free-now < room/2 && time.Since(measured) < routine) {
			continue
		}
		measured = time.Now()
		free, room = now, w.limit-w.measure()
		cost = time.Since(measured)
		wait = max(lookEvery, measureShare*cost)
	}
}

func (w *diskWatch) busy() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.running) > 0
}

// measure is how much is used. If that is more than the share, it ends the
// command that uses most.
func (w *diskWatch) measure() int64 {
	used := w.tree.usage(".")
	if used <= w.limit {
		return used
	}
	w.mu.Lock()
	candidates := make([]*watched, 0, len(w.running))
	for c := range w.running {
		candidates = append(candidates, c)
	}
	w.mu.Unlock()
	var largest *watched
	var most int64 = -1
	for _, c := range candidates {
		if n := w.tree.usage(c.place); n > most {
			largest, most = c, n
		}
	}
	if largest != nil {
		w.agent.Log.Warn("command ended because the node's disk share is full", "place", largest.place, "used", used, "limit", w.limit)
		largest.end(tooLarge(used, w.limit))
	}
	return used
}

// usage is what the files below a place take on disk, in bytes. Files that go
// while it looks do not count.
func (t *tree) usage(place string) int64 {
	total, err := usage(t.root, place)
	if err != nil { // the place itself is gone
		return 0
	}
	return total
}

// leap is how many folders in each other are reached by their path before the
// walk goes on from an open one. Otherwise its cost would grow with the square
// of their depth, and a task could make the node look for hours.
const leap = 64

func usage(root *os.Root, place string) (total int64, err error) {
	base := strings.Count(place, "/")
	err = fs.WalkDir(root.FS(), place, func(name string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return fs.SkipDir
		}
		if entry.IsDir() && strings.Count(name, "/")-base >= leap {
			total += usageFrom(root, name)
			return fs.SkipDir
		}
		if info, err := entry.Info(); err == nil {
			if stat, ok := info.Sys().(*syscall.Stat_t); ok {
				total += stat.Blocks * 512
			}
		}
		return nil
	})
	return total, err
}

// usageFrom is usage of a folder that it opens, 0 if it cannot.
func usageFrom(root *os.Root, folder string) int64 {
	below, err := root.OpenRoot(folder)
	if err != nil {
		return 0
	}
	defer below.Close()
	total, _ := usage(below, ".") // what it has counted counts
	return total
}

// roomToStart is less than any command needs, if only for what it prints.
const roomToStart = 64 << 10

// full tells whether the filesystem has no room for a command, whoever took it.
// One that does not tell is not full.
func (t *tree) full() bool {
	var stat syscall.Statfs_t
	if err := syscall.Statfs(t.path, &stat); err != nil || stat.Blocks == 0 {
		return false
	}
	return int64(stat.Bavail)*int64(stat.Bsize) < roomToStart //nolint:unconvert // not an int64 on all systems
}

// free is the space left on the filesystem, 0 if it does not tell.
func (t *tree) free() int64 {
	var stat syscall.Statfs_t
	if err := syscall.Statfs(t.path, &stat); err != nil {
		return 0
	}
	return int64(stat.Bfree) * int64(stat.Bsize) //nolint:unconvert // not an int64 on all systems
}
