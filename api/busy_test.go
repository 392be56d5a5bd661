package api_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/batchyard/batchyard/api"
	"github.com/batchyard/batchyard/auth"
	"github.com/batchyard/batchyard/gate"
)

// narrow is a class with a single place and no line.
func narrow(name string) *gate.Class { return gate.New(gate.Options{Name: name, Places: 1}) }

func (a answer) mustBeBusy(t *testing.T) {
	t.Helper()
	if a.code(t) != "ServerBusy" || a.header.Get("Retry-After") == "" {
		t.Errorf("code %s and Retry-After %q", a.code(t), a.header.Get("Retry-After"))
	}
}

func TestBusy(t *testing.T) {
	t.Parallel()

	t.Run("a full class refuses, and the others do not", func(t *testing.T) {
		t.Parallel()
		reads, lists := narrow("reads"), narrow("lists")
		e := newEdge(t, func(o *api.Options) { o.Classes.Reads, o.Classes.Lists = reads, lists })
		if err := lists.Enter(t.Context(), "another"); err != nil {
			t.Fatal(err)
		}
		e.must(t, 503, "GET", "/pools", newest, "").mustBeBusy(t)
		e.must(t, 201, "POST", "/pools", newest, linuxPool)
		e.must(t, 404, "GET", "/jobs/none", newest, "")
		lists.Leave()
		e.must(t, 200, "GET", "/pools", newest, "")
		if s := reads.State(); s.Running != 0 || s.Refused != 0 {
			t.Errorf("reads after all: %+v", s)
		}
	})

	t.Run("a request that waits for its turn is served when it comes", func(t *testing.T) {
		t.Parallel()
		lists := gate.New(gate.Options{Places: 1, Line: 1, Patience: time.Minute})
		e := newEdge(t, func(o *api.Options) { o.Classes.Lists = lists })
		if err := lists.Enter(t.Context(), "another"); err != nil {
			t.Fatal(err)
		}
		go func() {
			for deadline := time.Now().Add(time.Minute); lists.State().Waiting == 0 && time.Now().Before(deadline); {
				time.Sleep(time.Millisecond)
			}
			lists.Leave()
		}()
		e.must(t, 200, "GET", "/pools", newest, "")
		if s := lists.State(); s.Queued != 1 {
			t.Errorf("%d waited, want 1", s.Queued)
		}
	})

	t.Run("a body that does not come takes no place", func(t *testing.T) {
		t.Parallel()
		buffers := gate.NewBudget(1 << 20)
		e := newEdge(t, func(o *api.Options) { o.Classes.Writes, o.Buffers = narrow("writes"), buffers })
		conn := e.halfSent(t, "POST", "/pools", linuxPool)
		for deadline := time.Now().Add(time.Minute); buffers.Used() == 0; { // until it waits for the body
			if time.Now().After(deadline) {
				t.Fatal("the request is not read")
			}
			time.Sleep(time.Millisecond)
		}
		e.must(t, 201, "POST", "/pools", newest, strings.Replace(linuxPool, `"id":"`, `"id":"other-`, 1))
		if _, err := io.WriteString(conn, linuxPool[1:]); err != nil {
			t.Fatal(err)
		}
		if got := readStatus(t, conn); got != 201 {
			t.Errorf("the slow request is answered %d", got)
		}
	})

	t.Run("a body is not asked for when there is no place for it", func(t *testing.T) {
		t.Parallel()
		writes := narrow("writes")
		e := newEdge(t, func(o *api.Options) { o.Classes.Writes = writes })
		if err := writes.Enter(t.Context(), "another"); err != nil {
			t.Fatal(err)
		}
		transport := &http.Transport{ExpectContinueTimeout: time.Minute}
		t.Cleanup(transport.CloseIdleConnections)
		r := e.request(t, "POST", "/pools", newest, linuxPool, "Expect", "100-continue")
		if err := auth.SignBatch(r, string(e.account), e.key, e.now()); err != nil {
			t.Fatal(err)
		}
		body := &countedReader{Reader: strings.NewReader(linuxPool)}
		r.Body = io.NopCloser(body)
		response, err := transport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != 503 || body.read > 0 {
			t.Errorf("answered %d after %d bytes of the body", response.StatusCode, body.read)
		}
	})

	t.Run("memory for bodies is bounded and comes back", func(t *testing.T) {
		t.Parallel()
		buffers := gate.NewBudget(10_000)
		e := newEdge(t, func(o *api.Options) { o.Buffers = buffers })
		large := strings.Replace(linuxPool, "{", `{"displayName":"`+strings.Repeat("x", 20_000)+`",`, 1)
		e.must(t, 503, "POST", "/pools", newest, large).mustBeBusy(t)
		e.must(t, 201, "POST", "/pools", newest, linuxPool)
		if n := buffers.Used(); n != 0 {
			t.Errorf("%d bytes are still held", n)
		}
	})

	t.Run("a connection for which there was no room is told so", func(t *testing.T) {
		t.Parallel()
		e := newEdge(t, func(o *api.Options) { o.Late = func(*http.Request) bool { return true } })
		e.must(t, 503, "GET", "/pools", newest, "").mustBeBusy(t)
	})
}

type countedReader struct {
	io.Reader
	read int
}

func (r *countedReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	r.read += n
	return n, err
}

// halfSent sends a signed request but for its body, of which it sends a byte.
func (e *edge) halfSent(t *testing.T, method, path, body string) net.Conn {
	t.Helper()
	r := e.request(t, method, path, newest, body)
	if err := auth.SignBatch(r, string(e.account), e.key, e.now()); err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", r.URL.Host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	var head strings.Builder
	fmt.Fprintf(&head, "%s %s HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n", method, r.URL.RequestURI(), r.URL.Host, len(body))
	if err := r.Header.Write(&head); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, head.String()+"\r\n"+body[:1]); err != nil {
		t.Fatal(err)
	}
	return conn
}

func readStatus(t *testing.T, conn net.Conn) int {
	t.Helper()
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	return response.StatusCode
}
