package isolation

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/batchyard/batchyard/agent/run"
)

// Find makes the node's folders in whatever trees this process may write
// to. It never fails: what is not there goes into missing.
func Find(dir string, use run.Cgroups, parent string, record func([]string) error) *Groups {
	g := &Groups{Mode: "none", unifiedLimits: map[string]bool{}, mark: NodeMark(dir)}
	mounts, err := readMounts()
	switch {
	case err != nil:
		g.miss("control groups are not readable (%v)", err)
		mounts = parseMounts("", "")
	case use == run.CgroupsNone:
		mounts = parseMounts("", "")
	case use == run.CgroupsV1:
		mounts.unified = nil
	}
	name := nodeName(dir)
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
		g.Mode = "hybrid"
	case g.unified != "":
		g.Mode = "v2"
	case g.freezer != "":
		g.Mode = "v1"
	}
	g.explain()
	return g
}

func (g *Groups) miss(format string, args ...any) {
	g.Missing = append(g.Missing, fmt.Sprintf(format, args...))
}

// findV1 makes the node's folder in the first version's tree of one controller,
// below the group that this process is in.
func (g *Groups) findV1(m *mounts, controller, parent, name string, record func([]string) error) string {
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

// findUnified makes the node's folder in the second version's tree.
func (g *Groups) findUnified(m *mounts, parent, name string, record func([]string) error) {
	candidates := unifiedParents(m, parent)
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

// supervisorName is the group below a delegated one into which the processes of
// this program move.
const supervisorName = "batchyard-supervisor"

// unifiedParents lists the groups below which the node's may be made, best
// first. Where controllers live in this tree, a group may hold processes or hand
// controllers down, not both, so it cannot simply be the one that this process
// is in. The candidates are: what the operator named; the group that a service
// manager delegated, once this program's processes have moved below it, which is
// done only if nobody else is in it; the root of the tree. The last one is our
// own, where at least processes can be found and killed.
func unifiedParents(m *mounts, parent string) []string {
	tree := m.unified
	own := tree.own("")
	above := filepath.Dir(own)
	switch {
	case parent != "":
		return []string{tree.own(parent)}
	case len(m.v1) > 0:
		return []string{own}
	case own != tree.mount && (filepath.Base(own) == supervisorName || isDelegated(above)) && groupIsEmpty(above):
		return []string{above, tree.mount, own}
	case isDelegated(own) && vacate(own) == nil:
		return []string{own, tree.mount}
	default:
		return []string{tree.mount, own}
	}
}

// isDelegated reports whether the service manager leaves what is below a group
// to others. Where there is none, nobody minds.
func isDelegated(dir string) bool {
	if _, err := os.Stat("/run/systemd/system"); errors.Is(err, os.ErrNotExist) {
		return true
	}
	for _, name := range []string{"user.delegate", "trusted.delegate"} {
		var value [8]byte
		if n, err := unix.Getxattr(dir, name, value[:]); err == nil && string(value[:n]) == "1" {
			return true
		}
	}
	return false
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
	below := filepath.Join(dir, supervisorName)
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
