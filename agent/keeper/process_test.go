//go:build linux

package keeper_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/batchyard/batchyard/agent/run"
)

// modes are the ways of tracking tasks that this host can show.
var modes = []struct {
	name    string
	cgroups run.Cgroups
}{
	{"with all control groups", ""},
	{"with control groups of the first version", run.CgroupsV1},
	{"without control groups", run.CgroupsNone},
}

// eachMode runs a test in every way of tracking tasks.
func eachMode(t *testing.T, test func(t *testing.T, n *node)) {
	t.Helper()
	for _, m := range modes {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			test(t, newNode(t, func(o *run.Options) { o.Cgroups = m.cgroups }))
		})
	}
}

func TestResult(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	tests := []struct {
		name, script string
		code, signal int
	}{
		{"success", "exit 0", 0, 0},
		{"an exit code", "exit 7", 7, 0},
		{"the largest exit code", "exit 255", 255, 0},
		{"a signal to itself", "kill -SEGV $$", -1, int(unix.SIGSEGV)},
		{"being killed by another", "kill -KILL $$", -1, int(unix.SIGKILL)},
	}
	for i, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := n.run(n.shell(fmt.Sprintf("r%d", i), test.script))
			got := []any{r.Reason, r.ExitCode, r.Signal}
			want := []any{run.Exited, test.code, test.signal}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("result (-want +got):\n%s", diff)
			}
			if r.Started.IsZero() || r.Ended.Before(r.Started) || r.MaxRSS == 0 {
				t.Errorf("times or usage are missing: %+v", r)
			}
		})
	}
}

func TestTaskSeesOnlyWhatItsSpecSays(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, n *node) {
		tests := []struct {
			name string
			args []string
			want string
		}{
			{"its environment and not the keeper's", []string{"env"}, "PATH=/usr/bin:/bin\nTASK=see0\n"},
			// Descriptor 3 is the listing's own.
			{"three descriptors", []string{"ls", "/proc/self/fd"}, "0\n1\n2\n3\n"},
			{"its working directory", []string{"pwd"}, n.dir + "\n"},
			{"a process group of its own and no terminal", []string{"sh", "-c", "read pid name state parent group session tty rest < /proc/$$/stat; echo $((group - $$)) $tty"}, "0 0\n"},
			{"no blocked signals", []string{"grep", "SigBlk", "/proc/self/status"}, "SigBlk:\t0000000000000000\n"},
			{"no core files and a usual mask", []string{"sh", "-c", "ulimit -Hc; umask"}, "0\n0022\n"},
			// Signals 32 and 33 are the C library's own; some programs that start
			// others, make among them, leave them ignored.
			{"no ignored signals", []string{"sh", "-c", "set -- $(grep SigIgn /proc/self/status); echo $((0x$2 & ~0x180000000))"}, "0\n"},
			{"an empty standard input", []string{"cat"}, ""},
			{"the usual priority", []string{"nice"}, "0\n"},
		}
		for i, test := range tests {
			t.Run(test.name, func(t *testing.T) {
				id := fmt.Sprintf("see%d", i)
				if r := n.run(n.spec(id, test.args...)); r.ExitCode != 0 {
					t.Errorf("result %+v", r)
				}
				if diff := cmp.Diff(test.want, n.output(id)); diff != "" {
					t.Errorf("output (-want +got):\n%s", diff)
				}
			})
		}
	})
}

// Without control groups it is the session that tells whose a process group is.
func TestSessionOfItsOwn(t *testing.T) {
	t.Parallel()
	n := newNode(t, func(o *run.Options) { o.Cgroups = run.CgroupsNone })
	n.run(n.shell("session", "read pid name state parent group session rest < /proc/$$/stat; echo $((session - $$))"))
	if got := n.output("session"); got != "0\n" {
		t.Errorf("the session is another's: %q", got)
	}
}

func TestOutput(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	t.Run("goes to one file each and is appended", func(t *testing.T) {
		s := n.shell("out", "echo one; echo two >&2")
		n.run(s)
		n.Forget("out")
		n.run(s)
		errors, _ := os.ReadFile(s.Stderr)
		if diff := cmp.Diff([]string{"one\none\n", "two\ntwo\n"}, []string{n.output("out"), string(errors)}); diff != "" {
			t.Errorf("outputs (-want +got):\n%s", diff)
		}
	})
	t.Run("may share a file", func(t *testing.T) {
		s := n.shell("both", "echo one; echo two >&2; echo three")
		s.Stderr = s.Stdout
		n.run(s)
		if diff := cmp.Diff("one\ntwo\nthree\n", n.output("both")); diff != "" {
			t.Errorf("output (-want +got):\n%s", diff)
		}
	})
	t.Run("may be discarded", func(t *testing.T) {
		s := n.shell("none", "echo one")
		s.Stdout, s.Stderr = "", ""
		if r := n.run(s); r.ExitCode != 0 {
			t.Errorf("result %+v", r)
		}
	})
}

func TestStartErrors(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	plain := filepath.Join(n.dir, "plain.txt")
	orphaned := filepath.Join(n.dir, "orphaned")
	private := filepath.Join(n.dir, "private")
	for path, mode := range map[string]os.FileMode{plain: 0o644, orphaned: 0o755, private: 0o700} {
		if err := os.WriteFile(path, []byte("#!/no/such/shell\n"), mode); err != nil {
			t.Fatal(err)
		}
	}
	link := filepath.Join(n.dir, "link")
	if err := os.Symlink("/etc/hostname", link); err != nil {
		t.Fatal(err)
	}
	pipe := n.fifo("pipe").path
	tests := []struct {
		name   string
		change func(*run.Spec)
		code   string
		says   string
	}{
		{"a name that is in no folder of PATH", func(s *run.Spec) { s.Args = []string{"no-such-program"} },
			run.CodeProgramNotFound, "no-such-program was not found in PATH /usr/bin:/bin"},
		{"a path that is not there", func(s *run.Spec) { s.Args = []string{"./nothing"} },
			run.CodeProgramNotFound, "./nothing was not found"},
		{"a file that is not executable", func(s *run.Spec) { s.Args = []string{plain} },
			run.CodeLaunchFailed, "is not executable"},
		{"a folder", func(s *run.Spec) { s.Args = []string{"/usr/bin/"} }, run.CodeLaunchFailed, "is a directory"},
		{"a script whose shell is missing", func(s *run.Spec) { s.Args = []string{orphaned} },
			run.CodeLaunchFailed, "the interpreter or loader"},
		{"another user's program", func(s *run.Spec) { s.Args = []string{private}; s.User = &run.User{UID: 61001, GID: 61001} },
			run.CodeLaunchFailed, "user 61001 may not run program"},
		{"a working directory that is not there", func(s *run.Spec) { s.Dir = "/no/such/folder" },
			run.CodeLaunchFailed, "working directory /no/such/folder: no such file"},
		{"output through a symbolic link", func(s *run.Spec) { s.Stdout = link }, run.CodeLaunchFailed, "symbolic link"},
		{"output into a pipe", func(s *run.Spec) { s.Stdout = pipe }, run.CodeLaunchFailed, "not an ordinary file"},
		{"output into another user's file", func(s *run.Spec) {
			s.User, s.Stdout = &run.User{UID: 61001, GID: 61001}, otherUsersFile(t, n)
		}, run.CodeLaunchFailed, "belongs to another user"},
		{"an environment that is too long", func(s *run.Spec) { s.Env = append(s.Env, "A="+strings.Repeat("x", 3<<20)) },
			run.CodeLaunchFailed, "too long"},
		{"a zero byte", func(s *run.Spec) { s.Args = []string{"/bin/echo", "a\x00b"} }, run.CodeLaunchFailed, "zero byte"},
	}
	for i, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := n.spec(fmt.Sprintf("e%d", i), "/bin/true")
			test.change(&s)
			_, err := n.Process(s).Start(n.ctx())
			var start *run.StartError
			if !errors.As(err, &start) {
				t.Fatalf("error is %v", err)
			}
			if start.Code != test.code || !strings.Contains(start.Message, test.says) {
				t.Errorf("error is %s: %s", start.Code, start.Message)
			}
			if _, err := n.Process(s).Wait(n.ctx()); !errors.Is(err, run.ErrUnknown) {
				t.Errorf("waiting for it answers %v", err)
			}
		})
	}
}

func otherUsersFile(t *testing.T, n *node) string {
	t.Helper()
	path := filepath.Join(n.dir, "others.txt")
	if err := os.WriteFile(path, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(path, 61002, 61002); err != nil {
		t.Skip("needs root")
	}
	return path
}

func TestStartIsIdempotent(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	gate := n.fifo("gate")
	s := n.shell("once", "echo ran; read x < "+gate.path)
	p := n.Process(s)
	first, err := p.Start(n.ctx())
	if err != nil {
		t.Fatal(err)
	}
	second, err := n.Process(s).Start(n.ctx())
	if err != nil || second.PID != first.PID {
		t.Errorf("second start answers %v, %v; the first %v", second, err, first)
	}
	if err := p.Kill(n.ctx(), 0); err != nil {
		t.Fatal(err)
	}
	if r := n.wait(p); r.Reason != run.Killed || r.Signal != int(unix.SIGKILL) {
		t.Errorf("result %+v", r)
	}
	if third, err := p.Start(n.ctx()); err != nil || third.PID != first.PID {
		t.Errorf("start after the end answers %v, %v", third, err)
	}
	if err := p.Kill(n.ctx(), 0); err != nil {
		t.Errorf("kill after the end: %v", err)
	}
	n.Forget("once")
	if err := p.Kill(n.ctx(), 0); !errors.Is(err, run.ErrUnknown) {
		t.Errorf("kill of a forgotten task: %v", err)
	}
}

// TestManyTasksBesideALongOne has tasks begin and end while the keeper never is without a child.
func TestManyTasksBesideALongOne(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	long := n.Process(n.spec("long", "/bin/sleep", "1000"))
	if _, err := long.Start(n.ctx()); err != nil {
		t.Fatal(err)
	}
	ctx := n.ctx()
	for i := range 600 {
		p := n.Process(n.spec(fmt.Sprint("short-", i), "/bin/true"))
		if _, err := p.Start(ctx); err != nil {
			t.Fatalf("task %d: %v", i, err)
		}
		if _, err := p.Wait(ctx); err != nil {
			t.Fatalf("task %d: %v", i, err)
		}
		n.Forget(fmt.Sprint("short-", i))
	}
}

func TestKill(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, n *node) {
		t.Run("a polite task exits by itself", func(t *testing.T) {
			ready := n.fifo("polite")
			p := n.start(n.shell("polite", "trap 'exit 5' TERM; echo $$ > "+ready.path+"; while :; do sleep 100 & wait; done"))
			ready.pid()
			if err := p.Kill(n.ctx(), time.Minute); err != nil {
				t.Fatal(err)
			}
			if r := n.wait(p); r.Reason != run.Killed || r.ExitCode != 5 || r.Signal != 0 {
				t.Errorf("result %+v", r)
			}
		})
		t.Run("a deaf task is killed after the grace period", func(t *testing.T) {
			ready := n.fifo("deaf")
			p := n.start(n.shell("deaf", "trap '' TERM; echo $$ > "+ready.path+"; while :; do sleep 100; done"))
			main := ready.pid()
			if err := p.Kill(n.ctx(), 50*time.Millisecond); err != nil {
				t.Fatal(err)
			}
			if r := n.wait(p); r.Reason != run.Killed || r.Signal != int(unix.SIGKILL) {
				t.Errorf("result %+v", r)
			}
			if !main.ended() {
				t.Error("main process lives")
			}
		})
	})
}

// Daemons of three kinds: in the background, in a session of its own, and with
// two forks, an empty environment and a deaf ear.
const daemons = `
	sh -c 'echo $$ > %[1]s; exec sleep 1000' &
	setsid sh -c 'echo $$ > %[1]s; exec sleep 1000' &
	( env -i setsid sh -c 'trap "" TERM HUP; (setsid sh -c "echo \$\$ > %[1]s; while :; do sleep 1000; done" & ) ; exit' & )
`

func TestNothingOutlivesItsTask(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, n *node) {
		pids, gate := n.fifo("pids"), n.fifo("gate")
		bystander := n.start(n.shell("bystander", "setsid sleep 1000 & echo $! > "+pids.path+"; read x < "+gate.path))
		innocent := pids.pid()
		script := fmt.Sprintf(daemons, pids.path) + "read x < " + n.fifo("go").path + "; exit 3"
		p := n.start(n.shell("parent", script))
		var all []*watched
		for range 3 {
			all = append(all, pids.pid())
		}
		if err := os.WriteFile(filepath.Join(n.dir, "go"), []byte("go\n"), 0); err != nil {
			t.Fatal(err)
		}
		if r := n.wait(p); r.Reason != run.Exited || r.ExitCode != 3 || r.Leftovers {
			t.Errorf("result %+v", r)
		}
		for _, w := range all {
			if !w.ended() {
				t.Errorf("process %d outlives its task", w.pid)
			}
		}
		if innocent.ended() {
			t.Error("another task's daemon was killed")
		}
		if err := bystander.Kill(n.ctx(), 0); err != nil {
			t.Fatal(err)
		}
		if n.wait(bystander); !innocent.ended() {
			t.Error("the other task's daemon outlives it")
		}
	})
}

func TestUserSwitch(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	n := newNode(t)
	work := filepath.Join(n.dir, "work")
	if err := errors.Join(os.Mkdir(work, 0o750), os.Chown(work, 61000, 61000)); err != nil {
		t.Fatal(err)
	}
	s := n.shell("who", "id -u; id -g; id -G; grep NoNewPrivs /proc/self/status; touch made; ls "+n.options.Dir)
	s.User, s.Dir = &run.User{UID: 61000, GID: 61000, Groups: []uint32{61005}}, work
	if r := n.run(s); r.ExitCode == 0 {
		t.Error("the task can read the keeper's folder")
	}
	want := "61000\n61000\n61000 61005\nNoNewPrivs:\t1\n"
	if diff := cmp.Diff(want, n.output("who")); diff != "" {
		t.Errorf("identity (-want +got):\n%s", diff)
	}
	for path, mode := range map[string]uint32{filepath.Join(work, "made"): 0o644, s.Stdout: 0o640} {
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil {
			t.Fatal(err)
		}
		if st.Uid != 61000 || st.Gid != 61000 || st.Mode&0o777 != mode {
			t.Errorf("%s belongs to %d:%d, mode %o", path, st.Uid, st.Gid, st.Mode&0o777)
		}
	}
	admin := n.shell("admin", "id -u; id -G; grep NoNewPrivs /proc/self/status")
	admin.Admin = true
	n.run(admin)
	if diff := cmp.Diff("0\n0\nNoNewPrivs:\t0\n", n.output("admin")); diff != "" {
		t.Errorf("administrator (-want +got):\n%s", diff)
	}
}

func TestStartWithoutLease(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	if err := n.Lease(-time.Second); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Process(n.spec("late", "/bin/true")).Start(n.ctx()); !errors.Is(err, run.ErrNoLease) {
		t.Errorf("start answers %v", err)
	}
	if err := n.Lease(time.Minute); err != nil {
		t.Fatal(err)
	}
	n.run(n.spec("later", "/bin/true"))
}

func TestWaitCanBeGivenUp(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	p := n.start(n.spec("long", "/bin/sleep", "1000"))
	ctx, cancel := context.WithCancel(n.ctx())
	cancel()
	if _, err := p.Wait(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("wait answers %v", err)
	}
}
