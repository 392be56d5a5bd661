//go:build linux

package keeper_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/batchyard/batchyard/agent/run"
)

// startAgent starts an agent process for the node and waits until its tasks run.
func (n *node) startAgent(lease time.Duration, scripts ...string) *exec.Cmd {
	n.t.Helper()
	return n.startHelper("agent", lease, scripts...)
}

// startHelper starts an agent process of a kind and waits until it says so.
func (n *node) startHelper(kind string, lease time.Duration, scripts ...string) *exec.Cmd {
	n.t.Helper()
	args := append([]string{n.options.Dir, string(n.options.Cgroups), lease.String()}, scripts...)
	c := exec.Command(self(n.t), args...)
	c.Env = []string{"RUN_TEST_HELPER=" + kind}
	c.Stderr = os.Stderr
	in, err := c.StdinPipe()
	if err != nil {
		n.t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		n.t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() {
		in.Close()
		_ = c.Process.Kill()
		_ = c.Wait()
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "started\n" {
		n.t.Fatalf("agent says %q, %v", line, err)
	}
	return c
}

// crash ends a process without any chance to tidy up.
func crash(t *testing.T, c *exec.Cmd) {
	t.Helper()
	if err := c.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_, _ = c.Process.Wait()
}

func TestAgentIsKilledAndComesBack(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, n *node) {
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
		pids, long, short := n.fifo("pids"), n.fifo("long"), n.fifo("short")
		script := "echo $$ > " + pids.path + "; read x < %s; exit %d"
		agent := n.startAgent(time.Hour, fmt.Sprintf(script, long.path, 41))
		running := pids.pid()
		crash(t, agent)
		agent2 := n.startAgent(time.Hour, "exit 1", fmt.Sprintf(script, short.path, 42))
		ended := pids.pid()
		crash(t, agent2)

		// One task ends while no agent is there.
		before := time.Now()
		tell(t, short.path)
		ended.mustEnd()
		if running.ended() {
			t.Fatal("running task died with its agent")
		}
		n.open()
		got := map[string]run.Held{}
		for _, h := range n.Held() {
			got[h.ID] = h
		}
		if h := got["task0"]; h.Started.PID != running.pid || h.Result != nil {
			t.Errorf("running task is held as %+v", h)
		}
		if h := got["task0"]; h.Started.Age < before.Sub(h.Started.At) || h.Started.Age > time.Since(h.Started.At) {
			t.Errorf("a task that began before %v, at %v, is said to be %v old", before, h.Started.At, h.Started.Age)
		}
		r, err := n.Process(run.Spec{ID: "task1"}).Wait(n.ctx())
		if err != nil || r.ExitCode != 42 || r.Reason != run.Exited {
			t.Errorf("task that ended meanwhile: %+v, %v", r, err)
		}
		tell(t, long.path)
		r, err = n.Process(run.Spec{ID: "task0"}).Wait(n.ctx())
		if err != nil || r.ExitCode != 41 || r.Reason != run.Exited {
			t.Errorf("task that went on: %+v, %v", r, err)
		}
		n.Forget("task0", "task1")
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
		n.open()
		if held := n.Held(); len(held) != 0 {
			t.Errorf("forgotten tasks are held: %+v", held)
		}
	})
}

// tell writes a line into a named pipe.
func tell(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := io.WriteString(f, "go\n"); err != nil {
		t.Fatal(err)
	}
}

func TestKeeperIsKilled(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, n *node) {
		keeper := watch(t, n.keeperPID())
		pids := n.fifo("pids")
		p := n.start(n.shell("victim", "echo $$ > "+pids.path+"; "+fmt.Sprintf(daemons, pids.path)+"sleep 1000"))
		var all []*watched
		for range 4 {
			all = append(all, pids.pid())
		}
		if err := unix.Kill(keeper.pid, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		// The agent notices, starts a new keeper, which kills what is left.
		if r := n.wait(p); r.Reason != run.Lost || r.ExitCode != -1 {
			t.Errorf("result %+v", r)
		}
		for _, w := range all {
			if !w.ended() {
				t.Errorf("process %d outlives its keeper", w.pid)
			}
		}
		// The lease went over to the new keeper.
		if r := n.run(n.shell("next", "exit 6")); r.ExitCode != 6 {
			t.Errorf("next task: %+v", r)
		}
	})
}

func TestKeeperIsKilledWhileNoAgentIsThere(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, n *node) {
		keeper := watch(t, n.keeperPID())
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
		pids := n.fifo("pids")
		agent := n.startAgent(time.Hour, "echo $$ > "+pids.path+"; "+fmt.Sprintf(daemons, pids.path)+"sleep 1000")
		var all []*watched
		for range 4 {
			all = append(all, pids.pid())
		}
		crash(t, agent)
		if err := unix.Kill(keeper.pid, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		all[0].mustEnd() // by the parent death signal
		n.open()
		for _, w := range all {
			if !w.ended() {
				t.Errorf("process %d outlives its keeper", w.pid)
			}
		}
		if held := n.Held(); len(held) != 0 {
			t.Errorf("new keeper holds %+v", held)
		}
	})
}

func TestLeaseRunsOut(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, n *node) {
		t.Run("while the agent is cut off", func(t *testing.T) {
			pids := n.fifo("pids")
			p := n.start(n.shell("cut", fmt.Sprintf(daemons, pids.path)+"sleep 1000"))
			for range 3 {
				w := pids.pid()
				defer w.mustEnd()
			}
			if err := n.Lease(50 * time.Millisecond); err != nil {
				t.Fatal(err)
			}
			if r := n.wait(p); r.Reason != run.LeaseExpired || r.Signal != int(unix.SIGKILL) {
				t.Errorf("result %+v", r)
			}
			if _, err := n.Process(n.spec("late", "/bin/true")).Start(n.ctx()); !errors.Is(err, run.ErrNoLease) {
				t.Errorf("start answers %v", err)
			}
		})
		t.Run("after the agent was killed", func(t *testing.T) {
			if err := n.Close(); err != nil {
				t.Fatal(err)
			}
			pids := n.fifo("orphans")
			agent := n.startAgent(2*time.Second, "echo $$ > "+pids.path+"; exec sleep 1000")
			w := pids.pid()
			crash(t, agent)
			if w.ended() {
				t.Error("task ended before the lease")
			}
			w.mustEnd()
			n.open()
			r, err := n.Process(run.Spec{ID: "task0"}).Wait(n.ctx())
			if err != nil || r.Reason != run.LeaseExpired {
				t.Errorf("result %+v, %v", r, err)
			}
		})
	})
}

func TestKeeperEnds(t *testing.T) {
	t.Parallel()
	t.Run("when it has had neither agent nor lease for a while", func(t *testing.T) {
		t.Parallel()
		n := newNode(t, func(o *run.Options) { o.Linger = 50 * time.Millisecond })
		keeper := watch(t, n.keeperPID())
		if err := n.Lease(time.Millisecond); err != nil {
			t.Fatal(err)
		}
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
		keeper.mustEnd()
	})
	t.Run("when it is told to, and takes its tasks and groups with it", func(t *testing.T) {
		t.Parallel()
		n := newNode(t)
		keeper := watch(t, n.keeperPID())
		p := n.start(n.spec("task", "/bin/sleep", "1000"))
		var groups []string
		if n.Capabilities().Groups == "none" {
			t.Log("NOT TESTED here, because there are no control groups: that they are removed")
		} else {
			groups = groupsOf(t, keeper.pid, n)
		}
		if err := n.Shutdown(n.ctx()); err != nil {
			t.Fatal(err)
		}
		if r := n.wait(p); r.Reason != run.Killed {
			t.Errorf("result %+v", r)
		}
		keeper.mustEnd()
		for _, dir := range groups {
			if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("group %s is left: %v", dir, err)
			}
		}
		if _, err := n.Process(n.spec("late", "/bin/true")).Start(n.ctx()); !errors.Is(err, run.ErrClosed) {
			t.Errorf("start answers %v", err)
		}
	})
}

// groupsOf lists the node's folders in the trees of control groups.
func groupsOf(t *testing.T, _ int, n *node) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(n.options.Dir, "groups.json"))
	if err != nil {
		t.Fatal(err)
	}
	var dirs []string
	for _, part := range strings.Split(string(text), "\"") {
		if strings.HasPrefix(part, "/") {
			dirs = append(dirs, part)
		}
	}
	return dirs
}

func TestKeeperOfAnotherBuild(t *testing.T) {
	t.Parallel()
	n := newNode(t, func(o *run.Options) { o.Build = "old" })
	old := watch(t, n.keeperPID())
	gate := n.fifo("gate")
	p := n.start(n.shell("task", "read x < "+gate.path+"; exit 4"))
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	n.options.Build = "new"
	n.open()
	if old.ended() {
		t.Fatal("a keeper that holds tasks was replaced")
	}
	tell(t, gate.path)
	if r := n.wait(n.Process(run.Spec{ID: "task"})); r.ExitCode != 4 {
		t.Errorf("result %+v", r)
	}
	n.Forget("task")
	_ = p
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	n.open()
	old.mustEnd()
	n.run(n.spec("task", "/bin/true"))
}

func TestTwoAgentsForOneNode(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	first := n.Keeper
	p := n.start(n.spec("task", "/bin/sleep", "1000"))
	n.open()
	if _, err := p.Wait(n.ctx()); !errors.Is(err, run.ErrSuperseded) {
		t.Errorf("first agent's wait answers %v", err)
	}
	if err := first.Lease(time.Hour); !errors.Is(err, run.ErrSuperseded) {
		t.Errorf("first agent's lease answers %v", err)
	}
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	if held := n.Held(); len(held) != 1 || held[0].Result != nil {
		t.Errorf("second agent finds %+v", held)
	}
}

func TestAgentIsReplacedWhileTasksStart(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	log, begun := filepath.Join(n.dir, "log"), n.fifo("begun")
	var scripts []string
	for i := range 60 {
		scripts = append(scripts, fmt.Sprintf("echo task%d >> %s; echo > %s; sleep 1000", i, log, begun.path))
	}
	first := n.startHelper("hasty agent", time.Hour, scripts...)
	begun.line()
	crash(t, first)
	n.open()
	held := map[string]bool{}
	for _, h := range n.Held() {
		held[h.ID] = true
	}
	n.run(n.spec("last", "/bin/true"))
	if err := n.Shutdown(n.ctx()); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range strings.Fields(string(text)) {
		if !held[id] {
			t.Errorf("%s runs and the second agent knows nothing of it", id)
		}
	}
}

func TestFolderWithALongName(t *testing.T) {
	t.Parallel()
	n := newNode(t, func(o *run.Options) {
		o.Dir = filepath.Join(o.Dir, strings.Repeat("long", 30), strings.Repeat("longer", 20))
	})
	if r := n.run(n.shell("task", "exit 2")); r.ExitCode != 2 {
		t.Errorf("result %+v", r)
	}
}

func TestTwoNodesOnOneHost(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, n *node) {
		other := newNode(t, func(o *run.Options) { o.Cgroups = n.options.Cgroups })
		pids := n.fifo("pids")
		n.start(n.shell("task", fmt.Sprintf(daemons, pids.path)+"sleep 1000"))
		var all []*watched
		for range 3 {
			all = append(all, pids.pid())
		}
		if err := unix.Kill(other.keeperPID(), unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		after := other.Process(other.spec("after", "/bin/true"))
		for {
			_, err := after.Start(n.ctx())
			if err == nil {
				break
			}
			if !errors.Is(err, run.ErrKeeperLost) {
				t.Fatal(err)
			}
		}
		if err := other.Shutdown(other.ctx()); err != nil {
			t.Fatal(err)
		}
		for _, w := range all {
			if w.ended() {
				t.Errorf("process %d died with another node", w.pid)
			}
		}
	})
}

func TestWithoutRoot(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root to become somebody else")
	}
	n := newNode(t)
	// The test binary lies in a folder of root's own.
	exe := filepath.Join(n.dir, "agent.test")
	text, err := os.ReadFile(self(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(exe, text, 0o755); err != nil {
		t.Fatal(err)
	}
	pids := n.fifo("pids")
	script := fmt.Sprintf(daemons, pids.path) + "read x < " + n.fifo("go").path + "; ulimit -f; exit 9"
	c := exec.Command(exe, filepath.Join(n.dir, "mine"), "", script)
	c.Env = []string{"RUN_TEST_HELPER=rootless"}
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 61000, Gid: 61000}}
	c.Stderr = os.Stderr
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	var all []*watched
	for range 3 {
		all = append(all, pids.pid())
	}
	tell(t, filepath.Join(n.dir, "go"))
	got, err := io.ReadAll(out)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); err != nil {
		t.Error(err)
	}
	if want := "exited 9 false none true\n"; string(got) != want {
		t.Errorf("agent says %q, want %q", got, want)
	}
	for _, w := range all {
		if !w.ended() {
			t.Errorf("process %d outlives its task", w.pid)
		}
	}
}
