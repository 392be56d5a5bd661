//go:build linux

package keeper_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/batchyard/batchyard/agent/keeper"
	"github.com/batchyard/batchyard/agent/run"
)

// The test binary is also the keeper process and every program that a task of
// these tests needs and the system does not have.
func TestMain(m *testing.M) {
	switch {
	case os.Getenv("RUN_TEST_KEEPER") != "":
		keeperMain()
	case os.Getenv("RUN_TEST_HELPER") != "":
		helperMain(os.Getenv("RUN_TEST_HELPER"), os.Args[1:])
	default:
		os.Exit(m.Run())
	}
}

func keeperMain() {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	if err := keeper.Main(context.Background(), os.Stdin, os.Stdout, log); err != nil {
		log.Error("keeper failed", "error", err)
		os.Exit(1)
	}
}

// node is one compute node of a test.
type node struct {
	t       testing.TB
	dir     string
	options run.Options
	*run.Keeper
}

// newNode opens a node with a lease that outlasts the test. Its keeper and all
// groups are gone when the test ends.
func newNode(t testing.TB, change ...func(*run.Options)) *node {
	t.Helper()
	// Short, because sockets have short names, and reachable for all users.
	dir, err := os.MkdirTemp("", "run")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, dir: dir, options: run.Options{
		Dir:     filepath.Join(dir, "keeper"),
		Command: []string{self(t)},
		Env:     []string{"RUN_TEST_KEEPER=1", "SECRET=canary"},
		Linger:  time.Minute,
	}}
	for _, c := range change {
		c(&n.options)
	}
	n.open()
	t.Cleanup(n.end)
	return n
}

func self(t testing.TB) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return exe
}

// open connects as a newly started agent does.
func (n *node) open() {
	n.t.Helper()
	k, err := run.Open(n.ctx(), n.options)
	if err != nil {
		n.t.Fatal(err)
	}
	n.Keeper = k
	if err := k.Lease(time.Hour); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) end() {
	if err := n.Shutdown(n.ctx()); err != nil && !errors.Is(err, run.ErrClosed) {
		n.t.Errorf("shut down: %v", err)
	}
	if n.t.Failed() {
		text, _ := os.ReadFile(filepath.Join(n.options.Dir, "keeper.log"))
		n.t.Logf("keeper's log:\n%s", text)
	}
}

// ctx bounds every wait of a test.
func (n *node) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	n.t.Cleanup(cancel)
	return ctx
}

// spec is a task that runs a program with its output in files named by the ID.
func (n *node) spec(id string, args ...string) run.Spec {
	return run.Spec{
		ID:     id,
		Args:   args,
		Env:    []string{"PATH=/usr/bin:/bin", "TASK=" + id},
		Dir:    n.dir,
		Stdout: filepath.Join(n.dir, id+".out"),
		Stderr: filepath.Join(n.dir, id+".err"),
	}
}

// shell is a task that runs a script.
func (n *node) shell(id, script string) run.Spec { return n.spec(id, "/bin/sh", "-c", script) }

// helper is a task that runs one of this binary's programs.
func (n *node) helper(id, name string, args ...string) run.Spec {
	s := n.spec(id, append([]string{self(n.t)}, args...)...)
	s.Env = append(s.Env, "RUN_TEST_HELPER="+name)
	return s
}

// start starts a task that must start.
func (n *node) start(s run.Spec) *run.Process {
	n.t.Helper()
	p := n.Process(s)
	if _, err := p.Start(n.ctx()); err != nil {
		n.t.Fatalf("start %s: %v", s.ID, err)
	}
	return p
}

// wait waits for a task to end.
func (n *node) wait(p *run.Process) run.Result {
	n.t.Helper()
	r, err := p.Wait(n.ctx())
	if err != nil {
		n.t.Fatal(err)
	}
	return r
}

// run runs a task from start to end.
func (n *node) run(s run.Spec) run.Result {
	n.t.Helper()
	return n.wait(n.start(s))
}

func (n *node) output(id string) string {
	n.t.Helper()
	text, err := os.ReadFile(filepath.Join(n.dir, id+".out"))
	if err != nil {
		n.t.Fatal(err)
	}
	return string(text)
}

// fifo makes a named pipe through which tasks tell the test what they have
// done, so that it need not look again and again.
func (n *node) fifo(name string) *fifo {
	n.t.Helper()
	path := filepath.Join(n.dir, name)
	if err := unix.Mkfifo(path, 0o666); err != nil {
		n.t.Fatal(err)
	}
	if err := os.Chmod(path, 0o666); err != nil {
		n.t.Fatal(err)
	}
	// Open for both, so that neither end waits for the other or sees an end.
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { f.Close() })
	if err := f.SetReadDeadline(time.Now().Add(60 * time.Second)); err != nil {
		n.t.Fatal(err)
	}
	return &fifo{n.t, path, bufio.NewReader(f)}
}

type fifo struct {
	t    testing.TB
	path string
	in   *bufio.Reader
}

// line reads the next line that a task has written.
func (f *fifo) line() string {
	f.t.Helper()
	s, err := f.in.ReadString('\n')
	if err != nil {
		f.t.Fatalf("read %s: %v", f.path, err)
	}
	return strings.TrimSpace(s)
}

// pid reads the number of a process that still runs, and returns what can be
// asked later whether it has ended.
func (f *fifo) pid() *watched {
	f.t.Helper()
	var pid int
	if _, err := fmt.Sscan(f.line(), &pid); err != nil {
		f.t.Fatal(err)
	}
	return watch(f.t, pid)
}

// watched is a process of a task, which the test is not the parent of.
type watched struct {
	t   testing.TB
	pid int
	fd  int
}

func watch(t testing.TB, pid int) *watched {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatalf("open process %d: %v", pid, err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return &watched{t, pid, fd}
}

// ended reports whether the process has ended by now.
func (w *watched) ended() bool { return w.poll(0) }

// mustEnd waits for the process to end.
func (w *watched) mustEnd() {
	w.t.Helper()
	if !w.poll(30 * time.Second) {
		w.t.Errorf("process %d does not end", w.pid)
	}
}

func (w *watched) poll(d time.Duration) bool {
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(w.fd), Events: unix.POLLIN}}, int(d.Milliseconds()))
		if err == nil {
			return n > 0
		}
		if err != unix.EINTR {
			w.t.Fatal(err)
		}
	}
}

// keeperPID finds the keeper: it is who started a task.
func (n *node) keeperPID() int {
	n.t.Helper()
	s := n.shell("whose", "echo $PPID")
	r := n.run(s)
	if r.ExitCode != 0 {
		n.t.Fatalf("result %+v", r)
	}
	var pid int
	if _, err := fmt.Sscan(n.output("whose"), &pid); err != nil {
		n.t.Fatal(err)
	}
	n.Forget("whose")
	os.Remove(s.Stdout)
	return pid
}

// scanTicks reads the processor times of a process and its children, in ticks,
// from the text of its stat file.
func scanTicks(t testing.TB, stat string, ticks *[4]int64) {
	t.Helper()
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	for i := range ticks {
		if _, err := fmt.Sscan(fields[11+i], &ticks[i]); err != nil {
			t.Fatal(err)
		}
	}
}
