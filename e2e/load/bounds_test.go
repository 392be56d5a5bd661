package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/batchyard/batchyard/auth"
	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/client"
)

// newServer starts a server, with what clients ask for, and stops it with the test.
func newServer(t *testing.T, o options) *server {
	t.Helper()
	s, err := startServer(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.stop(); err != nil {
			t.Error(err)
		}
	})
	if err := s.prepare(t.Context(), o); err != nil {
		t.Fatalf("%v\n%s", err, s.tail())
	}
	return s
}

// works fails the test unless a task runs through: that needs a client, the scheduler and the
// calls of the node.
func (s *server) works(t *testing.T, id batch.TaskID) {
	t.Helper()
	c := s.newClient()
	defer c.HTTP.CloseIdleConnections()
	if err := s.runTask(t.Context(), c, time.Minute, id); err != nil {
		t.Errorf("task %s does not run: %v\n%s", id, err, s.tail())
	}
}

// dial opens a connection that is closed with the test.
func (s *server) dial(t *testing.T, secure bool) net.Conn {
	t.Helper()
	conn, err := net.DialTimeout("tcp", s.address, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	if !secure {
		return conn
	}
	config := s.trust.Clone()
	config.ServerName = "127.0.0.1"
	return tls.Client(conn, config)
}

// metric sums a metric over its labels.
func (s *server) metric(t *testing.T, name string) float64 {
	t.Helper()
	body, err := fetch(t.Context(), s.debug+"/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	sum := 0.0
	for scanner := bufio.NewScanner(body); scanner.Scan(); {
		full, value, _ := strings.Cut(scanner.Text(), " ")
		if base, _, _ := strings.Cut(full, "{"); base == name {
			n, err := strconv.ParseFloat(value, 64)
			if err != nil {
				t.Fatal(err)
			}
			sum += n
		}
	}
	return sum
}

// until waits for something to become true.
func (s *server) until(t *testing.T, what string, is func() bool) {
	t.Helper()
	err := s.await(t.Context(), time.Minute, func(context.Context) error {
		if is() {
			return nil
		}
		return errors.New("not yet")
	})
	if err != nil {
		t.Fatalf("waiting until %s: %v", what, err)
	}
}

func TestConnections(t *testing.T) {
	t.Parallel()
	o := small(t)
	const room, late = 48, 16
	o.config = fmt.Sprintf("limits = {connections = %d}", room)
	s := newServer(t, o)

	t.Run("those that say nothing make room for others", func(t *testing.T) {
		for range 150 {
			s.dial(t, false)
		}
		s.works(t, "behind-silence")
		if s.metric(t, "batchyard_connections_evicted_total") == 0 {
			t.Error("none has made room")
		}
		if open := s.metric(t, "batchyard_connections"); open > room+late+10 { // nodes and the operator are beside them
			t.Errorf("%.0f connections are open", open)
		}
	})

	t.Run("idle ones make room for others", func(t *testing.T) {
		for i := range 3 * room {
			c := s.newClient()
			t.Cleanup(c.HTTP.CloseIdleConnections)
			if _, err := c.Job(t.Context(), pageJob); err != nil {
				t.Fatalf("client %d: %v", i, err)
			}
		}
		s.works(t, "behind-idle")
	})

	t.Run("when all are busy, clients are told so and nodes are served", func(t *testing.T) {
		var busy []net.Conn
		s.until(t, "all connections are busy", func() bool {
			conn := s.dial(t, true)
			busy = append(busy, conn)
			_, err := io.WriteString(conn, s.halfRequest(t))
			if err != nil {
				return false
			}
			_ = conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
			response, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				return false // it waits for the rest
			}
			defer response.Body.Close()
			if response.StatusCode != http.StatusServiceUnavailable || response.Header.Get("Retry-After") == "" {
				t.Fatalf("the first without room is answered %s %v", response.Status, response.Header)
			}
			return true
		})
		if len(busy) < room/2 {
			t.Errorf("only %d connections found room", len(busy))
		}
		if _, err := s.newClient().Job(t.Context(), pageJob); batch.CodeOf(err) != batch.CodeServerBusy {
			t.Errorf("a client is told %v", err)
		}
		node := s.dial(t, true)
		fmt.Fprintf(node, "POST /nodelink/none/sync HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer byt_none\r\nContent-Length: 2\r\n\r\n{}")
		response, err := http.ReadResponse(bufio.NewReader(node), nil)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode == http.StatusServiceUnavailable {
			t.Error("a node is told that there is no room")
		}
		for _, conn := range busy {
			conn.Close()
		}
		s.works(t, "behind-busy")
	})
}

// halfRequest is a signed request without its body.
func (s *server) halfRequest(t *testing.T) string {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost,
		"https://"+s.address+"/jobs?api-version="+client.Version, strings.NewReader(strings.Repeat(" ", 1000)))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json; odata=minimalmetadata")
	if err := auth.SignBatch(r, account, s.key, time.Now()); err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	fmt.Fprintf(&text, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Length: 1000\r\n", r.URL.RequestURI(), s.address)
	if err := r.Header.Write(&text); err != nil {
		t.Fatal(err)
	}
	return text.String() + "\r\n"
}

func TestRequests(t *testing.T) {
	t.Parallel()
	o := small(t)
	o.config = "limits = {line = 1, lists = 1}"
	s := newServer(t, o)

	t.Run("what is too much is refused, and served when it comes again", func(t *testing.T) {
		t.Parallel()
		tally := newTally()
		s.until(t, "a list is refused", func() bool {
			var group sync.WaitGroup
			for range 20 {
				group.Go(func() {
					c := s.newClient()
					defer c.HTTP.CloseIdleConnections()
					_, err := c.Tasks(t.Context(), pageJob, "")
					tally.result(t.Context(), "list", err)
				})
			}
			group.Wait()
			return tally.get("refused") > 0
		})
		if tally.get("list") == 0 {
			t.Error("all lists are refused")
		}
		for what := range tally.counts {
			if what != "list" && what != "refused" {
				t.Error(what)
			}
		}
		if _, err := s.newClient().Tasks(t.Context(), pageJob, ""); err != nil {
			t.Errorf("a list afterwards: %v", err)
		}
	})

	t.Run("strangers do not keep nodes from their work", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancel(t.Context())
		var group sync.WaitGroup
		for range 50 {
			group.Go(func() {
				c := s.newClient()
				c.Key = auth.NewKey()
				defer c.HTTP.CloseIdleConnections()
				for ctx.Err() == nil {
					if _, err := c.Job(ctx, pageJob); err == nil {
						t.Error("a stranger is let in")
					}
				}
			})
		}
		s.works(t, "among-strangers")
		cancel()
		group.Wait()
	})

	t.Run("headers that trickle in are cut off", func(t *testing.T) {
		t.Parallel()
		conn := s.dial(t, true)
		if _, err := io.WriteString(conn, "GET /jobs HTTP/1.1\r\nHost: x\r\n"); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		go func() {
			for i := 0; ; i++ {
				if _, err := fmt.Fprintf(conn, "X-%d: y\r\n", i); err != nil {
					return
				}
				pause(t.Context(), 200*time.Millisecond)
			}
		}()
		if _, err := io.ReadAll(conn); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("still open after %s", time.Since(began))
		}
	})

	t.Run("headers that are too long are refused", func(t *testing.T) {
		t.Parallel()
		conn := s.dial(t, true)
		go func() {
			_, _ = io.WriteString(conn, "GET /jobs HTTP/1.1\r\nHost: x\r\nX: "+strings.Repeat("y", 100<<10)+"\r\n\r\n")
		}()
		response, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("answered %s", response.Status)
		}
	})

	t.Run("HTTP/2 is not spoken", func(t *testing.T) {
		t.Parallel()
		plain, err := net.Dial("tcp", s.address)
		if err != nil {
			t.Fatal(err)
		}
		defer plain.Close()
		config := s.trust.Clone()
		config.ServerName, config.NextProtos = "127.0.0.1", []string{"h2"}
		conn := tls.Client(plain, config)
		_ = conn.SetDeadline(time.Now().Add(time.Minute))
		if _, err := io.WriteString(conn, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"); err != nil {
			return // it does not even get so far
		}
		text, _ := io.ReadAll(conn)
		if conn.ConnectionState().NegotiatedProtocol != "" || !strings.HasPrefix(string(text), "HTTP/1.1 4") && !strings.HasPrefix(string(text), "HTTP/1.1 5") {
			t.Errorf("negotiated %q, answered %q", conn.ConnectionState().NegotiatedProtocol, text)
		}
	})
}

func TestLogThatNobodyReads(t *testing.T) {
	t.Parallel()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { read.Close() })
	o := small(t)
	o.log, o.config = write, `log = {level = "debug"}`
	s := newServer(t, o)
	write.Close()
	c := s.newClient()
	defer c.HTTP.CloseIdleConnections()
	s.until(t, "the log loses lines", func() bool {
		for range 500 {
			if _, err := c.Job(t.Context(), pageJob); err != nil {
				t.Fatal(err)
			}
		}
		return s.metric(t, "batchyard_log_dropped_lines_total") > 0
	})
	s.works(t, "without-log")
	read.Close()
	s.works(t, "without-reader")
}

func TestNoFileDescriptorsLeft(t *testing.T) {
	t.Parallel()
	o := small(t)
	o.files, o.config = 200, "limits = {connections = 1000}"
	s := newServer(t, o)
	for range 300 {
		s.dial(t, false)
	}
	before := processorTime(t, s.command.Process.Pid)
	pause(t.Context(), 1500*time.Millisecond) // before anything is old enough to make room
	used := processorTime(t, s.command.Process.Pid) - before
	t.Logf("processor time while there was nothing to do: %s", used)
	if used > 100*time.Millisecond {
		t.Errorf("the server used %s of processor time while it could do nothing", used)
	}
	s.works(t, "without-descriptors")
	if s.metric(t, "batchyard_connections_evicted_total") == 0 {
		t.Error("no connection has made room")
	}
}

// processorTime is what a process has used.
func processorTime(t *testing.T, pid int) time.Duration {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	fields, ticks := strings.Fields(rest), 0
	for _, field := range fields[11:13] {
		n, err := strconv.Atoi(field)
		if err != nil {
			t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}
