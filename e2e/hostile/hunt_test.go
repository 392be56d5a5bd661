package hostile_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/client"
)

// TestHunt hides treasures wherever a machine has a place for them: outside of all nodes, on a node
// of another account, on one of another server, and by a task that was in the same slot before. Then
// tasks look for them.
func TestHunt(t *testing.T) {
	t.Parallel()
	kinds := map[string][]*syscall.SysProcAttr{"as this user": {nil, nil}}
	if os.Geteuid() == 0 {
		user := func(id uint32) *syscall.SysProcAttr {
			return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: id, Gid: id}}
		}
		kinds = map[string][]*syscall.SysProcAttr{
			"servers of root":  {nil, nil},
			"servers of users": {user(65534), user(65533)},
		}
	}
	for name, users := range kinds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			hunt(t, users[0], users[1])
		})
	}
}

func hunt(t *testing.T, ours, theirs *syscall.SysProcAttr) {
	s := newSecluded(t, ours)
	other := newSecluded(t, theirs)
	program := taskProgram(t)
	s.addNode(t, "hunt", map[string]any{"taskSlotsPerNode": 1})
	if text := s.perform(t, "hunt", shell("where", "echo $PPID")); text != "1\n" {
		t.Skipf("SKIPPED: this host allows no namespaces; the keeper is process %s", text)
	}
	treasures := []string{hoardHere(t)}
	for _, victim := range []*server{s.rival(t), other} {
		node := victim.addNode(t, "victim", nil)
		victim.addTask(t, "victim", role("hoard", program, "hoard stay", "TREASURE="+treasure+"variable"))
		victim.awaitStdout(t, "victim", "hoard", "hidden")
		treasures = append(treasures, filepath.Join(victim.nodeFolder(node), "root"), victim.nodeFolder(node))
	}
	treasures = append(treasures, s.folder, s.data, other.folder, other.data, filepath.Join(s.data, "nodes"), filepath.Join(other.data, "nodes"))
	look, alike := "WHERE="+strings.Join(treasures, " "), "ONE_USER="
	if ours != nil || os.Geteuid() != 0 {
		alike += "yes"
	}
	t.Run("the hunter finds what is hidden where it looks", func(t *testing.T) {
		own := shell("own", `umask 0; echo `+treasure+`x >/tmp/own; `+roleVariable+`=hunt `+program+`; rm /tmp/own; true`)
		if text := s.perform(t, "hunt", own); !strings.Contains(text, "/tmp/own") {
			t.Errorf("it found\n%s", text)
		}
	})
	for _, scope := range []string{"pool", "task"} {
		t.Run("a user of the "+scope+" finds nothing", func(t *testing.T) {
			s.perform(t, "hunt", as(role("hoard-"+scope, program, "hoard and go", "TREASURE="+treasure+"variable"), "task", "nonadmin"))
			if text := s.perform(t, "hunt", as(role("hunt-"+scope, program, "hunt", look, alike), scope, "nonadmin")); text != "" {
				t.Errorf("it found\n%s", text)
			}
		})
	}
}

// newSecluded starts a server whose nodes see nothing of /var/tmp but the programs of tests, with its
// data outside of all folders for temporary files.
func newSecluded(t *testing.T, user *syscall.SysProcAttr) *server {
	t.Helper()
	return newServerIn(t, secludedFolder(t), programs(t), "", user)
}

func secludedFolder(t *testing.T) string {
	t.Helper()
	folder, err := os.MkdirTemp("/srv", "batchyard-hostile-")
	if err != nil {
		return openFolder(t) // not root, or a machine without
	}
	if err := os.Chmod(folder, 0o711); err != nil {
		t.Fatal(err)
	}
	return folder
}

// rival is another account of the same server.
func (s *server) rival(t *testing.T) *server {
	t.Helper()
	r := &server{
		Client: &client.Client{Endpoint: s.Endpoint, Account: rivalAccount, Key: s.Key, HTTP: s.HTTP}, folder: s.folder, data: s.data,
	}
	t.Cleanup(func() {
		for _, pool := range r.pools {
			if err := r.DeletePool(context.WithoutCancel(t.Context()), pool); err != nil && batch.CodeOf(err) != batch.CodePoolNotFound {
				t.Error(err)
			}
		}
	})
	return r
}

// treasure begins every treasure. It is not in the program as it is looked for.
var treasure = strings.Join([]string{"trea", "sure-"}, "")

// hoardHere hides treasures on the machine itself and returns a folder of them.
func hoardHere(t *testing.T) string {
	t.Helper()
	folder := openFolder(t)
	t.Cleanup(func() { os.RemoveAll(folder) })
	for _, dir := range []string{"/tmp", "/var/tmp", "/dev/shm", folder} {
		name := filepath.Join(dir, treasure+filepath.Base(folder))
		if err := os.WriteFile(name, []byte(treasure+"file"), 0o644); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.Remove(name) })
		listener, err := net.Listen("unix", name+".sock")
		if err == nil {
			err = os.Chmod(name+".sock", 0o777)
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { listener.Close() })
	}
	id, err := share(treasure + "memory")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _, _ = syscall.Syscall(syscall.SYS_SHMCTL, id, 0, 0) })
	sleeper := exec.CommandContext(t.Context(), "sh", "-c", "sleep 600; : "+treasure+"command")
	sleeper.Env = []string{"PATH=/usr/bin:/bin", "TREASURE=" + treasure + "variable"}
	if err := sleeper.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sleeper.Process.Kill(); _ = sleeper.Wait() })
	return folder
}

// share makes a segment of shared memory that everybody may read, with a text in it.
func share(text string) (uintptr, error) {
	const private, create = 0, 0o1000
	id, _, errno := syscall.Syscall(syscall.SYS_SHMGET, private, 4096, create|0o666)
	if errno != 0 {
		return 0, errno
	}
	at, _, errno := syscall.Syscall(syscall.SYS_SHMAT, id, 0, 0)
	if errno != 0 {
		return id, errno
	}
	copy(unsafe.Slice((*byte)(pointer(at)), 4096), text)
	return id, nil
}

// pointer is an address that the kernel has given.
func pointer(at uintptr) unsafe.Pointer { return *(*unsafe.Pointer)(unsafe.Pointer(&at)) }

// hoard hides treasures as a task, and stays if it is told to.
func hoard(how string) {
	syscall.Umask(0)
	node := os.Getenv("AZ_BATCH_NODE_ROOT_DIR")
	dirs := []string{"/tmp", "/var/tmp", "/dev/shm", "."}
	if how == "stay" {
		dirs = append(dirs, filepath.Join(node, "shared")) // which tasks of one node share
	}
	for _, dir := range dirs {
		do(os.WriteFile(filepath.Join(dir, treasure+"file"), []byte(treasure+"file"), 0o666))
		do(os.WriteFile(filepath.Join(dir, treasure+"closed"), []byte(treasure+"file"), 0o600))
		if !strings.HasPrefix(dir, "/dev") && len(dir) < 60 {
			_, err := net.Listen("unix", filepath.Join(dir, treasure+"sock"))
			do(err)
		}
	}
	_, err := share(treasure + "memory")
	do(err)
	if _, err := os.Stat("/dev/mqueue"); err == nil {
		_ = os.WriteFile("/dev/mqueue/"+treasure+"queue", nil, 0o666)
	}
	fmt.Println("hidden")
	if how == "stay" {
		do(exec.Command("/bin/sh", "-c", "sleep 600; : "+treasure+"command").Run())
	}
}

// search says where it finds treasures, and what it can reach that has their name.
func search(where string) {
	for _, dir := range append([]string{"/tmp", "/var/tmp", "/dev/shm", "/dev/mqueue"}, strings.Fields(where)...) {
		searchFolder(dir)
	}
	for _, file := range []string{"cmdline", "environ", "comm"} {
		names, _ := filepath.Glob("/proc/[0-9]*/" + file)
		for _, name := range names {
			if text, err := os.ReadFile(name); err == nil && bytes.Contains(text, []byte(treasure)) {
				fmt.Println("process", name)
			}
		}
	}
	searchMemory()
}

func searchFolder(dir string) {
	_ = filepath.WalkDir(dir, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // it cannot go there
		}
		// Tasks of one node, and so of one account, that have no users of their own are told apart by
		// nothing (docs/nodes.md). What is outside of the node is looked through all the same.
		if name == os.Getenv("AZ_BATCH_NODE_ROOT_DIR") && os.Getenv("ONE_USER") != "" {
			return fs.SkipDir
		}
		if strings.Contains(filepath.Base(name), treasure) {
			fmt.Println("name", name)
		}
		switch {
		case entry.Type()&fs.ModeSocket != 0:
			if conn, err := net.DialTimeout("unix", name, time.Second); err == nil {
				fmt.Println("socket", name)
				conn.Close()
			}
		case entry.Type().IsRegular():
			if file, err := os.Open(name); err == nil {
				text, _ := io.ReadAll(io.LimitReader(file, 1<<20))
				file.Close()
				if bytes.Contains(text, []byte(treasure)) {
					fmt.Println("file", name)
				}
			}
		}
		return nil
	})
}

// searchMemory attaches every segment of shared memory that there is.
func searchMemory() {
	text, _ := os.ReadFile("/proc/sysvipc/shm")
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		id, err := strconv.Atoi(fields[1])
		if err != nil {
			continue // the headline
		}
		const readOnly = 0o10000
		at, _, errno := syscall.Syscall(syscall.SYS_SHMAT, uintptr(id), 0, readOnly)
		if errno == 0 && bytes.Contains(unsafe.Slice((*byte)(pointer(at)), 64), []byte(treasure)) {
			fmt.Println("shared memory", id)
		}
	}
}
