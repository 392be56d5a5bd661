package batchtest

import (
	"bytes"
	"context"
	"errors"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/batchyard/batchyard/nodelink"
)

// Errors of the network.
var (
	errUnreachable = errors.New("server not reachable")
	errDown        = errors.New("connection refused")
)

// Times of the network.
const (
	// dialTime is how long a machine tries to reach a server that it cannot.
	dialTime = 10 * time.Second
	// answerTime is how long a repeated request waits for an answer that nobody
	// reads.
	answerTime = time.Minute
)

// Noise is what befalls calls, each by a chance between 0 and 1.
type Noise struct {
	// LoseRequest and LoseAnswer: it never arrives.
	LoseRequest, LoseAnswer float64
	// Repeat: the request arrives once more, up to Late later.
	Repeat float64
	// DelayRequest and DelayAnswer: it takes up to Late. Calls of one agent
	// overlap, so they overtake each other.
	DelayRequest, DelayAnswer float64
	Late                      time.Duration
}

// Link is the network between one machine and the server.
type Link struct {
	machine *Machine

	mu       sync.Mutex // guards all below
	noUp     bool       // requests do not arrive
	noDown   bool       // answers do not arrive
	noise    Noise
	requests uint64
}

// Cut breaks a direction, or both, or mends them.
func (l *Link) Cut(up, down bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.noUp, l.noDown = up, down
}

// Disturb makes noise from now on.
func (l *Link) Disturb(n Noise) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.noise = n
}

func (l *Link) cut() (up, down bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.noUp, l.noDown
}

// fate is what befalls one call.
type fate struct {
	loseRequest, loseAnswer   bool
	requestDelay, answerDelay time.Duration
	repeat                    bool
	repeatAfter               time.Duration
}

// fate follows from the seed, the machine's number and the call's.
func (l *Link) fate() fate {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.requests++
	h := fnv.New64a()
	_, _ = io.WriteString(h, l.machine.Name)
	r := rand.New(rand.NewPCG(l.machine.cluster.options.Seed, h.Sum64()+l.requests)) //nolint:gosec // a schedule is no secret
	late := func(chance float64) time.Duration {
		after := time.Duration(r.Float64() * float64(l.noise.Late))
		if r.Float64() >= chance {
			return 0
		}
		return after
	}
	return fate{
		loseRequest: r.Float64() < l.noise.LoseRequest, loseAnswer: r.Float64() < l.noise.LoseAnswer,
		requestDelay: late(l.noise.DelayRequest), answerDelay: late(l.noise.DelayAnswer),
		repeat: r.Float64() < l.noise.Repeat, repeatAfter: late(1),
	}
}

// caller is one agent's use of the link, as the transport below package nodelink:
// all that passes between agent and server is what their wire carries. One that is
// dead hears nothing any more, although what it has sent may still arrive.
type caller struct {
	link *Link
	dead context.Context // the lifetime of the agent's process
}

// client is the agent's end of the wire.
func (c caller) client() *nodelink.Client {
	m := c.link.machine
	return &nodelink.Client{URL: "http://server", Node: m.ID, Token: m.token, HTTP: &http.Client{Transport: c}}
}

// request is a call as it is on the way. It may arrive twice.
type request struct {
	*http.Request
	body []byte
}

// arrive is the request as the server reads it.
func (r request) arrive(ctx context.Context) *http.Request {
	arrived := r.Clone(ctx)
	arrived.Body = io.NopCloser(bytes.NewReader(r.body))
	return arrived
}

type reply struct {
	*http.Response
	err error
}

// RoundTrip makes one call.
func (c caller) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	_ = r.Body.Close() // it is in memory
	if err != nil {
		return nil, err
	}
	if c.dead.Err() != nil {
		return nil, errUnreachable
	}
	ctx, sent := r.Context(), request{r, body}
	l, f := c.link, c.link.fate()
	replies := make(chan reply, 1)
	cluster := l.machine.cluster
	cluster.work.Go(func() { l.carry(ctx, sent, f, replies) })
	if f.repeat {
		cluster.work.Go(func() {
			limited, cancel := context.WithTimeout(cluster.living, answerTime)
			defer cancel()
			if pause(limited, f.repeatAfter) && !l.lost() {
				_ = cluster.serve(sent.arrive(limited))
			}
		})
	}
	select {
	case got := <-replies:
		return got.Response, got.err
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-c.dead.Done():
		return nil, errUnreachable
	}
}

// lost tells that requests do not arrive at present.
func (l *Link) lost() bool {
	up, _ := l.cut()
	return up
}

// carry takes a request to the server and the answer back. The agent may have
// hung up long before.
func (l *Link) carry(ctx context.Context, sent request, f fate, replies chan<- reply) {
	cluster := l.machine.cluster
	if !pause(cluster.living, f.requestDelay) {
		return
	}
	if f.loseRequest || l.lost() {
		if pause(cluster.living, dialTime) {
			replies <- reply{err: errUnreachable}
		}
		return
	}
	// The server notices that the agent hangs up if that arrives.
	calling, cancel := context.WithCancel(cluster.living)
	defer cancel()
	defer context.AfterFunc(ctx, func() {
		if !l.lost() {
			cancel()
		}
	})()
	answer := cluster.serve(sent.arrive(calling))
	if !pause(cluster.living, f.answerDelay) {
		return
	}
	if _, down := l.cut(); f.loseAnswer || down {
		return
	}
	replies <- answer
}

// pause waits and tells whether the context still lasts.
func pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
