package isolation

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// The files of control groups are read and written here directly. The library
// at hand, containerd/cgroups, makes and moves groups per container; what is
// needed here is a dozen small files, held open between tasks, and "the calling
// thread enters", which it does not have.

// tree is one mounted hierarchy of control groups.
type tree struct {
	mount string // where it is mounted
	root  string // which of its groups the mount shows as its root
	self  string // the group that this process is in
}

// mounts are the hierarchies of this host.
type mounts struct {
	unified *tree
	v1      map[string]*tree // by controller
}

// own is the folder of the named group, or of the group that this process is in
// if name is empty.
func (t *tree) own(name string) string {
	if name != "" {
		return filepath.Join(t.mount, name)
	}
	rel, err := filepath.Rel(t.root, t.self)
	if err != nil || rel == ".." || strings.HasPrefix(rel, "../") {
		return t.mount
	}
	return filepath.Join(t.mount, rel)
}

// readMounts finds the hierarchies that this process can see.
func readMounts() (*mounts, error) {
	info, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	self, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, err
	}
	return parseMounts(string(info), string(self)), nil
}

// parseMounts reads the text of /proc/self/mountinfo and /proc/self/cgroup.
func parseMounts(info, self string) *mounts {
	m := &mounts{v1: map[string]*tree{}}
	for line := range strings.Lines(info) {
		left, right, ok := strings.Cut(line, " - ")
		fields, kind := strings.Fields(left), strings.Fields(right)
		if !ok || len(fields) < 5 || len(kind) < 3 {
			continue
		}
		t := &tree{root: unescape(fields[3]), mount: unescape(fields[4])}
		switch kind[0] {
		case "cgroup2":
			if m.unified == nil {
				m.unified = t
			}
		case "cgroup":
			for c := range strings.SplitSeq(kind[2], ",") {
				m.v1[c] = t
			}
		}
	}
	options := m.v1
	m.v1 = map[string]*tree{}
	for line := range strings.Lines(self) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		if parts[0] == "0" && m.unified != nil {
			m.unified.self = parts[2]
		}
		// Only these of the mounts' options are controllers; a hierarchy with a
		// name has none.
		for c := range strings.SplitSeq(parts[1], ",") {
			if t := options[c]; t != nil && !strings.HasPrefix(c, "name=") {
				t.self = parts[2]
				m.v1[c] = t
			}
		}
	}
	if m.unified != nil && m.unified.self == "" {
		m.unified = nil
	}
	return m
}

// unescape undoes the octal escapes of mountinfo.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// writeGroup writes one of a group's control files.
func writeGroup(dir, file, value string) error {
	f, err := os.OpenFile(filepath.Join(dir, file), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}

// orMax is the limit as the files of both versions want it.
func orMax(n int64) string {
	if n <= 0 {
		return "max"
	}
	return strconv.FormatInt(n, 10)
}

// groupPIDs lists the processes of a group. Those that have ended but are not
// reaped are not in it.
func groupPIDs(dir string) ([]int, error) {
	f, err := os.Open(filepath.Join(dir, "cgroup.procs"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var pids []int
	for s := bufio.NewScanner(f); s.Scan(); {
		pid, err := strconv.Atoi(s.Text())
		if err != nil {
			return nil, fmt.Errorf("read group: %w", err)
		}
		// 0 is a process of another process namespace.
		if pid > 0 {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// readAt reads a small control file that is held open, from its start.
func readAt(f *os.File, buf []byte) []byte {
	n, err := f.ReadAt(buf, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil
	}
	return buf[:n]
}

// keyed finds the number behind a key in a file of "key number" lines.
func keyed(text []byte, key string) int64 {
	for line := range bytes.Lines(text) {
		k, v, ok := bytes.Cut(bytes.TrimSpace(line), []byte(" "))
		if ok && string(k) == key {
			n, _ := strconv.ParseInt(string(v), 10, 64)
			return n
		}
	}
	return 0
}

// number reads a file that is one number.
func number(text []byte) int64 {
	n, _ := strconv.ParseInt(string(bytes.TrimSpace(text)), 10, 64)
	return n
}

// removeGroups removes a group and the groups below it, which must be empty.
func removeGroups(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if e.IsDir() {
			errs = append(errs, removeGroups(filepath.Join(dir, e.Name())))
		}
	}
	errs = append(errs, unix.Rmdir(dir))
	return errors.Join(errs...)
}
