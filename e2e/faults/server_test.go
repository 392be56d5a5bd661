package faults_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/batchyard/batchyard/auth"
	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/client"
	"github.com/batchyard/batchyard/e2e/nodelogs"
)

// patience is more than anything here takes on a busy machine.
const patience = 2 * time.Minute

// server is a `batchyard server` process that may be stopped, killed and started again. Its
// address, key and data stay the same.
type server struct {
	*client.Client
	folder  string // holds configuration, log and data
	data    string
	program string
	storage string // address of the storage endpoint
	key     auth.Key
	pools   []batch.PoolID

	logs      *nodelogs.Watch
	transport *http.Transport
	command   *exec.Cmd
	ended     chan struct{} // closed when the process has ended
}

// options of a server.
type options struct {
	database string // SQLite in the data folder if empty
	lease    time.Duration
}

const (
	canary         = "canary-of-the-server"
	storageAccount = "acmestore" // with the key of the Batch account
)

// newServer starts a server and ends it with the test, which fails if anything of the server's
// nodes is left.
func newServer(t *testing.T, o options) *server {
	t.Helper()
	program, err := filepath.Abs("../../bin/batchyard")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(program); err != nil {
		t.Fatalf("%v: run make build first", err)
	}
	key := make([]byte, 64)
	rand.Read(key)
	s := &server{folder: openFolder(t), program: program, transport: &http.Transport{MaxIdleConnsPerHost: 16}}
	s.data, s.storage, s.key = filepath.Join(s.folder, "data"), freePort(t), parseKey(t, key)
	s.Client = &client.Client{Endpoint: "https://" + freePort(t), Account: "acme", Key: s.key, HTTP: &http.Client{Transport: s.transport}}
	s.configure(t, o, base64.StdEncoding.EncodeToString(key))
	if s.logs, err = nodelogs.Begin(s.data); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.cleanUp(t) })
	s.start(t)
	return s
}

// openFolder is a folder that tasks of other users can pass, on a disk: /tmp may be memory.
func openFolder(t *testing.T) string {
	t.Helper()
	folder, err := os.MkdirTemp("/var/tmp", "batchyard-faults-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(folder, 0o711); err != nil {
		t.Fatal(err)
	}
	return folder
}

// freePort is an address that was free a moment ago.
func freePort(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

func parseKey(t *testing.T, key []byte) auth.Key {
	t.Helper()
	parsed, err := auth.ParseKey(base64.StdEncoding.EncodeToString(key))
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

func (s *server) configure(t *testing.T, o options, key string) {
	t.Helper()
	if o.lease == 0 {
		o.lease = time.Minute
	}
	text := fmt.Sprintf(`
		data = %q
		database = %q
		listen = {api = %q, blob = %q}
		nodes = {lease = %q, show = ["/var/tmp"]} # where tests and tasks meet
		[[accounts]]
		name = %q
		key1 = %q
		[[storage]]
		name = %q
		key1 = %q
		`, s.data, o.database, strings.TrimPrefix(s.Endpoint, "https://"), s.storage, o.lease, s.Account, key, storageAccount, key)
	if err := os.WriteFile(s.configFile(), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (s *server) configFile() string { return filepath.Join(s.folder, "server.toml") }

// says tells whether the server's log has a text.
func (s *server) says(t *testing.T, text string) bool {
	t.Helper()
	log, err := os.ReadFile(s.logFile())
	if err != nil {
		t.Fatal(err)
	}
	return strings.Contains(string(log), text)
}

func (s *server) logFile() string { return filepath.Join(s.folder, "server.log") }

// start starts the server and waits until it serves.
func (s *server) start(t *testing.T) {
	t.Helper()
	s.launch(t)
	await(t, "the server serves", func(ctx context.Context) (bool, error) { return true, s.ready(ctx) })
}

// launch starts the server.
func (s *server) launch(t *testing.T) {
	t.Helper()
	log, err := os.OpenFile(s.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	s.command = exec.CommandContext(context.WithoutCancel(t.Context()), s.program, "server", "--config", s.configFile())
	s.command.Stdout, s.command.Stderr = log, log
	s.command.Env = append(os.Environ(), "BATCHYARD_CANARY="+canary)
	if err := s.command.Start(); err != nil {
		t.Fatal(err)
	}
	command, ended := s.command, make(chan struct{})
	s.ended = ended
	go func() {
		_ = command.Wait() // a server that was killed has no other way to end
		close(ended)
	}()
}

// ready returns nil when the server serves.
func (s *server) ready(ctx context.Context) error {
	select {
	case <-s.ended:
		return &batch.Error{Code: batch.CodeInternalError, Message: "the server has ended"}
	default:
	}
	if s.transport.TLSClientConfig == nil {
		authority, err := os.ReadFile(filepath.Join(s.data, "tls", "ca.pem"))
		if err != nil {
			return err
		}
		trusted := x509.NewCertPool()
		if !trusted.AppendCertsFromPEM(authority) {
			return errors.New("the authority is not written yet")
		}
		s.transport.TLSClientConfig = &tls.Config{RootCAs: trusted, MinVersion: tls.VersionTLS12}
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.Endpoint+"/readyz", nil)
	if err != nil {
		return err
	}
	response, err := s.HTTP.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("the server is not ready: %s", response.Status)
	}
	return nil
}

// stop ends the server as a service manager does, and wants it to go in peace.
func (s *server) stop(t *testing.T) {
	t.Helper()
	s.end(t, syscall.SIGTERM)
	if code := s.command.ProcessState.ExitCode(); code != 0 {
		t.Errorf("server stopped with code %d", code)
	}
}

// kill ends the server as a crash does.
func (s *server) kill(t *testing.T) {
	t.Helper()
	s.end(t, syscall.SIGKILL)
}

func (s *server) end(t *testing.T, signal syscall.Signal) {
	t.Helper()
	if err := s.command.Process.Signal(signal); err != nil {
		t.Fatalf("send %v to the server: %v", signal, err)
	}
	select {
	case <-s.ended:
	case <-time.After(patience):
		t.Fatalf("the server did not end after %v", signal)
	}
	s.transport.CloseIdleConnections()
}

// cleanUp deletes the pools, ends the server and removes its folder.
func (s *server) cleanUp(t *testing.T) {
	t.Helper()
	if t.Failed() {
		t.Log(s.tails())
	}
	select {
	case <-s.ended:
		t.Error("the server has ended")
	default:
		if s.command == nil || s.command.Process == nil {
			break // it has never begun
		}
		s.leave(t)
		s.stop(t)
	}
	s.checkLogs(t)
	for _, pid := range s.nodeProcesses() {
		if !t.Failed() {
			t.Errorf("process %d of a node is left when its pool is gone", pid)
		}
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	if err := os.RemoveAll(s.folder); err != nil {
		t.Error(err)
	}
}

// checkLogs wants no panic in the logs of the server and of all nodes that there were.
func (s *server) checkLogs(t *testing.T) {
	t.Helper()
	seen, panics, err := s.logs.End(s.logFile())
	if err != nil {
		t.Errorf("read logs: %v", err)
	}
	if len(s.pools) > 0 && seen == 0 {
		t.Error("no log of a node was seen")
	}
	for _, text := range panics {
		t.Errorf("a process has panicked: %s", text)
	}
}

// leave deletes the pools and waits until nothing is left of their nodes. The test's own context
// has ended by then.
func (s *server) leave(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
	defer cancel()
	for _, pool := range s.pools {
		if err := s.DeletePool(ctx, pool); err != nil && batch.CodeOf(err) != batch.CodePoolNotFound {
			t.Errorf("delete pool %s: %v", pool, err)
		}
	}
	err := poll(ctx, func(context.Context) (bool, error) {
		entries, err := os.ReadDir(filepath.Join(s.data, "nodes"))
		return len(entries) == 0 && len(s.nodeProcesses()) == 0, err
	})
	if err != nil && !t.Failed() {
		t.Errorf("nodes of deleted pools are still there: %v\n%s", err, s.tails())
	}
}

// tails are the ends of all logs.
func (s *server) tails() string {
	files, _ := filepath.Glob(filepath.Join(s.data, "nodes", "*", "state", "agent.log"))
	keepers, _ := filepath.Glob(filepath.Join(s.data, "nodes", "*", "state", "keeper", "keeper.log"))
	var all strings.Builder
	for _, file := range append(append([]string{s.logFile()}, files...), keepers...) {
		text, err := os.ReadFile(file)
		if err != nil {
			text = []byte(err.Error())
		}
		lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
		fmt.Fprintf(&all, "end of %s:\n%s\n", file, bytes.Join(lines[max(0, len(lines)-25):], []byte("\n")))
	}
	return all.String()
}

// await waits until done says so and fails the test if it does not within patience.
func await(t *testing.T, what string, done func(context.Context) (bool, error)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := poll(ctx, done); err != nil {
		t.Fatalf("waiting until %s: %v", what, err)
	}
}

// poll asks until done says so. An error that the service gave ends it; others are of a server
// that is not there at the moment.
func poll(ctx context.Context, done func(context.Context) (bool, error)) error {
	for pause := 10 * time.Millisecond; ; pause = min(pause*3/2, 200*time.Millisecond) {
		ok, err := done(ctx)
		if refused, known := errors.AsType[*batch.Error](err); known && refused.Code != batch.CodeServerBusy {
			return err
		}
		if ok && err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-time.After(pause):
		}
	}
}
