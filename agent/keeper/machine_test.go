//go:build linux

package keeper_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/batchyard/batchyard/agent/run"
)

// onMachine gives a node a machine of its own. Its tasks work in its root
// directory; the folder around that is hidden from them.
func onMachine(o *run.Options) {
	base := filepath.Dir(o.Dir)
	o.Machine = &run.Machine{Name: "node-1", Root: filepath.Join(base, "root"), Scratch: filepath.Join(base, "scratch"), Hide: []string{base}}
	for _, dir := range []string{o.Machine.Root, o.Machine.Scratch} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			panic(err)
		}
	}
	if err := os.Chmod(o.Machine.Root, 0o777); err != nil {
		panic(err)
	}
}

// refused has the process inside fail after it was born, as on a host that
// allows no namespaces.
func refused(o *run.Options) { o.Machine.Root = filepath.Join(o.Machine.Root, "missing") }

func newMachine(t testing.TB, change ...func(*run.Options)) *node {
	t.Helper()
	n := newNode(t, append([]func(*run.Options){onMachine}, change...)...)
	n.dir = n.options.Machine.Root
	if !n.Capabilities().Machine {
		t.Skipf("SKIPPED: this host allows no namespaces: %v", n.Capabilities().Missing)
	}
	return n
}

// says runs a script, which must end well, and returns what it prints.
func (n *node) says(s run.Spec) string {
	n.t.Helper()
	n.Forget(s.ID)
	os.Remove(s.Stdout)
	if r := n.run(s); r.ExitCode != 0 || r.Signal != 0 {
		errors, _ := os.ReadFile(s.Stderr)
		n.t.Fatalf("%s: result %+v\n%s", s.Args, r, errors)
	}
	return n.output(s.ID)
}

func private(s run.Spec) run.Spec {
	s.Private = true
	return s
}

// leave makes a file outside of the node that is gone after the test.
func leave(t *testing.T, folder string) string {
	t.Helper()
	file, err := os.CreateTemp(folder, "secret")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(file.Name()) })
	if err := file.Chmod(0o644); err != nil {
		t.Fatal(err)
	}
	file.Close()
	return file.Name()
}

func TestMachine(t *testing.T) {
	t.Parallel()

	t.Run("tasks find temporary files, processes and a name of the node's own", func(t *testing.T) {
		t.Parallel()
		n := newMachine(t)
		hidden := filepath.Join(filepath.Dir(n.dir), "hidden")
		if err := os.WriteFile(hidden, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		for _, secret := range []string{leave(t, "/tmp"), leave(t, "/var/tmp"), leave(t, "/dev/shm"), hidden, n.options.Dir} {
			if got := n.says(n.shell("look", "ls -d "+secret+" || echo none")); got != "none\n" {
				t.Errorf("a task sees %s", got)
			}
		}
		script := "hostname; echo $PPID; set -- /proc/[0-9]*; echo $#; getent hosts node-1 | wc -l; " +
			"for d in /tmp /var/tmp /dev/shm; do stat -c %a $d; echo mine > $d/own; done"
		processes := 2 // the keeper and the shell
		if os.Geteuid() != 0 {
			processes = 1 // the keeper has rights that tasks have not, so they do not see it
		}
		if got, want := n.says(n.shell("own", script)), fmt.Sprintf("node-1\n1\n%d\n1\n1777\n1777\n1777\n", processes); got != want {
			t.Errorf("a task finds\n%s", got)
		}
		for _, own := range []string{"/tmp/own", "/var/tmp/own", "/dev/shm/own"} {
			if _, err := os.Lstat(own); err == nil {
				t.Errorf("what a task left as %s is on the machine", own)
			}
		}
		if got := n.says(n.shell("again", "cat /tmp/own /var/tmp/own /dev/shm/own")); got != strings.Repeat("mine\n", 3) {
			t.Errorf("the next task finds %q", got)
		}
		if text, err := os.ReadFile(filepath.Join(n.options.Machine.Scratch, "node", "tmp", "own")); err != nil || string(text) != "mine\n" {
			t.Errorf("the file is not below the node's folder: %q, %v", text, err)
		}
	})

	t.Run("nothing that is mounted in it is seen outside", func(t *testing.T) {
		t.Parallel()
		n := newMachine(t)
		n.says(private(n.shell("t", "true")))
		text, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil || strings.Contains(string(text), n.dir) {
			t.Errorf("%v\n%s", err, text)
		}
	})

	t.Run("what a folder shows stays, and what is hidden in it does not", func(t *testing.T) {
		t.Parallel()
		n := newMachine(t, func(o *run.Options) {
			o.Machine.Show = []string{filepath.Dir(o.Dir)}
			o.Machine.Hide = []string{o.Dir}
		})
		folder := filepath.Dir(n.dir)
		file := leave(t, folder)
		for _, spec := range []run.Spec{n.shell("t", "ls -A "+n.options.Dir+"; ls "+file), private(n.shell("p", "ls -A "+n.options.Dir+"; ls "+file))} {
			if got := n.says(spec); got != file+"\n" {
				t.Errorf("a task sees %q", got)
			}
		}
	})

	t.Run("a private task leaves nothing to the next", func(t *testing.T) {
		t.Parallel()
		n := newMachine(t)
		places := "/tmp /var/tmp /dev/shm"
		n.says(n.shell("node", "for d in "+places+"; do echo node > $d/of-node; done; ipcmk -M 64 >&2"))
		leaves := "for d in " + places + "; do test ! -e $d/of-node || echo sees $d; echo secret > $d/secret; mkdir $d/deep; echo x > $d/deep/x; chmod 0 $d/deep; done; " +
			"ipcmk -M 64 >&2; ipcs -m | grep -c 0x"
		if got := n.says(private(n.shell("first", leaves))); got != "1\n" {
			t.Errorf("the first: %q", got)
		}
		looks := "for d in " + places + "; do ls -A $d | grep -vE '^(run|nobody)'; done; ipcs -m | grep -c 0x"
		n.says(private(n.shell("second", "("+looks+") > seen; true")))
		if text, err := os.ReadFile(filepath.Join(n.dir, "seen")); err != nil || string(text) != "0\n" {
			t.Errorf("the second sees %q, %v", text, err)
		}
		if got := n.says(n.shell("third", "cat /tmp/of-node; ls /tmp/secret || ipcs -m | grep -c 0x")); got != "node\n1\n" {
			t.Errorf("a task of the node sees %q", got)
		}
		if left, _ := filepath.Glob(filepath.Join(n.options.Machine.Scratch, "slot*")); len(left) > 0 {
			t.Errorf("folders are left: %v", left)
		}
	})

	t.Run("what was mounted in a private task's files is not removed with them", func(t *testing.T) {
		t.Parallel()
		if os.Geteuid() != 0 {
			t.Skip("SKIPPED: only root can mount")
		}
		n := newMachine(t)
		if err := os.WriteFile(filepath.Join(n.dir, "keep"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		n.says(private(n.shell("t", "mkdir /tmp/there && mount --bind "+n.dir+" /tmp/there && ls /tmp/there/keep")))
		if _, err := os.Lstat(filepath.Join(n.dir, "keep")); err != nil {
			t.Error(err)
		}
	})

	t.Run("it can be emptied", func(t *testing.T) {
		t.Parallel()
		n := newMachine(t)
		n.says(n.shell("a", "for d in /tmp /var/tmp /dev/shm; do mkdir $d/x; echo x > $d/x/y; done; ipcmk -M 64; ipcmk -Q; ipcmk -S 2"))
		if err := n.Clear(n.ctx()); err != nil {
			t.Fatal(err)
		}
		if got := n.says(n.shell("b", "ls -d /tmp/x /var/tmp/x /dev/shm/x; ipcs | grep -c 0x; pwd")); got != "0\n"+n.dir+"\n" {
			t.Errorf("a task sees %q", got)
		}
	})

	t.Run("shared memory is half of the node's memory", func(t *testing.T) {
		t.Parallel()
		n := newMachine(t, func(o *run.Options) { o.Node.MemoryBytes = 64 << 20 })
		if got := n.says(n.shell("t", "df -k --output=size /dev/shm | tail -1")); strings.TrimSpace(got) != "32768" {
			t.Errorf("it has %s KiB", got)
		}
	})

	t.Run("an agent that comes later finds what runs", func(t *testing.T) {
		t.Parallel()
		n := newMachine(t)
		up := filepath.Join(n.dir, "up")
		if err := unix.Mkfifo(up, 0o666); err != nil {
			t.Fatal(err)
		}
		n.start(n.shell("t", "echo x > up; read line < up; exit 7"))
		if _, err := os.ReadFile(up); err != nil {
			t.Fatal(err)
		}
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
		n.open()
		if err := os.WriteFile(up, []byte("go\n"), 0); err != nil {
			t.Fatal(err)
		}
		if r := n.wait(n.Process(run.Spec{ID: "t"})); r.ExitCode != 7 {
			t.Errorf("result %+v", r)
		}
	})
}

// TestKeeperEndsWithAll kills keepers whose tasks hide as well as they can.
func TestKeeperEndsWithAll(t *testing.T) {
	t.Parallel()
	for _, groups := range []run.Cgroups{"", run.CgroupsNone} {
		t.Run(fmt.Sprintf("with control groups %q", groups), func(t *testing.T) {
			t.Parallel()
			n := newMachine(t, func(o *run.Options) { o.Cgroups = groups })
			hidden := hider(t, n)
			keeper := keeperOf(t, n)
			if err := unix.Kill(keeper.pid, unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
			hidden.mustEnd()
		})
	}
}

// hider starts a task with a process that has left its session and lifted the
// limit by which it could be known.
func hider(t *testing.T, n *node) *watched {
	t.Helper()
	up := filepath.Join(n.dir, "up")
	if err := unix.Mkfifo(up, 0o666); err != nil {
		t.Fatal(err)
	}
	script := "export HIDDEN=" + n.dir + "; prlimit --pid $$ --rttime=unlimited; exec sh -c 'echo up > up; while :; do sleep 987; done'"
	n.start(n.shell("hide", "setsid sh -c \""+script+"\" & sleep 986"))
	if text, err := os.ReadFile(up); err != nil || string(text) != "up\n" {
		t.Fatalf("%q, %v", text, err)
	}
	return watch(t, having(t, "HIDDEN="+n.dir))
}

// having is the number, as the test has it, of a process with a variable.
func having(t *testing.T, variable string) int {
	t.Helper()
	files, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, file := range files {
		text, _ := os.ReadFile(file)
		if !slices.Contains(strings.Split(string(text), "\x00"), variable) {
			continue
		}
		var pid int
		if _, err := fmt.Sscanf(file, "/proc/%d/", &pid); err != nil {
			t.Fatal(err)
		}
		return pid
	}
	t.Fatalf("no process has %s", variable)
	return 0
}

// keeperOf is the keeper's process, of which it leaves the number in its lock.
func keeperOf(t *testing.T, n *node) *watched {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(n.options.Dir, "keeper.lock"))
	var pid int
	if err == nil {
		_, err = fmt.Sscan(string(text), &pid)
	}
	if err != nil {
		t.Fatal(err)
	}
	return watch(t, pid)
}

func TestKeeperSignals(t *testing.T) {
	t.Parallel()
	places := map[string][]func(*run.Options){
		"on a machine of its own": {onMachine},
		"where it is refused one": {onMachine, refused},
		"on the machine":          nil,
	}
	for name, machine := range places {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t, machine...)
			if n.Capabilities().Machine {
				n.dir = n.options.Machine.Root
			}
			keeper := keeperOf(t, n)
			for _, signal := range []unix.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT, unix.SIGTERM} {
				if err := unix.Kill(keeper.pid, signal); err != nil {
					t.Fatal(err)
				}
				if got := n.says(n.shell("t", "kill -TERM $PPID; kill -QUIT $PPID; echo done")); got != "done\n" || keeper.ended() {
					t.Fatalf("after signal %d a task says %q, the keeper has ended: %t", signal, got, keeper.ended())
				}
			}
		})
	}
}
