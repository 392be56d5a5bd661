package hostile_test

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

const (
	// patience is more than anything here takes on a busy machine.
	patience = 2 * time.Minute
	// prompt is how long an answer may take that needs no work; a request that hangs takes longer.
	prompt = 25 * time.Second
	// canary is in files that no answer may hold anything of.
	canary = "canary-of-the-server"

	batchAccount   = "acme"
	rivalAccount   = "rival"
	storageAccount = "acmestore"
)

// server is a `batchyard server` process with an account and a storage account.
type server struct {
	*client.Client
	folder     string // holds configuration, log and data
	data       string
	storage    string // scheme and host of the storage endpoint
	storageKey auth.Key
	authority  *x509.CertPool

	logs    *nodelogs.Watch
	user    *syscall.SysProcAttr
	command *exec.Cmd
	ended   chan struct{} // closed when the process has ended
	pools   []batch.PoolID
}

// newServer starts a server, on SQLite if database is empty, and ends it with the test.
func newServer(t *testing.T, database string) *server {
	t.Helper()
	return newServerOf(t, database, nil)
}

// newServerOf starts a server as another user, whose tasks may fetch from some hosts of the machine.
func newServerOf(t *testing.T, database string, user *syscall.SysProcAttr, hosts ...string) *server {
	t.Helper()
	return newServerIn(t, openFolder(t), "/var/tmp", database, user, hosts...)
}

// newServerIn starts a server with all it has in a folder, and another that nodes see as it is, where
// tests and tasks meet.
func newServerIn(t *testing.T, folder, show, database string, user *syscall.SysProcAttr, hosts ...string) *server {
	t.Helper()
	s := &server{user: user, folder: folder, ended: make(chan struct{}), storageKey: newKey(t)}
	s.data = filepath.Join(s.folder, "data")
	s.storage = "https://" + freePort(t)
	s.Client = &client.Client{
		Endpoint: "https://" + freePort(t), Account: batchAccount, Key: newKey(t),
		HTTP: &http.Client{Timeout: prompt, Transport: &http.Transport{MaxIdleConnsPerHost: 8}, CheckRedirect: noRedirect},
	}
	text := fmt.Sprintf(`
		data = %q
		database = %q
		listen = {api = %q, blob = %q}
		fetch = {allow = [%s]}
		nodes = {show = [%q]}
		[[accounts]]
		name = %q
		key1 = %q
		[[accounts]]
		name = %q
		key1 = %q
		[[storage]]
		name = %q
		key1 = %q
		`, s.data, database, strings.TrimPrefix(s.Endpoint, "https://"), strings.TrimPrefix(s.storage, "https://"), quoted(hosts), show,
		rivalAccount, base64.StdEncoding.EncodeToString(s.Key), batchAccount, base64.StdEncoding.EncodeToString(s.Key), storageAccount, base64.StdEncoding.EncodeToString(s.storageKey))
	if err := os.WriteFile(s.configFile(), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.folder, "canary"), []byte(canary), 0o644); err != nil {
		t.Fatal(err)
	}
	if user != nil {
		for _, name := range []string{s.folder, s.configFile()} {
			if err := os.Chown(name, int(user.Credential.Uid), int(user.Credential.Gid)); err != nil {
				t.Fatal(err)
			}
		}
	}
	logs, err := nodelogs.Begin(s.data)
	if err != nil {
		t.Fatal(err)
	}
	s.logs = logs
	t.Cleanup(func() { s.cleanUp(t) })
	s.start(t)
	return s
}

func quoted(texts []string) string {
	var all []string
	for _, text := range texts {
		all = append(all, fmt.Sprintf("%q", text))
	}
	return strings.Join(all, ",")
}

// databases runs a test on SQLite and, if there is one, on PostgreSQL: it takes less for text than
// SQLite does.
func databases(t *testing.T, test func(t *testing.T, s *server)) {
	t.Helper()
	t.Run("on SQLite", func(t *testing.T) {
		t.Parallel()
		test(t, newServer(t, ""))
	})
	t.Run("on PostgreSQL", func(t *testing.T) {
		t.Parallel()
		database := os.Getenv("BATCHYARD_TEST_POSTGRES")
		if database == "" {
			t.Skip("BATCHYARD_TEST_POSTGRES names no database; make test-e2e starts one")
		}
		test(t, newServer(t, schema(t, database)))
	})
}

func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// openFolder is a folder that tasks of other users can pass, on a disk.
func openFolder(t *testing.T) string {
	t.Helper()
	folder, err := os.MkdirTemp("/var/tmp", "batchyard-hostile-")
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

func newKey(t *testing.T) auth.Key {
	t.Helper()
	text := make([]byte, 64)
	rand.Read(text)
	key, err := auth.ParseKey(base64.StdEncoding.EncodeToString(text))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (s *server) configFile() string { return filepath.Join(s.folder, "server.toml") }
func (s *server) logFile() string    { return filepath.Join(s.folder, "server.log") }

// start starts the server and waits until it serves.
func (s *server) start(t *testing.T) {
	t.Helper()
	program, err := filepath.Abs("../../bin/batchyard")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(program); err != nil {
		t.Fatalf("%v: run make build first", err)
	}
	if s.user != nil {
		program = copyProgram(t, program, filepath.Join(s.folder, "batchyard")) // where that user can reach it
	}
	log, err := os.OpenFile(s.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	s.command = exec.CommandContext(context.WithoutCancel(t.Context()), program, "server", "--config", s.configFile())
	s.command.Stdout, s.command.Stderr, s.command.SysProcAttr = log, log, s.user
	s.command.Env = append(os.Environ(), "BATCHYARD_CANARY="+canary)
	if err := s.command.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = s.command.Wait() // how it ended is asked later
		close(s.ended)
	}()
	s.await(t, "the server serves", func(ctx context.Context) (bool, error) { return true, s.ready(ctx) })
}

// ready returns nil when the server serves.
func (s *server) ready(ctx context.Context) error {
	select {
	case <-s.ended:
		return &batch.Error{Code: batch.CodeInternalError, Message: "the server has ended"}
	default:
	}
	if s.authority == nil {
		text, err := os.ReadFile(filepath.Join(s.data, "tls", "ca.pem"))
		if err != nil {
			return err
		}
		s.authority = x509.NewCertPool()
		if !s.authority.AppendCertsFromPEM(text) {
			s.authority = nil
			return errors.New("the authority is not written yet")
		}
		s.HTTP.Transport.(*http.Transport).TLSClientConfig = s.tls()
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

func (s *server) tls() *tls.Config {
	return &tls.Config{RootCAs: s.authority, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}
}

// cleanUp deletes the pools, ends the server, and wants it to have met nothing that it did not
// expect.
func (s *server) cleanUp(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
	defer cancel()
	select {
	case <-s.ended:
		t.Error("the server has ended")
	default:
		if s.command == nil || s.command.Process == nil {
			break // it has never begun
		}
		s.leave(t, ctx)
		_ = s.command.Process.Signal(syscall.SIGTERM)
		select {
		case <-s.ended:
		case <-ctx.Done():
			t.Error("the server does not stop")
			_ = s.command.Process.Kill()
			<-s.ended
		}
	}
	s.checkLog(t)
	s.checkNodeLogs(t)
	if t.Failed() {
		t.Log(s.tails())
	}
	if err := os.RemoveAll(s.folder); err != nil {
		t.Error(err)
	}
}

// leave deletes the pools and waits until nothing is left of their nodes.
func (s *server) leave(t *testing.T, ctx context.Context) {
	t.Helper()
	for _, pool := range s.pools {
		if err := s.DeletePool(ctx, pool); err != nil && batch.CodeOf(err) != batch.CodePoolNotFound {
			t.Errorf("delete pool %s: %v", pool, err)
		}
	}
	err := poll(ctx, func(context.Context) (bool, error) {
		entries, err := os.ReadDir(filepath.Join(s.data, "nodes"))
		return len(entries) == 0, err
	})
	if err != nil {
		t.Errorf("nodes of deleted pools are still there: %v", err)
	}
}

// checkLog wants no line of the server's log at the level of errors, and none that tells a secret.
func (s *server) checkLog(t *testing.T) {
	t.Helper()
	text, err := os.ReadFile(s.logFile())
	if err != nil {
		t.Error(err)
	}
	for line := range bytes.Lines(text) {
		if bytes.Contains(line, []byte("level=ERROR")) || bytes.Contains(line, []byte("panic")) {
			t.Errorf("the server's log tells of what it did not expect:\n%s", line)
		}
	}
	for _, secret := range []auth.Key{s.Key, s.storageKey} {
		if bytes.Contains(text, []byte(base64.StdEncoding.EncodeToString(secret))) {
			t.Error("the server's log has an account key")
		}
	}
}

// checkNodeLogs wants no panic in the logs of all nodes that there were.
func (s *server) checkNodeLogs(t *testing.T) {
	t.Helper()
	seen, panics, err := s.logs.End()
	if err != nil {
		t.Errorf("read logs: %v", err)
	}
	if len(s.pools) > 0 && seen == 0 {
		t.Error("no log of a node was seen")
	}
	for _, text := range panics {
		t.Errorf("a process of a node has panicked: %s", text)
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
func (s *server) await(t *testing.T, what string, done func(context.Context) (bool, error)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := poll(ctx, done); err != nil {
		t.Fatalf("waiting until %s: %v", what, err)
	}
}

// poll asks until done says so. An error that the service gave ends it; others are of a server that
// is not there yet.
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
