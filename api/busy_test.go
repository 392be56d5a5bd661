package api_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/batchyard/batchyard/api"
	"github.com/batchyard/batchyard/auth"
)

// slowBody is a body whose sender waits for a signal before it goes on.
type slowBody struct {
	io.Reader
	asked chan struct{} // closed when the server wants the body
	free  chan struct{} // closed when it may have it
}

func (b *slowBody) Read(p []byte) (int, error) {
	select {
	case <-b.asked:
	default:
		close(b.asked)
	}
	<-b.free
	return b.Reader.Read(p)
}

func TestBusy(t *testing.T) {
	t.Parallel()
	e := newEdge(t, func(o *api.Options) { o.MaxCalls = 1 })
	transport := &http.Transport{ExpectContinueTimeout: time.Minute}
	t.Cleanup(transport.CloseIdleConnections)

	// The first request holds the only place: the server asks for its body
	// only once it works on it.
	body := &slowBody{strings.NewReader(linuxPool), make(chan struct{}), make(chan struct{})}
	r := e.request(t, "POST", "/pools", newest, linuxPool, "Expect", "100-continue")
	if err := auth.SignBatch(r, string(e.account), e.key, e.now()); err != nil {
		t.Fatal(err)
	}
	r.Body = io.NopCloser(body)
	first := make(chan int, 1)
	go func() {
		response, err := transport.RoundTrip(r)
		if err != nil {
			t.Error(err)
			first <- 0
			return
		}
		response.Body.Close()
		first <- response.StatusCode
	}()
	<-body.asked

	a := e.must(t, 503, "GET", "/pools?timeout=1", newest, "")
	if a.code(t) != "ServerBusy" || a.header.Get("Retry-After") == "" {
		t.Errorf("code %s and Retry-After %q", a.code(t), a.header.Get("Retry-After"))
	}
	close(body.free)
	if got := <-first; got != 201 {
		t.Errorf("status %d of the request that was worked on, want 201", got)
	}
	e.must(t, 200, "GET", "/pools?timeout=1", newest, "")
}
