package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// diskWatch holds the node to its share of the disk. Filesystems of other
// people's machines have no quota to rely on, so it measures while commands
// run. A single file is bounded by a resource limit at once; many files are
// found at the next measuring. The command that uses most is ended. A node
// whose share is used up, or whose machine has no room or memory, is unfit
// until there is some again.
//
// To measure is to look at every file, so it is done at the beginning, when the
// free space of the whole filesystem has moved so far that the share may be used
// up, and now and then, in case somebody else made as much room meanwhile. It
// takes at most a twentieth of one core, and without need a two-hundredth.
type diskWatch struct {
	tree  *tree
	limit int64
	agent *Agent
	// freed is signalled when something was removed.
	freed chan struct{}
	// bare is what temporary files took when they had last been removed; only
	// run uses it.
	bare int64

	mu      sync.Mutex // guards all below
	running map[*watched]struct{}
	// ending is the place of the command that was ended last, until what it
	// left is settled; since when, by the clock of leases.
	ending string
	since  time.Time
}

// watched is a command that may use the disk.
type watched struct {
	place string
	end   context.CancelCauseFunc
}

const (
	lookEvery    = time.Second
	measureEvery = 5 * time.Second
	measureShare = 20
	routineShare = 200
	// endTime is how long a command that was ended may take to make room,
	// before another is ended too.
	endTime = 10 * time.Second
)

func newDiskWatch(t *tree, limit int64, a *Agent) *diskWatch {
	return &diskWatch{tree: t, limit: limit, agent: a, freed: make(chan struct{}, 1), running: map[*watched]struct{}{}}
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

// settled notes that what a command left at a place is as it will stay.
func (w *diskWatch) settled(place string) {
	w.mu.Lock()
	ended := w.ending == place
	if ended {
		w.ending = ""
	}
	w.mu.Unlock()
	if ended {
		w.removed()
	}
}

// removed notes that files were removed, so that there may be room again.
func (w *diskWatch) removed() {
	select {
	case w.freed <- struct{}{}:
	default:
	}
}

// measuring is what the last measuring told.
type measuring struct {
	at   time.Time // the zero time before the first
	cost time.Duration
	used int64
	room int64 // of the share; negative beyond it
	// free is the free space of the filesystem as it was looked at last, moved
	// how far it has gone up and down since the measuring. What somebody else
	// removes hides what a command writes, unless both are seen.
	free, moved int64
}

// see takes a look at the free space.
func (m *measuring) see(free int64) {
	m.moved, m.free = m.moved+max(free-m.free, m.free-free), free
}

// run looks until the agent stops.
func (w *diskWatch) run() {
	var last measuring
	for wait := time.Duration(0); w.rest(last, wait); {
		// What is wrong with looking is told, and does not end it.
		_ = w.agent.guard("look at the machine", func() error { w.lookAround(); return nil })
		now := w.tree.free()
		last.see(now)
		if wait = lookEvery; !w.due(last) {
			continue
		}
		begun := time.Now()
		used := last.used
		_ = w.agent.guard("measuring of the disk", func() error {
			temporary := w.agent.temporary()
			used = w.tree.usage(".") + temporary
			w.judge(used, last)
			if temporary > w.bare && w.agent.health.has(causeShare) && !w.busy() {
				w.clearTemporary(temporary)
			}
			return nil
		})
		last = measuring{at: begun, cost: time.Since(begun), used: used, room: w.limit - used, free: now}
		wait = max(lookEvery, measureShare*last.cost)
	}
}

// clearTemporary removes temporary files of a node that takes no tasks for want
// of room: nobody else can. What is left afterwards is its folders.
func (w *diskWatch) clearTemporary(before int64) {
	if err := w.agent.keeper.Clear(w.agent.working); err != nil && w.agent.working.Err() == nil {
		w.agent.Log.Error("temporary files are left", "err", err)
		return
	}
	w.bare = w.agent.temporary()
	if w.bare < before {
		w.agent.Log.Warn("temporary files of the node removed, because its share of the disk is used up", "bytes", before-w.bare)
		w.removed()
	}
}

// temporary is what the node's own temporary files take, in bytes.
func (a *Agent) temporary() int64 {
	root, err := os.OpenRoot(filepath.Join(a.State, scratchName))
	if err != nil {
		return 0
	}
	defer root.Close()
	total, _ := usage(root, ".") // what it has counted counts
	return total
}

// rest waits until the next look, and not so long if the node waits for room
// and something was removed. It tells whether the agent goes on.
func (w *diskWatch) rest(last measuring, wait time.Duration) bool {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return w.agent.working.Err() == nil
	case <-w.agent.working.Done():
		return false
	case <-w.freed:
	}
	if w.agent.health.has(causeShare) {
		wait = min(wait, measureShare*last.cost)
	}
	return pause(w.agent.working, wait)
}

// due tells whether it is time to measure.
func (w *diskWatch) due(last measuring) bool {
	switch {
	case last.at.IsZero(), w.agent.health.has(causeShare):
		return true
	case !w.busy():
		return false
	}
	return last.moved >= last.room/2 || time.Since(last.at) >= max(measureEvery, routineShare*last.cost)
}

func (w *diskWatch) busy() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.running) > 0
}

// judge does what follows from how much is used, and was before.
func (w *diskWatch) judge(used int64, last measuring) {
	switch room := w.limit - used; {
	case room < w.limit/64 && !w.agent.health.has(causeShare):
		w.agent.Log.Warn("node takes no tasks because its share of the disk is used up", "used", used, "limit", w.limit)
		w.agent.health.tell(causeShare, true, errorDiskFull, fmt.Sprintf(
			"The files of the compute node use up its share of the disk, %d bytes. It takes tasks again when some are deleted: "+
				"files, tasks, jobs, or by the end of their retention.", w.limit))
	case room >= w.limit/32:
		w.agent.health.over(causeShare)
	}
	if used > w.limit {
		w.endLargest(used, !last.at.IsZero() && last.used > w.limit && used > last.used)
	}
}

// endLargest ends the command that uses most, if that brings the node back to
// its share or, since what grows may be outside of the places of commands, if
// it is still growing. Else nobody would have anything of it.
func (w *diskWatch) endLargest(used int64, growing bool) {
	w.mu.Lock()
	waits := w.ending != "" && w.agent.clock().Sub(w.since) < endTime
	candidates := make([]*watched, 0, len(w.running))
	for c := range w.running {
		candidates = append(candidates, c)
	}
	w.mu.Unlock()
	if waits {
		return
	}
	var largest *watched
	var most int64 = -1
	for _, c := range candidates {
		if n := w.tree.usage(c.place); n > most {
			largest, most = c, n
		}
	}
	if largest == nil || used-most > w.limit && !growing {
		return
	}
	w.mu.Lock()
	w.ending, w.since = largest.place, w.agent.clock()
	w.mu.Unlock()
	w.agent.Log.Warn("command ended because the node's disk share is full", "place", largest.place, "used", used, "limit", w.limit)
	largest.end(tooLarge(used, w.limit))
}

// What the machine must have left for tasks to begin, and what for a node that
// waits to go on.
const (
	leastMemory  = 32 << 20
	enoughMemory = 2 * leastMemory
	enoughRoom   = 16 * roomToStart
)

// lookAround looks at what the machine has left, whoever took it.
func (w *diskWatch) lookAround() {
	h := w.agent.health
	w.agent.lookAtUsers()
	if w.tree.full() {
		w.noRoom()
	} else if h.has(causeDisk) && w.tree.available() >= enoughRoom {
		h.over(causeDisk)
	}
	memory := w.agent.AvailableMemory()
	switch {
	case memory < leastMemory && !h.has(causeMemory):
		w.agent.Log.Warn("node takes no tasks because its machine has no memory left", "available", memory)
		h.tell(causeMemory, true, errorOutOfMemory, "The machine of the compute node has no memory left. The node takes tasks again when there is some.")
	case memory >= enoughMemory:
		h.over(causeMemory)
	}
	w.agent.leftovers.look(w.busy())
}

// noRoom notes that the filesystem has no room.
func (w *diskWatch) noRoom() {
	if w.agent.health.has(causeDisk) {
		return
	}
	w.agent.Log.Warn("node takes no tasks because its file system is full", "folder", w.tree.path)
	w.agent.health.tell(causeDisk, true, errorDiskFull,
		"The file system of the compute node has no room left. The node takes tasks again when there is some.", detail("Folder", w.tree.path))
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
func (t *tree) full() bool { return t.available() < roomToStart }

// available is the space that commands may take of the filesystem, very much if
// it does not tell.
func (t *tree) available() int64 {
	var stat syscall.Statfs_t
	if err := syscall.Statfs(t.path, &stat); err != nil || stat.Blocks == 0 {
		return math.MaxInt64
	}
	return int64(stat.Bavail) * int64(stat.Bsize) //nolint:unconvert // not an int64 on all systems
}

// free is the space left on the filesystem, 0 if it does not tell.
func (t *tree) free() int64 {
	var stat syscall.Statfs_t
	if err := syscall.Statfs(t.path, &stat); err != nil {
		return 0
	}
	return int64(stat.Bfree) * int64(stat.Bsize) //nolint:unconvert // not an int64 on all systems
}
