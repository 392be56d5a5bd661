package e2e_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/batchyard/batchyard/api/shapetest"
)

// limit is more than a walk takes while six others share the machine's two cores.
const limit = 12 * time.Minute

func TestPython14(t *testing.T) {
	t.Parallel()
	runWalk(t, commonServer(t), "python14", python("14"), "walks/python/walk14.py")
}

func TestPython15(t *testing.T) {
	t.Parallel()
	runWalk(t, commonServer(t), "python15", python("15"), "walks/python/walk15.py")
}

func TestAzCLI(t *testing.T) {
	t.Parallel()
	runWalk(t, commonServer(t), "az", "bash", "walks/az/walk.sh")
}

// TestNewestAzCLI walks with an az that nobody has packaged for Debian yet.
func TestNewestAzCLI(t *testing.T) {
	t.Parallel()
	programs, err := filepath.Abs(filepath.Join(clients, "az", "bin"))
	if err != nil {
		t.Fatal(err)
	}
	runWalk(t, commonServer(t), "newaz", "env", "PATH="+programs+":"+os.Getenv("PATH"), "bash", "walks/az/walk.sh")
}

func TestJS10(t *testing.T) {
	t.Parallel()
	runWalk(t, commonServer(t), "js10", "node", "walks/javascript/walk10.js")
}

func TestJSLegacy9(t *testing.T) {
	t.Parallel()
	runWalk(t, commonServer(t), "js9", "node", "walks/javascript/walk9.js")
}

func TestGo(t *testing.T) {
	t.Parallel()
	program := filepath.Join(t.TempDir(), "walk")
	if text, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, "./walks/go").CombinedOutput(); err != nil {
		t.Fatalf("build the walk: %v\n%s", err, text)
	}
	runWalk(t, commonServer(t), "go", program)
}

// clients is where install.sh puts what no Debian package holds.
const clients = "../.cache/e2e"

func python(generation string) string {
	return filepath.Join(clients, "python"+generation, "bin", "python")
}

// runWalk runs a walk's program against the server, through a proxy that judges every answer.
func runWalk(t *testing.T, s *server, prefix string, command ...string) {
	t.Helper()
	target, err := url.Parse(s.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	var problems findings
	var judged atomic.Int64
	judge := shapetest.Proxy(target, problems.add)
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		judged.Add(1)
		judge.ServeHTTP(w, r)
	}))
	defer proxy.Close()
	runProgram(t, s, proxy.URL, prefix, command...)
	t.Logf("%d answers judged", judged.Load())
	for _, problem := range problems.list() {
		t.Error(problem)
	}
}

// runProgram runs a program that finds the server's services in its environment.
func runProgram(t *testing.T, s *server, endpoint, prefix string, command ...string) {
	t.Helper()
	if _, err := os.Stat(filepath.Join(clients, "javascript.installed")); err != nil {
		t.Fatalf("%v: run e2e/install.sh first", err)
	}
	modules, err := filepath.Abs(filepath.Join(clients, "javascript", "node_modules"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Env = slices.Concat(os.Environ(), s.environment(endpoint), []string{"WALK_PREFIX=" + prefix, "NODE_PATH=" + modules})
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a shell's children end with it
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 10 * time.Second
	text, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%s: %v\n%s\nend of the server's log:\n%s", strings.Join(command, " "), err, text, s.tail())
		return
	}
	t.Logf("%s", text)
}

// findings collects problems, each once, with how often it came.
type findings struct {
	mu     sync.Mutex
	counts map[string]int
}

func (f *findings) add(problem string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.counts == nil {
		f.counts = map[string]int{}
	}
	f.counts[problem]++
}

func (f *findings) list() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var lines []string
	for problem, n := range f.counts {
		lines = append(lines, fmt.Sprintf("%s (%d times)", problem, n))
	}
	slices.Sort(lines)
	return lines[:min(len(lines), 40)]
}
