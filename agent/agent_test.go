package agent_test

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/batchyard/batchyard/agent"
	"github.com/batchyard/batchyard/agent/keeper"
	"github.com/batchyard/batchyard/agent/run"
	"github.com/batchyard/batchyard/batch"
)

// The test binary is also the keeper process, and a pipe to a server for tasks
// that look what they can reach.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "keeper" {
		keeperMain()
		return
	}
	os.Exit(m.Run())
}

func keeperMain() {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	if err := keeper.Main(context.Background(), os.Stdin, os.Stdout, log); err != nil {
		log.Error("keeper failed", "err", err)
		os.Exit(1)
	}
}

// testTime bounds every wait of a test.
const testTime = 30 * time.Second

// node is a compute node of a test: folders, an agent that can be started and
// stopped, and the server that it talks to.
type node struct {
	*server
	t       testing.TB
	folder  string
	options agent.Options
	stop    context.CancelFunc
	ended   chan error
}

// lastBase makes users of nodes of one test process distinct.
var lastBase atomic.Uint32

// newNode makes a node with two slots and its server, and starts the agent
// after the changes.
func newNode(t testing.TB, changes ...func(*node)) *node {
	t.Helper()
	n := makeNode(t, changes...)
	n.start()
	return n
}

// makeNode is newNode without a start.
func makeNode(t testing.TB, changes ...func(*node)) *node {
	t.Helper()
	// Not t.TempDir, which other users cannot pass and whose name is long for a
	// socket.
	folder, err := os.MkdirTemp("", "agent")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(folder, 0o711); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, folder: folder, server: newServer(t), stop: func() {}}
	n.options = agent.Options{
		Server: n.server, Root: filepath.Join(folder, "root"), State: filepath.Join(folder, "state"),
		UIDBase: 700_000 + lastBase.Add(1)*agent.UIDs, Version: "test", KeeperCommand: []string{self, "keeper"},
		Show: []string{folder}, // tests and tasks meet there
		Log:  slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	for _, change := range changes {
		change(n)
	}
	t.Cleanup(n.remove)
	return n
}

func slots(count int) func(*node) {
	return func(n *node) { n.settings.TaskSlots = count }
}

func startTask(task batch.StartTask) func(*node) {
	return func(n *node) { n.settings.StartTask = &task }
}

// start starts an agent on the node's folders.
func (n *node) start() {
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	n.stop, n.ended = stop, ended
	go func() { ended <- agent.New(n.options).Run(ctx) }()
}

// halt stops the agent, which must end well.
func (n *node) halt() {
	n.t.Helper()
	n.stop()
	if err := n.exit(); err != nil {
		n.t.Errorf("agent ended with %v", err)
	}
}

// exit waits for the end of the agent.
func (n *node) exit() error {
	n.t.Helper()
	select {
	case err := <-n.ended:
		n.ended = nil
		return err
	case <-time.After(testTime):
		n.t.Fatal("the agent does not end")
		return nil
	}
}

// restart replaces the agent by a new one.
func (n *node) restart() {
	n.t.Helper()
	n.halt()
	n.start()
}

// remove ends whatever is left of the node.
func (n *node) remove() {
	n.stop()
	if n.ended != nil {
		if err := n.exit(); err != nil {
			n.t.Errorf("agent ended with %v", err)
		}
	}
	n.shutdownKeeper()
	if n.t.Failed() {
		text, err := os.ReadFile(filepath.Join(n.options.State, "keeper", "keeper.log"))
		n.t.Logf("keeper's log (%v):\n%s", err, text)
	}
	err := filepath.WalkDir(n.folder, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			return os.Chmod(path, 0o700) // tasks close directories
		}
		return err
	})
	if err = errors.Join(err, os.RemoveAll(n.folder)); err != nil {
		n.t.Errorf("remove node: %v", err)
	}
}

// shutdownKeeper ends the node's keeper, if it has one.
func (n *node) shutdownKeeper() {
	if n.keeperGone() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), testTime)
	defer cancel()
	k, err := run.Open(ctx, run.Options{Dir: filepath.Join(n.options.State, "keeper"), Command: n.options.KeeperCommand, Build: n.options.Version})
	if err == nil {
		err = k.Shutdown(ctx)
	}
	if err != nil {
		n.t.Errorf("shut keeper down: %v", err)
	}
}

// keeperGone tells that no keeper answers.
func (n *node) keeperGone() bool {
	conn, err := net.Dial("unix", filepath.Join(n.options.State, "keeper", "keeper.sock"))
	if err == nil {
		conn.Close()
	}
	return err != nil
}

// path is the absolute path of something below the node's root.
func (n *node) path(parts ...string) string {
	return filepath.Join(append([]string{n.options.Root}, parts...)...)
}

// place is the directory of a task of job j.
func (n *node) place(task string, parts ...string) string {
	return n.path(append([]string{"workitems", "j", "job-1", task}, parts...)...)
}

// text is the content of a file.
func (n *node) text(path string) string {
	n.t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		n.t.Fatal(err)
	}
	return string(text)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// alive tells whether a process is there and no zombie.
func alive(pid int) bool {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err == nil && !strings.Contains(string(text), ") Z ")
}

// pidIn is the number, as this process has it, of a process whose own number a
// task wrote: the node counts for itself. It is 0 if there is none any more.
func (n *node) pidIn(path string) int {
	n.t.Helper()
	own := strings.TrimSpace(n.text(path))
	if _, err := strconv.Atoi(own); err != nil {
		n.t.Fatal(err)
	}
	all, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		n.t.Fatal(err)
	}
	for _, proc := range all {
		status, _ := os.ReadFile(proc + "/status")
		environ, _ := os.ReadFile(proc + "/environ")
		_, line, _ := strings.Cut(string(status), "\nNSpid:")
		line, _, _ = strings.Cut(line, "\n")
		if numbers := strings.Fields(line); len(numbers) > 0 && numbers[len(numbers)-1] == own && strings.Contains(string(environ), n.options.Root) {
			pid, _ := strconv.Atoi(numbers[0])
			return pid
		}
	}
	return 0
}

func isRoot() bool { return os.Geteuid() == 0 }

// shell is a task that runs a script.
func shell(script string) *batch.TaskRun {
	return &batch.TaskRun{
		CommandLine: "/bin/sh -c '" + strings.ReplaceAll(script, "'", `'"'"'`) + "'", RequiredSlots: 1, MaxWallClockTime: batch.Unlimited,
	}
}

// gate is a pipe that a task of a test waits at until the test opens it, or
// writes to in order to tell that it has come so far.
type gate struct {
	t    testing.TB
	path string
}

// newGate makes a named pipe that tasks of all users may use.
func (n *node) newGate(name string) gate {
	n.t.Helper()
	path := filepath.Join(n.folder, name)
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		n.t.Fatal(err)
	}
	if err := os.Chmod(path, 0o666); err != nil {
		n.t.Fatal(err)
	}
	return gate{n.t, path}
}

// wait is a script that stops until the gate is opened.
func (g gate) wait() string { return "read line < " + g.path }

// reach is a script that tells the test something.
func (g gate) reach(what string) string { return "echo " + what + " > " + g.path }

// open lets one task through.
func (g gate) open() {
	g.t.Helper()
	g.within(func() error { return os.WriteFile(g.path, []byte("go\n"), 0) })
}

// reached waits for a task that tells something.
func (g gate) reached() string {
	g.t.Helper()
	var text []byte
	g.within(func() (err error) {
		text, err = os.ReadFile(g.path)
		return err
	})
	return strings.TrimSpace(string(text))
}

func (g gate) within(do func() error) {
	g.t.Helper()
	done := make(chan error, 1)
	go func() { done <- do() }()
	select {
	case err := <-done:
		if err != nil {
			g.t.Fatal(err)
		}
	case <-time.After(testTime):
		g.t.Fatalf("no task came to %s", g.path)
	}
}
