package cli_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/batchyard/batchyard/auth"
	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/client"
)

// readiness is the line that dev --ci prints.
type readiness struct {
	Ready         bool
	Endpoint      string
	HTTPSEndpoint string `json:"httpsEndpoint"`
	BlobEndpoint  string
	Account       string
	AccountKey    string
	CAFile        string `json:"caFile"`
	DataDir       string
}

// startDev runs dev as a process of its own and waits for its line.
func startDev(t *testing.T, arguments ...string) (readiness, *exec.Cmd) {
	t.Helper()
	folder, err := os.MkdirTemp("", "batchyard-cli-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	if err := os.Chmod(folder, 0o711); err != nil {
		t.Fatal(err)
	}
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// testscript makes the test program answer to the name batchyard.
	program := filepath.Join(folder, "batchyard")
	if err := os.Symlink(executable, program); err != nil {
		t.Fatal(err)
	}
	command := exec.CommandContext(t.Context(), program, append([]string{
		"dev", "--ci", "--ephemeral", "--data", folder, "--listen", "127.0.0.1:0", "--blob-listen", "127.0.0.1:0",
	}, arguments...)...)
	command.Cancel = func() error { return command.Process.Signal(syscall.SIGTERM) }
	command.Stderr = t.Output()
	stdout, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = command.Process.Signal(syscall.SIGTERM)
		_ = command.Wait()
	})
	line, err := bufio.NewReader(stdout).ReadBytes('\n')
	if err != nil {
		t.Fatalf("dev prints no line: %v", err)
	}
	var r readiness
	if err := json.Unmarshal(line, &r); err != nil {
		t.Fatalf("dev prints %s: %v", line, err)
	}
	return r, command
}

func get(t *testing.T, caller *http.Client, url string) string {
	t.Helper()
	return getAs(t, caller, url, "*/*")
}

func getAs(t *testing.T, caller *http.Client, url, accept string) string {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Accept", accept)
	response, err := caller.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func TestDevServesBothProtocolsOnOnePortAndRunsATask(t *testing.T) {
	t.Parallel()
	r, command := startDev(t, "--nodes", "1")

	if got := get(t, http.DefaultClient, r.Endpoint+"/healthz"); got != "ok\n" {
		t.Errorf("/healthz over HTTP answers %q", got)
	}
	if page := get(t, http.DefaultClient, r.Endpoint+"/"); !strings.Contains(page, `"code":"InvalidUri"`) {
		t.Errorf("/ answers a client of the protocol with %q", page)
	}
	if page := getAs(t, http.DefaultClient, r.Endpoint+"/", "text/html"); !strings.Contains(page, "<td class=\"id\">local</td>") {
		t.Errorf("/ answers a browser with %q", page)
	}
	authority, err := os.ReadFile(r.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(authority)
	trusting := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}}
	if got := get(t, trusting, r.HTTPSEndpoint+"/readyz"); got != "ready\n" {
		t.Errorf("/readyz over HTTPS answers %q", got)
	}
	key, err := auth.ParseKey(r.AccountKey)
	if err != nil {
		t.Fatal(err)
	}
	c := &client.Client{Endpoint: r.Endpoint, Account: r.Account, Key: key}
	if err := c.AddJob(t.Context(), "job", "local"); err != nil {
		t.Fatal(err)
	}
	if err := c.AddTask(t.Context(), "job", map[string]any{"id": "task", "commandLine": "/bin/sh -c 'echo hello; exit 3'"}); err != nil {
		t.Fatal(err)
	}
	task := awaitTask(t, c)
	if code := task.ExecutionInfo.ExitCode; code == nil || *code != 3 {
		t.Errorf("the task ended with %+v", task.ExecutionInfo)
	}
	text, err := c.TaskFile(t.Context(), "job", "task", "stdout.txt")
	if err != nil || string(text) != "hello\n" {
		t.Errorf("stdout.txt is %q, %v", text, err)
	}

	metrics := get(t, http.DefaultClient, r.Endpoint+"/metrics")
	for _, name := range []string{
		`batchyard_api_requests_total{operation="POST jobs",status="201"} 1`, `batchyard_control_task_runs_total{result="failure"} 1`,
		"batchyard_scheduler_", "batchyard_blob_",
	} {
		if !strings.Contains(metrics, "\n"+name) {
			t.Errorf("/metrics has no %s", name)
		}
	}
	for _, name := range []string{
		"batchyard_store_commits_total", "batchyard_store_updates_total", "batchyard_store_statements_total",
		`batchyard_control_tasks_carried_total{in="reports"}`, `batchyard_control_tasks_carried_total{in="orders"}`,
	} {
		_, after, _ := strings.Cut(metrics, "\n"+name+" ")
		value, _, _ := strings.Cut(after, "\n")
		if n, err := strconv.ParseFloat(value, 64); err != nil || n < 1 {
			t.Errorf("/metrics has %q for %s, wanted a count", value, name)
		}
	}

	if err := command.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := command.Wait(); err != nil {
		t.Errorf("dev stops with %v", err)
	}
	if _, err := os.Stat(r.DataDir); !os.IsNotExist(err) {
		t.Errorf("an ephemeral dev leaves its data: %v", err)
	}
}

func awaitTask(t *testing.T, c *client.Client) client.Task {
	t.Helper()
	var task client.Task
	err := client.WaitFor(t.Context(), func(ctx context.Context) (bool, error) {
		var err error
		task, err = c.Task(ctx, "job", "task")
		return task.State == batch.TaskCompleted, err
	})
	if err != nil {
		t.Fatal(err)
	}
	return task
}

// A name that leads to loopback is not loopback: a web page may have it.
func TestDevAnswersToLoopbackNamesOnly(t *testing.T) {
	t.Parallel()
	r, _ := startDev(t, "--nodes", "0", "--debug-listen", "127.0.0.1:0")
	ask := func(address, path, host string) (int, string) {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Host = host
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		return response.StatusCode, string(body)
	}
	storage, _, _ := strings.Cut(strings.TrimPrefix(r.BlobEndpoint, "http://"), "/")
	for _, port := range []struct{ address, path, code string }{
		{r.Endpoint, "/healthz", `"code":"Forbidden"`}, {r.Endpoint, "/pools?api-version=2024-07-01.20.0", `"code":"Forbidden"`},
		{r.Endpoint, "/metrics", `"code":"Forbidden"`}, {"http://" + storage, "/devstoreaccount1?comp=list", "<Code>AuthorizationFailure</Code>"},
	} {
		for _, host := range []string{"evil.example", "evil.example:8443", "127.0.0.1.evil.example", "localhost.evil.example", "notlocalhost", "10.0.0.1", "[::2]:80"} {
			if status, body := ask(port.address, port.path, host); status != http.StatusForbidden || !strings.Contains(body, port.code) || !strings.Contains(body, "localhost") {
				t.Errorf("%s as %s: %d %s", port.path, host, status, body)
			}
		}
		for _, host := range []string{"localhost", "LOCALHOST:1", "localhost.", "devstoreaccount1.localhost:10000", "127.0.0.1", "127.8.9.1:5", "[::1]", "[::1]:8443"} {
			if _, body := ask(port.address, port.path, host); strings.Contains(body, "localhost, names below it") {
				t.Errorf("%s as %s: %s", port.path, host, body)
			}
		}
	}
	if status, body := ask(r.Endpoint, "/healthz", "localhost"); status != http.StatusOK || body != "ok\n" {
		t.Errorf("/healthz as localhost: %d %s", status, body)
	}
}

// The debug socket is its owner's alone: no task reaches what is behind it.
func TestDebugSocket(t *testing.T) {
	t.Parallel()
	folder, err := os.MkdirTemp("", "batchyard-debug-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	if err := os.Chmod(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(folder, "debug.sock")
	if stale, err := net.Listen("unix", path); err != nil {
		t.Fatal(err)
	} else {
		stale.(*net.UnixListener).SetUnlinkOnClose(false)
		stale.Close()
	}
	r, _ := startDev(t, "--nodes", "1", "--debug-listen", path)
	caller := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}}}
	if got := get(t, caller, "http://localhost/debug/pprof/"); !strings.Contains(got, "heap") {
		t.Errorf("its owner reads %.100q", got)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket is %v, %v", info.Mode(), err)
	}
	if os.Geteuid() != 0 {
		return // tasks run as this user
	}
	key, err := auth.ParseKey(r.AccountKey)
	if err != nil {
		t.Fatal(err)
	}
	c := &client.Client{Endpoint: r.Endpoint, Account: r.Account, Key: key}
	script := "python3 -c 'import socket; socket.socket(socket.AF_UNIX).connect(\"" + path + "\")' 2>&1 | grep -E 'PermissionError|FileNotFoundError|not found'"
	for _, err := range []error{
		c.AddJob(t.Context(), "job", "local"),
		c.AddTask(t.Context(), "job", map[string]any{"id": "task", "commandLine": "/bin/sh -c \"" + strings.ReplaceAll(strings.ReplaceAll(script, "\\", "\\\\"), "\"", "\\\"") + "\""}),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if task := awaitTask(t, c); task.ExecutionInfo.ExitCode == nil || *task.ExecutionInfo.ExitCode != 0 {
		t.Errorf("a task that connects ended with %+v", task.ExecutionInfo)
	}
}
