package cli_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/batchyard/batchyard/auth"
	"github.com/batchyard/batchyard/client"
)

// process is a server of its own, with its log.
type process struct {
	t       *testing.T
	command *exec.Cmd
	ready   chan struct{} // closed when it may be called, or has ended
	ended   chan struct{} // closed when it has ended
	log     []logLine     // read when ended is closed, or in up to the line that said ready
	err     error         // how it ended
	stdout  io.Reader

	API, Storage, Authority string
	Listen                  string // the port of the API
}

// logLine is a line of a server's log; text is all of it.
type logLine struct {
	Msg, API, Storage, Authority, Listen string
	Text                                 string `json:"-"`
}

// dataFolder is a folder that the users of tasks can pass.
func dataFolder(t *testing.T) string {
	t.Helper()
	folder, err := os.MkdirTemp("", "batchyard-cli-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	if err := os.Chmod(folder, 0o711); err != nil {
		t.Fatal(err)
	}
	return folder
}

// batchyard is the program: testscript makes the test program answer to that
// name.
func batchyard(t *testing.T) string {
	t.Helper()
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "batchyard")
	if err := os.Symlink(executable, program); err != nil {
		t.Fatal(err)
	}
	return program
}

// accountsOf are the parts of a configuration that name accounts.
func accountsOf(batch, storage map[string]auth.Key) string {
	var text strings.Builder
	for part, accounts := range map[string]map[string]auth.Key{"accounts": batch, "storage": storage} {
		for name, key := range accounts {
			fmt.Fprintf(&text, "[[%s]]\nname = %q\nkey1 = %q\n", part, name, key.Base64())
		}
	}
	return text.String()
}

// startServer runs a server with a configuration, beside what any test needs.
func startServer(t *testing.T, folder, configuration string) *process {
	t.Helper()
	path := filepath.Join(t.TempDir(), "server.toml")
	text := fmt.Sprintf("data = %q\nlisten = {api = '127.0.0.1:0', blob = '127.0.0.1:0'}\nlog = {format = 'json'}\n%s", folder, configuration)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return startProcess(t, "server", "--config", path)
}

func startProcess(t *testing.T, arguments ...string) *process {
	t.Helper()
	p := &process{t: t, ready: make(chan struct{}), ended: make(chan struct{})}
	p.command = exec.CommandContext(context.WithoutCancel(t.Context()), batchyard(t), arguments...)
	log, err := p.command.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if p.stdout, err = p.command.StdoutPipe(); err != nil {
		t.Fatal(err)
	}
	if err := p.command.Start(); err != nil {
		t.Fatal(err)
	}
	go p.follow(log)
	t.Cleanup(func() { _ = p.stop(syscall.SIGKILL) })
	return p
}

// follow reads the log until the server has ended.
func (p *process) follow(log io.Reader) {
	said := false
	lines := bufio.NewScanner(log)
	for lines.Scan() {
		line := logLine{Text: lines.Text()}
		_ = json.Unmarshal(lines.Bytes(), &line) // the last word of a program is no JSON
		p.log = append(p.log, line)
		if line.Msg == "server ready" && !said {
			said = true
			p.API, p.Storage, p.Authority = line.API, "https://"+line.Storage, line.Authority
			p.Listen = line.Listen
			close(p.ready)
		}
	}
	p.err = p.command.Wait()
	if !said {
		close(p.ready)
	}
	close(p.ended)
}

// await wants the server to be ready.
func (p *process) await() *process {
	p.t.Helper()
	<-p.ready
	if p.API == "" {
		<-p.ended
		p.t.Fatalf("server ends with %v:\n%s", p.err, p.text())
	}
	return p
}

// awaitDev wants dev to say that it is up.
func (p *process) awaitDev() {
	p.t.Helper()
	if line, err := bufio.NewReader(p.stdout).ReadString('\n'); err != nil || line != "Batchyard is up.\n" {
		p.t.Fatalf("dev says %q, %v", line, err)
	}
}

// refused wants the server to end by itself with an error, and gives what it
// said.
func (p *process) refused() string {
	p.t.Helper()
	<-p.ready
	if p.API != "" {
		p.t.Fatalf("server starts and should not")
	}
	<-p.ended
	if p.err == nil {
		p.t.Errorf("server ends without an error")
	}
	return p.text()
}

func (p *process) stop(signal os.Signal) error {
	_ = p.command.Process.Signal(signal)
	<-p.ended
	return p.err
}

// text is the whole log of a server that has ended.
func (p *process) text() string {
	var all strings.Builder
	for _, line := range p.log {
		all.WriteString(line.Text + "\n")
	}
	return all.String()
}

// caller trusts the server.
func (p *process) caller() *http.Client {
	p.t.Helper()
	authority, err := os.ReadFile(p.Authority)
	if err != nil {
		p.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(authority)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}
	p.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// account calls the API as an account.
func (p *process) account(name string, key auth.Key) *client.Client {
	p.t.Helper()
	return &client.Client{Endpoint: p.API, Account: name, Key: key, HTTP: p.caller()}
}
