package isolation

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"time"

	"github.com/batchyard/batchyard/agent/run"
)

// Tracker finds and ends every process of one slot. There is one for the
// second version of control groups, one for the freezer of the first, and one
// for hosts where neither may be written.
type Tracker interface {
	// BornInto is the descriptor of the group into which a child is cloned, or
	// -1 if a child is where its forking thread is.
	BornInto() int
	// Enter and leave surround a fork, on the forking thread.
	Enter() error
	Leave() error
	// Ended is called once the slot's main process has ended but is not yet
	// reaped, so that main is still its number and nobody else's. Whatever is
	// cheap and needs that number is done here.
	Ended(main int)
	// Empty reports whether no process of the slot is left. Main has been
	// reaped.
	Empty() bool
	// Kill sends SIGKILL to every process of the slot. Main is the number of
	// the main process, 0 once it has been reaped.
	Kill(main int) error
	// Wait blocks until the slot may be empty: something happened in it, or an
	// orphan was reaped, or the timeout has passed.
	Wait(orphan <-chan struct{}, timeout time.Duration)
	Close()
}

// Limiter holds the processes of one slot to their limits.
type Limiter interface {
	// Enter makes children of the calling thread be born under the limits,
	// where that is not a matter of bornInto. Again says that the thread has
	// been in no other slot since it was here last.
	Enter(again bool) error
	// Leave takes the thread out where it would count as one of the task's.
	Leave() error
	// Begin applies limits for the next task and forgets the last one's usage.
	Begin(run.Limits) error
	// Usage tells what the task used, once.
	Usage() Usage
	Close()
}

// Usage is what a limiter knows of a task; 0 is unknown.
type Usage struct {
	OOMKills, Limit, Peak int64
}

// Groups is what a keeper may use of this host's control groups. The folders
// are the node's own; each slot has one below each.
type Groups struct {
	// Mode is "v2", "hybrid" (limits by the first version, tracking by the
	// second), "v1" or "none".
	Mode string
	// unified is the folder in the second version's tree, or "".
	unified string
	// Folders in the first version's trees, or "".
	memory, pids, cpu, freezer string
	// unifiedLimits are the controllers that slots have in the unified tree,
	// and unifiedCPU whether the node has the one for processors there.
	unifiedLimits map[string]bool
	unifiedCPU    bool
	// mark recognises processes where nothing else does.
	mark uint64
	// Missing tells an operator in sentences what is not enforced, and why.
	Missing []string
}

// nodeName is the name of the node's folder in each tree: short, unique to the
// node's private folder, the same for every keeper of the node.
func nodeName(dir string) string {
	sum := sha256.Sum256([]byte(dir))
	return "batchyard-" + hex.EncodeToString(sum[:6])
}

// explain adds what an operator should know to missing.
func (g *Groups) explain() {
	why := "control groups are not writable or not used"
	if g.Mode != "none" {
		why = "the control group tree does not offer it"
	}
	if !g.LimitsMemory() {
		g.miss("%s: memory limits are not enforced", why)
	}
	if !g.LimitsCPU() {
		g.miss("%s: processor limits are not enforced", why)
	}
	if !g.LimitsProcesses() {
		g.miss("%s: the number of a task's processes is not limited", why)
	}
	if g.Mode == "none" {
		g.miss("without control groups the processes of a task are found by their session and a resource limit that they inherit, " +
			"so a task that sets out to hide a process can")
	}
}

// LimitsMemory tells whether the memory of tasks is limited.
func (g *Groups) LimitsMemory() bool { return g.memory != "" || g.unifiedLimits["memory"] }

// MemoryFolder is the folder of the node's group that counts memory, or "".
func (g *Groups) MemoryFolder() string {
	switch {
	case g.memory != "":
		return g.memory
	case g.unifiedLimits["memory"]:
		return g.unified
	}
	return ""
}

// LimitsProcesses tells whether the number of a task's processes is limited.
func (g *Groups) LimitsProcesses() bool { return g.pids != "" || g.unifiedLimits["pids"] }

// LimitsCPU tells whether the processor time of the node is limited.
func (g *Groups) LimitsCPU() bool { return g.cpu != "" || g.unifiedCPU }

// dirs are the node's folders in all trees.
func (g *Groups) dirs() []string {
	var dirs []string
	for _, dir := range []string{g.unified, g.memory, g.pids, g.cpu, g.freezer} {
		if dir != "" {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

// Remove removes the node's folders, in which nobody may be any more.
func (g *Groups) Remove() error {
	var errs []error
	for _, dir := range g.dirs() {
		errs = append(errs, removeGroups(dir))
	}
	return errors.Join(errs...)
}

// Slot makes the groups of one slot, or takes up those that are there.
func (g *Groups) Slot(n int) (Tracker, Limiter, error) {
	t, err := g.tracker(n)
	if err != nil {
		return nil, nil, fmt.Errorf("make groups of slot %d: %w", n, err)
	}
	l, err := g.limiter(n)
	if err != nil {
		t.Close()
		return nil, nil, fmt.Errorf("make groups of slot %d: %w", n, err)
	}
	return t, l, nil
}

func slotName(n int) string { return fmt.Sprintf("slot%d", n) }

func (g *Groups) tracker(n int) (Tracker, error) {
	switch {
	case g.unified != "":
		return newUnifiedTracker(filepath.Join(g.unified, slotName(n)))
	case g.freezer != "":
		return newFreezerTracker(g.freezer, slotName(n))
	default:
		return newSessionTracker(g.mark | uint64(n)), nil
	}
}

func (g *Groups) limiter(n int) (Limiter, error) {
	switch {
	case g.memory != "" || g.pids != "" || g.cpu != "":
		return newV1Limiter(g, slotName(n))
	case g.unified != "":
		return newUnifiedLimiter(filepath.Join(g.unified, slotName(n)), g.unifiedLimits)
	default:
		return noLimiter{}, nil
	}
}

// Enter takes the calling thread into those of the node's groups that slots do
// not divide.
func (g *Groups) Enter() error {
	if g.cpu == "" {
		return nil
	}
	if err := writeGroup(g.cpu, "tasks", "0"); err != nil {
		return fmt.Errorf("enter %s: %w", g.cpu, err)
	}
	return nil
}

// Evict takes threads of this process out of the node's folders, which cannot
// be removed while somebody is in them.
func (g *Groups) Evict(threads []int) {
	for _, dir := range []string{g.memory, g.pids, g.cpu, g.freezer} {
		if dir == "" {
			continue
		}
		for _, tid := range threads {
			_ = writeGroup(filepath.Dir(dir), "tasks", fmt.Sprint(tid))
		}
	}
}

// LimitNode applies the limits of the node as a whole.
func (g *Groups) LimitNode(n run.NodeLimits) error {
	var errs []error
	if g.memory != "" {
		errs = append(errs, setV1Memory(g.memory, n.MemoryBytes))
	}
	if g.pids != "" {
		errs = append(errs, writeGroup(g.pids, "pids.max", orMax(n.Processes)))
	}
	if g.cpu != "" {
		errs = append(errs,
			writeGroup(g.cpu, "cpu.cfs_period_us", fmt.Sprint(cpuPeriod)),
			writeGroup(g.cpu, "cpu.cfs_quota_us", fmt.Sprint(quota(n.Cores, -1))))
	}
	if g.unifiedLimits["memory"] {
		errs = append(errs, setUnifiedMemory(g.unified, n.MemoryBytes))
	}
	if g.unifiedLimits["pids"] {
		errs = append(errs, writeGroup(g.unified, "pids.max", orMax(n.Processes)))
	}
	if g.unifiedCPU {
		text := "max"
		if q := quota(n.Cores, -1); q > 0 {
			text = fmt.Sprint(q)
		}
		errs = append(errs, writeGroup(g.unified, "cpu.max", fmt.Sprintf("%s %d", text, cpuPeriod)))
	}
	return errors.Join(errs...)
}

// cpuPeriod is the length in microseconds of the window in which processor time
// is counted. It is shorter than the usual 100 ms because a forking thread waits
// for its child, and so with it when the node has used up its share.
const cpuPeriod = 20_000

// quota is the processor time a period in microseconds for so many cores, or
// none if there is no limit or the host has no more cores than that.
func quota(cores float64, none int64) int64 {
	if cores <= 0 || cores >= float64(runtime.NumCPU()) {
		return none
	}
	return max(1000, int64(cores*cpuPeriod))
}
