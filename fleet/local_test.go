package fleet_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/control"
	"github.com/batchyard/batchyard/fleet"
)

// TestMain lets the test program be an agent: it holds its folder's lock, says
// that it does, and ends well when it is terminated.
func TestMain(m *testing.M) {
	if len(os.Args) == 4 && os.Args[1] == "agent" {
		os.Exit(playAgent(os.Args[2], os.Args[3]))
	}
	os.Exit(m.Run())
}

func playAgent(folder, pipe string) int {
	stop, cancel := signal.NotifyContext(context.Background(), os.Interrupt)
	defer cancel()
	lock, err := os.OpenFile(filepath.Join(folder, "state", "agent.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return 2
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return 3
	}
	_ = lock.Truncate(0)
	_, _ = fmt.Fprintf(lock, "%d\n", os.Getpid())
	news, err := os.OpenFile(pipe, os.O_WRONLY, 0)
	if err != nil {
		return 4
	}
	_, _ = fmt.Fprintf(news, "%d\n", os.Getpid())
	_ = news.Close()
	<-stop.Done()
	return 0
}

// yard is a folder of nodes, and the rows that say which should be.
type yard struct {
	t       *testing.T
	dir     string
	pipe    string
	changed chan struct{}

	mu    sync.Mutex // guards the rows
	rows  []control.NodeWanted
	words map[batch.NodeID]string
	lines chan string // what agents say when they are up

	stale    func(folder string) bool
	patience time.Duration
	log      lineWriter
}

func newYard(t *testing.T) *yard {
	t.Helper()
	y := &yard{t: t, dir: t.TempDir(), changed: make(chan struct{}, 1), lines: make(chan string, 100), log: make(lineWriter, 100)}
	y.pipe = filepath.Join(t.TempDir(), "news")
	if err := syscall.Mkfifo(y.pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	// Opened for both, the pipe does not end between two agents.
	news, err := os.OpenFile(y.pipe, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = news.Close() })
	go func() {
		buffer := make([]byte, 4096)
		for {
			n, err := news.Read(buffer)
			if err != nil {
				return
			}
			for line := range strings.FieldsSeq(string(buffer[:n])) {
				y.lines <- line
			}
		}
	}()
	return y
}

func (y *yard) DesiredNodes(context.Context) ([]control.NodeWanted, error) {
	y.mu.Lock()
	defer y.mu.Unlock()
	return append([]control.NodeWanted(nil), y.rows...), nil
}

func (y *yard) NewNodeToken(_ context.Context, node batch.NodeID) (string, error) {
	y.mu.Lock()
	defer y.mu.Unlock()
	if !slices.ContainsFunc(y.rows, func(row control.NodeWanted) bool { return row.Node == node }) {
		return "", batch.NotFound("node", string(node))
	}
	return "byt_token", nil
}

// NodeNotHeard keeps what agents said last.
func (y *yard) NodeNotHeard(_ context.Context, node batch.NodeID, word string) (bool, error) {
	y.mu.Lock()
	defer y.mu.Unlock()
	if y.words == nil {
		y.words = map[batch.NodeID]string{}
	}
	y.words[node] = word
	return true, nil
}

func (y *yard) want(ids ...batch.NodeID) {
	y.mu.Lock()
	y.rows = nil
	for _, id := range ids {
		y.rows = append(y.rows, control.NodeWanted{Node: id})
	}
	y.mu.Unlock()
	select {
	case y.changed <- struct{}{}:
	default:
	}
}

// provide runs a provider until the returned function is called.
func (y *yard) provide(most int, killOnStop bool) (stop func()) {
	y.t.Helper()
	executable, err := os.Executable()
	if err != nil {
		y.t.Fatal(err)
	}
	local := &fleet.Local{
		Nodes: y, Changed: y.changed, Dir: y.dir, Max: most, Stale: y.stale, KillOnStop: killOnStop,
		Patience: y.patience, Log: slog.New(slog.NewTextHandler(y.log, nil)),
		Command: func(_ control.NodeWanted, folder string, token func() (string, error)) (*exec.Cmd, error) {
			if _, err := token(); err != nil {
				return nil, err
			}
			return exec.CommandContext(context.WithoutCancel(y.t.Context()), executable, "agent", folder, y.pipe), nil
		},
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(y.t.Context()))
	done := make(chan error, 1)
	go func() { done <- local.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			y.t.Errorf("Run ends with %v", err)
		}
	}
}

// up waits for an agent to say that it is.
func (y *yard) up() int {
	y.t.Helper()
	select {
	case line := <-y.lines:
		pid, err := strconv.Atoi(line)
		if err != nil {
			y.t.Fatal(err)
		}
		return pid
	case <-time.After(20 * time.Second):
		y.t.Fatal("no agent came up")
		return 0
	}
}

func (y *yard) gone(pid int) {
	y.t.Helper()
	if err := fleet.Await(y.t.Context(), pid); err != nil {
		y.t.Fatalf("agent %d does not end: %v", pid, err)
	}
}

func TestNodesWithARowHaveAnAgent(t *testing.T) {
	t.Parallel()
	y := newYard(t)
	y.want("tvmps_1_d", "tvmps_2_d")
	stop := y.provide(8, true)
	first, second := y.up(), y.up()
	if first == second {
		t.Fatal("two nodes share an agent")
	}
	// One that is killed is started again, in the same folder.
	if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	third := y.up()
	stop()
	y.gone(second)
	y.gone(third)
}

func TestNoMoreAgentsThanTheMachineMayHave(t *testing.T) {
	t.Parallel()
	y := newYard(t)
	y.want("tvmps_1_d", "tvmps_2_d")
	stop := y.provide(1, true)
	pid := y.up()
	y.want("tvmps_2_d")
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil { // it learns that it has no row
		t.Fatal(err)
	}
	y.gone(pid)
	y.up() // there is room for the other now
	stop()
}

func TestAgentsOutliveTheirServerAndAreFoundAgain(t *testing.T) {
	t.Parallel()
	y := newYard(t)
	y.want("tvmps_1_d")
	stop := y.provide(8, false)
	pid := y.up()
	stop()
	if err := syscall.Kill(pid, 0); err != nil {
		t.Fatalf("the agent ended with its server: %v", err)
	}
	stop = y.provide(8, true)
	// The next server starts no second agent: it would say so, and could not
	// have the lock. It ends the one it found when it stops.
	y.want("tvmps_1_d", "tvmps_2_d")
	if other := y.up(); other == pid {
		t.Fatal("the agent was started twice")
	}
	stop()
	y.gone(pid)
}

func TestAgentsThatLookElsewhereAreStartedAnew(t *testing.T) {
	t.Parallel()
	y := newYard(t)
	y.want("tvmps_1_d")
	stop := y.provide(8, false)
	pid := y.up()
	stop()
	y.stale = func(folder string) bool { return filepath.Base(folder) == "tvmps_1_d" }
	stop = y.provide(8, true)
	y.gone(pid)
	if next := y.up(); next == pid {
		t.Fatal("the agent was not started anew")
	}
	stop()
}

func TestFoldersOfNodesWithoutARowAreRemoved(t *testing.T) {
	t.Parallel()
	y := newYard(t)
	y.want("tvmps_1_d")
	stop := y.provide(8, true)
	pid := y.up()
	y.want("tvmps_2_d")
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	y.gone(pid)
	y.up()
	// A server that is stopped before leaves it to the next one, which takes it
	// for a stranger's and is patient.
	var err error
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end) && !os.IsNotExist(err); time.Sleep(10 * time.Millisecond) {
		_, err = os.Stat(filepath.Join(y.dir, "tvmps_1_d"))
	}
	stop()
	if !os.IsNotExist(err) {
		t.Errorf("the folder of a removed node is still there: %v", err)
	}
	if _, err := os.Stat(filepath.Join(y.dir, "tvmps_2_d")); err != nil {
		t.Errorf("the folder of a node that should be is gone: %v", err)
	}
}

// strangers makes folders of nodes of which no row speaks.
func (y *yard) strangers(n int) {
	y.t.Helper()
	for i := range n {
		if err := os.MkdirAll(filepath.Join(y.dir, fmt.Sprintf("tvmps_stranger%d", i), "state"), 0o700); err != nil {
			y.t.Fatal(err)
		}
	}
}

func (y *yard) folders() int {
	y.t.Helper()
	folders, err := filepath.Glob(filepath.Join(y.dir, "tvmps_*"))
	if err != nil {
		y.t.Fatal(err)
	}
	return len(folders)
}

// A provider that began on the folder of another database, or on an empty one,
// removes nothing of which it has not seen a row.
func TestFoldersThatNoRowEverSpokeOf(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name       string
		strangers  int
		impatient  bool
		left, says string
	}{
		{name: "are left alone at first", strangers: 3, left: "4"},
		{name: "are removed when they are few", strangers: 3, impatient: true, left: "1", says: "removed=3 folders=4"},
		{name: "are kept when they are most", strangers: 20, impatient: true, left: "21", says: "folders=21 unknown=20"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			y := newYard(t)
			y.strangers(test.strangers)
			y.want("tvmps_1_d")
			if test.impatient {
				y.patience = time.Nanosecond
			}
			stop := y.provide(8, true)
			y.up()
			if test.says != "" {
				y.logged(test.says)
			}
			y.want("tvmps_1_d") // looks again
			y.want("tvmps_1_d")
			stop()
			if got := strconv.Itoa(y.folders()); got != test.left {
				t.Errorf("%s folders are left, want %s", got, test.left)
			}
		})
	}
}

// logged waits for a line of the provider's log.
func (y *yard) logged(text string) {
	y.t.Helper()
	for {
		select {
		case line := <-y.log:
			if strings.Contains(line, text) {
				return
			}
		case <-y.t.Context().Done():
			y.t.Fatalf("the log does not say %q", text)
		}
	}
}

// lineWriter passes what is written on, as it comes.
type lineWriter chan string

func (w lineWriter) Write(p []byte) (int, error) {
	select {
	case w <- string(p):
	default:
	}
	return len(p), nil
}

func TestAnAgentThatFailsHasALastWord(t *testing.T) {
	t.Parallel()
	y := newYard(t)
	y.want("tvmps_1_d")
	folder := filepath.Join(y.dir, "tvmps_1_d")
	if err := os.MkdirAll(filepath.Join(folder, "state"), 0o700); err != nil {
		t.Fatal(err)
	}
	log := strings.Repeat("earlier\n", 1000) + "the last word\n\n"
	if err := os.WriteFile(filepath.Join(folder, fleet.AgentLog), []byte(log), 0o600); err != nil {
		t.Fatal(err)
	}
	stop := y.provide(8, true)
	defer stop()
	if err := syscall.Kill(y.up(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	y.up() // started again, after it was noted
	y.mu.Lock()
	defer y.mu.Unlock()
	if got := y.words["tvmps_1_d"]; got != "the last word" {
		t.Errorf("the node shows %q", got)
	}
}
