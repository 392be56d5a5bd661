package e2e_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// server is one `batchyard dev` process with storage and data of its own.
type server struct {
	ready
	command *exec.Cmd
	stdin   io.Closer // the server ends when it is closed
	log     string    // file with what it wrote to stderr
	folder  string
}

// ready is the line a server prints once it serves.
type ready struct {
	Ready          bool
	Endpoint       string // plain HTTP
	HTTPSEndpoint  string `json:"httpsEndpoint"`
	BlobEndpoint   string
	Account        string
	AccountKey     string
	StorageAccount string
	StorageKey     string
	CAFile         string `json:"caFile"`
	DataDir        string
}

// startServer starts a server with the given arguments behind those every test needs.
func startServer(arguments ...string) (*server, error) {
	binary, err := filepath.Abs("../bin/batchyard")
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(binary); err != nil {
		return nil, fmt.Errorf("%w: run make build first", err)
	}
	folder, err := os.MkdirTemp("", "batchyard-e2e-")
	if err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(folder, "server.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	s := &server{folder: folder, log: log.Name()}
	s.command = exec.CommandContext(context.Background(), binary, append([]string{
		"dev", "--ephemeral", "--ci", "--data", filepath.Join(folder, "data"),
		"--listen", "127.0.0.1:0", "--blob-listen", "127.0.0.1:0", "--nodes", "0",
	}, arguments...)...)
	s.command.Stderr = log
	s.stdin, err = s.command.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := s.command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := s.command.Start(); err != nil {
		return nil, err
	}
	if err := s.await(stdout); err != nil {
		s.stop()
		return nil, fmt.Errorf("%w\n%s", err, s.tail())
	}
	return s, nil
}

// await reads the line that says the server is ready.
func (s *server) await(stdout io.Reader) error {
	line := make(chan []byte, 1)
	go func() {
		text, _ := bufio.NewReader(stdout).ReadBytes('\n')
		line <- text
	}()
	select {
	case text := <-line:
		if err := json.Unmarshal(text, &s.ready); err != nil {
			return fmt.Errorf("read the line of readiness %q: %w", text, err)
		}
		if !s.Ready {
			return fmt.Errorf("the server is not ready: %s", text)
		}
		return nil
	case <-time.After(time.Minute):
		return errors.New("the server is not ready after a minute")
	}
}

// stop ends the server as its user would who closes the terminal, and waits for it.
func (s *server) stop() error {
	s.stdin.Close()
	ended := make(chan error, 1)
	go func() { ended <- s.command.Wait() }()
	select {
	case err := <-ended:
		return errors.Join(err, os.RemoveAll(s.folder))
	case <-time.After(time.Minute):
		s.command.Process.Kill()
		return errors.New("the server did not end within a minute of its input")
	}
}

// tail is the end of the server's log.
func (s *server) tail() []byte {
	text, err := os.ReadFile(s.log)
	if err != nil {
		return []byte(err.Error())
	}
	const most = 16 << 10
	return text[max(0, len(text)-most):]
}

// environment is what the clients read to find the server, in names of their own makers.
func (s *server) environment(endpoint string) []string {
	return []string{
		"AZURE_BATCH_ENDPOINT=" + endpoint,
		"AZURE_BATCH_ACCOUNT=" + s.Account,
		"AZURE_BATCH_ACCESS_KEY=" + s.AccountKey,
		fmt.Sprintf("AZURE_STORAGE_CONNECTION_STRING=DefaultEndpointsProtocol=http;AccountName=%s;AccountKey=%s;BlobEndpoint=%s;",
			s.StorageAccount, s.StorageKey, s.BlobEndpoint),
		"REQUESTS_CA_BUNDLE=" + s.CAFile,
		"NODE_EXTRA_CA_CERTS=" + s.CAFile,
		"SSL_CERT_FILE=" + s.CAFile,
	}
}

// common is the server that all walks share: a walk keeps to names of its own, and two cores are
// busy enough with one.
var common struct {
	sync.Mutex
	server *server
	err    error
}

func commonServer(t *testing.T) *server {
	t.Helper()
	common.Lock()
	defer common.Unlock()
	if common.server == nil && common.err == nil {
		common.server, common.err = startServer()
	}
	if common.err != nil {
		t.Fatal(common.err)
	}
	return common.server
}

func TestMain(m *testing.M) {
	code := m.Run()
	if common.server != nil {
		if err := common.server.stop(); err != nil {
			fmt.Fprintln(os.Stderr, "stop the server:", err)
			code = 1
		}
	}
	os.Exit(code)
}
