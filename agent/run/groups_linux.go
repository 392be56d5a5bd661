package run

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// A tracker finds and ends every process of one slot. There is one for the
// second version of control groups, one for the freezer of the first, and one
// for hosts where neither may be written.
type tracker interface {
	// bornInto is the descriptor of the group into which a child is cloned, or
	// -1 if a child is where its forking thread is.
	bornInto() int
	// enter and leave surround a fork, on the forking thread.
	enter() error
	leave() error
	// ended is called once the slot's main process has ended but is not yet
	// reaped, so that main is still its number and nobody else's. Whatever is
	// cheap and needs that number is done here.
	ended(main int)
	// empty reports whether no process of the slot is left. Main has been
	// reaped.
	empty() bool
	// kill sends SIGKILL to every process of the slot. Main is the number of
	// the main process, 0 once it has been reaped.
	kill(main int) error
	// wait blocks until the slot may be empty: something happened in it, or an
	// orphan was reaped, or the timeout has passed.
	wait(orphan <-chan struct{}, timeout time.Duration)
	close()
}

// A limiter holds the processes of one slot to their limits.
type limiter interface {
	// enter makes children of the calling thread be born under the limits,
	// where that is not a matter of bornInto. Again says that the thread has
	// been in no other slot since it was here last.
	enter(again bool) error
	// leave takes the thread out where it would count as one of the task's.
	leave() error
	// begin applies limits for the next task and forgets the last one's usage.
	begin(Limits) error
	// usage tells what the task used.
	usage() usage
	close()
}

// usage is what a limiter knows of a task; 0 is unknown.
type usage struct {
	oomKills, limit, peak int64
}

// groups is what a keeper may use of this host's control groups. The folders
// are the node's own; each slot has one below each.
type groups struct {
	mode string // "v2", "hybrid", "v1", "none"
	// unified is the folder in the second version's tree, or "".
	unified string
	// Folders in the first version's trees, or "".
	memory, pids, cpu, freezer string
	// unifiedLimits are the controllers that slots have in the unified tree,
	// and unifiedCPU whether the node has the one for processors there.
	unifiedLimits map[string]bool
	unifiedCPU    bool
	// mark recognises processes where nothing else does.
	mark    uint64
	missing []string
}

// nodeName is the name of the node's folder in each tree: short, unique to the
// node's private folder, the same for every keeper of the node.
func nodeName(dir string) string {
	sum := sha256.Sum256([]byte(dir))
	return "batchyard-" + hex.EncodeToString(sum[:6])
}

// findGroups makes the node's folders in whatever trees this process may write
// to. It never fails: what is not there goes into missing.
func findGroups(config *keeperConfig, record func([]string) error) *groups {
	g := &groups{mode: "none", unifiedLimits: map[string]bool{}, mark: nodeMark(config.Dir)}
	mounts, err := readMounts()
	switch {
	case err != nil:
		g.miss("control groups are not readable (%v)", err)
		mounts = parseMounts("", "")
	case config.Cgroups == CgroupsNone:
		mounts = parseMounts("", "")
	case config.Cgroups == CgroupsV1:
		mounts.unified = nil
	}
	name, parent := nodeName(config.Dir), config.CgroupParent
	if mounts.unified != nil {
		g.findUnified(mounts, parent, name, record)
	}
	g.memory = g.findV1(mounts, "memory", parent, name, record)
	g.pids = g.findV1(mounts, "pids", parent, name, record)
	g.cpu = g.findV1(mounts, "cpu", parent, name, record)
	if g.unified == "" {
		g.freezer = g.findV1(mounts, "freezer", parent, name, record)
	}
	v1 := g.memory != "" || g.pids != "" || g.cpu != ""
	switch {
	case g.unified != "" && v1:
		g.mode = "hybrid"
	case g.unified != "":
		g.mode = "v2"
	case g.freezer != "":
		g.mode = "v1"
	}
	g.explain()
	return g
}

func (g *groups) miss(format string, args ...any) {
	g.missing = append(g.missing, fmt.Sprintf(format, args...))
}

// explain adds what an operator should know to missing.
func (g *groups) explain() {
	why := "control groups are not writable or not used"
	if g.mode != "none" {
		why = "the control group tree does not offer it"
	}
	if !g.limitsMemory() {
		g.miss("%s: memory limits are not enforced", why)
	}
	if !g.limitsCPU() {
		g.miss("%s: processor limits are not enforced", why)
	}
	if !g.limitsProcesses() {
		g.miss("%s: the number of a task's processes is not limited", why)
	}
	if g.mode == "none" {
		g.miss("without control groups the processes of a task are found by their session and a resource limit that they inherit, " +
			"so a task that sets out to hide a process can")
	}
}

func (g *groups) limitsMemory() bool    { return g.memory != "" || g.unifiedLimits["memory"] }
func (g *groups) limitsProcesses() bool { return g.pids != "" || g.unifiedLimits["pids"] }
func (g *groups) limitsCPU() bool       { return g.cpu != "" || g.unifiedCPU }

// findV1 makes the node's folder in the first version's tree of one controller,
// below the group that this process is in.
func (g *groups) findV1(m *mounts, controller, parent, name string, record func([]string) error) string {
	tree := m.v1[controller]
	if tree == nil {
		return ""
	}
	dir := filepath.Join(tree.own(parent), name)
	if err := makeGroup(dir, record); err != nil {
		return ""
	}
	if controller == "memory" {
		// Old kernels do not hand limits down unless told; new ones refuse to
		// be told otherwise.
		_ = writeGroup(dir, "memory.use_hierarchy", "1")
	}
	return dir
}

// findUnified makes the node's folder in the second version's tree. Where
// controllers live in that tree, a group may hold processes or hand controllers
// down, not both, so the folder cannot simply lie below the group that this
// process is in. The candidates are, in this order: what the operator named;
// the parent of our own group, if a service manager put us in a group of our
// own below the one it delegated; our own group, once we and our relatives have
// moved to a group below it, which is done only if nobody else is in it; the
// root of the tree.
func (g *groups) findUnified(m *mounts, parent, name string, record func([]string) error) {
	tree := m.unified
	var candidates []string
	switch own := tree.own(""); {
	case parent != "":
		candidates = []string{tree.own(parent)}
	case len(m.v1) > 0:
		candidates = []string{own}
	default:
		if own != tree.mount && ownedOrRoot(filepath.Dir(own)) && groupIsEmpty(filepath.Dir(own)) {
			candidates = append(candidates, filepath.Dir(own))
		}
		if vacate(own) == nil {
			candidates = append(candidates, own)
		}
		candidates = append(candidates, tree.mount, own)
	}
	for i, base := range candidates {
		handed := handDown(base, "cpu", "memory", "pids")
		// The last candidate is taken without controllers too: it still finds
		// and kills processes.
		if !handed["memory"] && i < len(candidates)-1 {
			continue
		}
		dir := filepath.Join(base, name)
		if makeGroup(dir, record) != nil {
			continue
		}
		g.unified = dir
		g.unifiedCPU = handed["cpu"]
		g.unifiedLimits = handDown(dir, "memory", "pids")
		return
	}
}

// ownedOrRoot reports whether dir is ours to manage.
func ownedOrRoot(dir string) bool {
	info, err := os.Stat(dir)
	if err != nil {
		return false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == os.Geteuid()
}

func groupIsEmpty(dir string) bool {
	pids, err := groupPIDs(dir)
	return err == nil && len(pids) == 0
}

// vacate moves the processes of dir into a group below it, if all of them are
// instances of this program.
func vacate(dir string) error {
	pids, err := groupPIDs(dir)
	if err != nil || len(pids) == 0 {
		return err
	}
	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return err
	}
	for _, pid := range pids {
		exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
		if err != nil {
			return err
		}
		if strings.TrimSuffix(exe, " (deleted)") != strings.TrimSuffix(self, " (deleted)") {
			return errors.New("group is shared with other programs")
		}
	}
	below := filepath.Join(dir, "batchyard-supervisor")
	if err := os.Mkdir(below, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	for _, pid := range pids {
		if err := writeGroup(below, "cgroup.procs", fmt.Sprint(pid)); err != nil {
			return err
		}
	}
	return nil
}

// handDown gives the groups below dir those controllers that dir has itself,
// and tells which they have afterwards.
func handDown(dir string, controllers ...string) map[string]bool {
	for _, c := range controllers {
		_ = writeGroup(dir, "cgroup.subtree_control", "+"+c)
	}
	have := map[string]bool{}
	text, err := os.ReadFile(filepath.Join(dir, "cgroup.subtree_control"))
	if err != nil {
		return have
	}
	for _, c := range strings.Fields(string(text)) {
		have[c] = true
	}
	return have
}

// makeGroup makes a group's folder. The record of the node's folders is written
// first, so that a later keeper finds them whatever happens to this one.
func makeGroup(dir string, record func([]string) error) error {
	if err := record([]string{dir}); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return nil
}

// dirs are the node's folders in all trees.
func (g *groups) dirs() []string {
	var dirs []string
	for _, dir := range []string{g.unified, g.memory, g.pids, g.cpu, g.freezer} {
		if dir != "" {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

// slot makes the groups of one slot, or takes up those that are there.
func (g *groups) slot(n int) (tracker, limiter, error) {
	t, err := g.tracker(n)
	if err != nil {
		return nil, nil, fmt.Errorf("make groups of slot %d: %w", n, err)
	}
	l, err := g.limiter(n)
	if err != nil {
		t.close()
		return nil, nil, fmt.Errorf("make groups of slot %d: %w", n, err)
	}
	return t, l, nil
}

func slotName(n int) string { return fmt.Sprintf("slot%d", n) }

func (g *groups) tracker(n int) (tracker, error) {
	switch {
	case g.unified != "":
		return newUnifiedTracker(filepath.Join(g.unified, slotName(n)))
	case g.freezer != "":
		return newFreezerTracker(g.freezer, slotName(n))
	default:
		return newSessionTracker(g.mark | uint64(n)), nil
	}
}

func (g *groups) limiter(n int) (limiter, error) {
	switch {
	case g.memory != "" || g.pids != "" || g.cpu != "":
		return newV1Limiter(g, slotName(n))
	case g.unified != "":
		return newUnifiedLimiter(filepath.Join(g.unified, slotName(n)), g.unifiedLimits)
	default:
		return noLimiter{}, nil
	}
}

// enter takes the calling thread into those of the node's groups that slots do
// not divide.
func (g *groups) enter() error {
	if g.cpu == "" {
		return nil
	}
	if err := writeGroup(g.cpu, "tasks", "0"); err != nil {
		return fmt.Errorf("enter %s: %w", g.cpu, err)
	}
	return nil
}

// evict takes threads of this process out of the node's folders, which cannot
// be removed while somebody is in them.
func (g *groups) evict(threads []int) {
	for _, dir := range []string{g.memory, g.pids, g.cpu, g.freezer} {
		if dir == "" {
			continue
		}
		for _, tid := range threads {
			_ = writeGroup(filepath.Dir(dir), "tasks", fmt.Sprint(tid))
		}
	}
}

// limitNode applies the limits of the node as a whole.
func (g *groups) limitNode(n NodeLimits) error {
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
	if cores <= 0 || cores >= float64(onlineCores()) {
		return none
	}
	return max(1000, int64(cores*cpuPeriod))
}
