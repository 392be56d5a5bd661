package storage_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/batchyard/batchyard/auth"
)

// patience is more than anything here takes on a busy machine.
const patience = time.Minute

// server is a `batchyard dev` process. Its keys are public and it speaks HTTP, in which strace can
// see who is answered.
type server struct {
	command *exec.Cmd
	lines   io.Closer
	ended   chan struct{}
	http    *http.Client

	Endpoint     string `json:"endpoint"`
	BlobEndpoint string `json:"blobEndpoint"`
	Account      string `json:"account"`
	Key          string `json:"accountKey"`
	BlobAccount  string `json:"storageAccount"`
	BlobKey      string `json:"storageKey"`
	PID          int    `json:"pid"`
}

func program(t *testing.T) string {
	t.Helper()
	name, err := filepath.Abs("../../bin/batchyard")
	if err == nil {
		_, err = os.Stat(name)
	}
	if err != nil {
		t.Fatalf("%v: run make build first", err)
	}
	return name
}

// launch starts a server with so many nodes over a data folder; before are words in front of its
// command line.
func launch(ctx context.Context, program, data string, nodes int, log io.Writer, before ...string) (*server, error) {
	line := append(before, program, "dev", "--ci", "--data", data, "--nodes", strconv.Itoa(nodes),
		"--listen", "127.0.0.1:0", "--blob-listen", "127.0.0.1:0")
	s := &server{command: exec.CommandContext(ctx, line[0], line[1:]...), ended: make(chan struct{})}
	s.http = &http.Client{Transport: &http.Transport{}, Timeout: patience}
	s.command.Stderr = log
	output, err := s.command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := s.command.Start(); err != nil {
		return nil, err
	}
	s.lines = output
	text, err := bufio.NewReader(output).ReadBytes('\n')
	go func() {
		_ = s.command.Wait() // it may be killed
		close(s.ended)
	}()
	if err == nil {
		err = json.Unmarshal(text, s)
	}
	if err != nil {
		s.PID = s.command.Process.Pid
		return nil, errors.Join(fmt.Errorf("server did not begin: %w", err), s.end(syscall.SIGKILL))
	}
	return s, nil
}

// end ends the server by a signal.
func (s *server) end(signal syscall.Signal) error {
	s.http.CloseIdleConnections()
	if err := syscall.Kill(s.PID, signal); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	select {
	case <-s.ended:
		return nil
	case <-time.After(patience):
		return fmt.Errorf("the server did not end after %v", signal)
	}
}

// request is a call of the API or, if its path begins with the storage account, of storage.
type request struct {
	method string
	path   string // with its query
	body   string
	header map[string]string
}

// send sends a request; id names it in the record.
func (s *server) send(ctx context.Context, q request, id string) (int, []byte, http.Header, error) {
	storage := strings.HasPrefix(q.path, "/"+s.BlobAccount+"/")
	base, account, secret := s.Endpoint, s.Account, s.Key
	if storage {
		base, account, secret = strings.TrimSuffix(s.BlobEndpoint, "/"+s.BlobAccount), s.BlobAccount, s.BlobKey
	}
	r, err := http.NewRequestWithContext(ctx, q.method, base+q.path, strings.NewReader(q.body))
	if err != nil {
		return 0, nil, nil, err
	}
	for name, value := range q.header {
		r.Header.Set(name, value)
	}
	key, err := auth.ParseKey(secret)
	if err != nil {
		return 0, nil, nil, err
	}
	if storage {
		r.Header.Set("X-Ms-Version", "2021-12-02")
		r.Header.Set("X-Ms-Client-Request-Id", id)
		err = auth.SignBlob(r, account, key, time.Now())
	} else {
		if q.body != "" {
			r.Header.Set("Content-Type", "application/json; odata=minimalmetadata")
		}
		r.Header.Set("Client-Request-Id", id)
		r.Header.Set("Return-Client-Request-Id", "true")
		err = auth.SignBatch(r, account, key, time.Now())
	}
	if err != nil {
		return 0, nil, nil, err
	}
	response, err := s.http.Do(r)
	if err != nil {
		return 0, nil, nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return response.StatusCode, body, response.Header, err
}

// get reads, and wants success or that there is no such thing.
func (s *server) get(ctx context.Context, path string) (body []byte, header http.Header, found bool, err error) {
	status, body, header, err := s.send(ctx, request{method: http.MethodGet, path: path}, "get")
	if err == nil && status != http.StatusOK && status != http.StatusNotFound {
		err = fmt.Errorf("GET %s: %d %.500s", path, status, body)
	}
	return body, header, status == http.StatusOK, err
}

// list follows a list of the API to its end.
func list[T any](ctx context.Context, s *server, path string) ([]T, error) {
	var all []T
	for path != "" {
		body, _, found, err := s.get(ctx, path)
		if err != nil || !found {
			return all, err
		}
		var page struct {
			Value []T    `json:"value"`
			Next  string `json:"odata.nextLink"`
		}
		if err := json.Unmarshal(body, &page); err != nil {
			return nil, err
		}
		all, path = append(all, page.Value...), ""
		if page.Next != "" {
			next, err := url.Parse(page.Next)
			if err != nil {
				return nil, err
			}
			path = next.RequestURI()
		}
	}
	return all, nil
}
