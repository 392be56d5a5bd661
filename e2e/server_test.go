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
	"syscall"
	"testing"
	"time"

	"github.com/batchyard/batchyard/e2e/nodelogs"
)

// server is one `batchyard dev` process with storage and data of its own.
type server struct {
	ready
	binary  string
	command *exec.Cmd
	log     string // file with what it wrote to stderr
	folder  string
	logs    *nodelogs.Watch
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

// startDev starts a server as a developer does, with ports and data of its own. It ends with this
// process, should a test be killed.
func startDev() (*server, error) {
	s, err := newServer()
	if err != nil {
		return nil, err
	}
	stdout, stderr, err := s.start("dev", "--ephemeral", "--ci", "--data", s.dataFolder(),
		"--listen", "127.0.0.1:0", "--blob-listen", "127.0.0.1:0", "--nodes", "0")
	if err != nil {
		return nil, err
	}
	go io.Copy(io.Discard, stderr)
	line, err := firstLine(stdout, func(string) bool { return true })
	if err == nil {
		err = json.Unmarshal([]byte(line), &s.ready)
	}
	if err == nil && !s.Ready {
		err = fmt.Errorf("the server is not ready: %s", line)
	}
	if err != nil {
		return nil, errors.Join(err, s.stop(), errors.New(string(s.tail())))
	}
	return s, nil
}

// newServer finds the program and makes a folder for the server's data and log.
func newServer() (*server, error) {
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
	s := &server{binary: binary, folder: folder, log: filepath.Join(folder, "server.log")}
	if s.logs, err = nodelogs.Begin(s.dataFolder()); err != nil {
		return nil, err
	}
	return s, os.Chmod(folder, 0o711) // tasks of other users pass through it
}

// start starts the program. Both of what it prints must be read; what is read of stderr goes to
// the log as well.
func (s *server) start(arguments ...string) (stdout, stderr io.Reader, err error) {
	log, err := os.Create(s.log)
	if err != nil {
		return nil, nil, err
	}
	s.command = exec.CommandContext(context.Background(), s.binary, arguments...)
	if stdout, err = s.command.StdoutPipe(); err != nil {
		return nil, nil, err
	}
	if stderr, err = s.command.StderrPipe(); err != nil {
		return nil, nil, err
	}
	return stdout, io.TeeReader(stderr, log), s.command.Start()
}

// firstLine waits a minute at most for the first line that is wanted. It reads on behind it, so
// that the server never waits for a reader.
func firstLine(r io.Reader, wanted func(string) bool) (string, error) {
	found := make(chan string, 1)
	go func() {
		defer close(found)
		for lines := bufio.NewScanner(r); lines.Scan(); {
			if wanted(lines.Text()) {
				found <- lines.Text()
				wanted = func(string) bool { return false }
			}
		}
	}()
	select {
	case line, ok := <-found:
		if !ok {
			return "", errors.New("the server ended before it was ready")
		}
		return line, nil
	case <-time.After(time.Minute):
		return "", errors.New("the server is not ready after a minute")
	}
}

// stop ends the server as a service manager does, and waits for it.
func (s *server) stop() error {
	if err := s.command.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- s.command.Wait() }()
	select {
	case err := <-ended:
		return errors.Join(err, s.checkLogs(), os.RemoveAll(s.folder))
	case <-time.After(time.Minute):
		return errors.Join(errors.New("the server did not end within a minute"), s.command.Process.Kill())
	}
}

func (s *server) dataFolder() string { return filepath.Join(s.folder, "data") }

// checkLogs wants no panic in the logs of the server and of all nodes that there were.
func (s *server) checkLogs() error {
	_, panics, err := s.logs.End(s.log)
	for _, text := range panics {
		err = errors.Join(err, errors.New("a process has panicked: "+text))
	}
	return err
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
		common.server, common.err = startDev()
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
