package keeper

import (
	"net"
	"sync"
	"time"

	"github.com/batchyard/batchyard/agent/run"
)

// hub knows the connected agent, if there is one. A new connection replaces an
// older one, which is what a restarted agent wants.
type hub struct {
	linger   time.Duration
	shutdown chan struct{} // closed when the agent wants the keeper to end
	once     sync.Once
	serving  sync.WaitGroup

	mu      sync.Mutex // guards current, timer, last, closed
	current *run.Wire
	timer   *time.Timer
	last    func(error) // answers the request to shut down
	closed  bool
}

func (h *hub) init(linger time.Duration) {
	h.linger = linger
	h.shutdown = make(chan struct{})
}

// over returns a channel that is closed when the keeper is of no more use: it
// was shut down, or has had neither agent nor lease for the linger time.
func (h *hub) over(held *holder) <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.timer = time.AfterFunc(h.linger, func() { h.lonely(held) })
	return h.shutdown
}

func (h *hub) lonely(held *holder) {
	left := held.leaseLeft()
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.current != nil:
		// Leaving will set the timer again.
	case left > 0:
		h.timer.Reset(left + h.linger)
	default:
		h.once.Do(func() { close(h.shutdown) })
	}
}

func (h *hub) join(l *run.Wire) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return net.ErrClosed
	}
	if h.current != nil {
		_ = h.current.Send(&run.Message{Error: run.ToWire(run.ErrSuperseded)})
		h.current.Finish(helloTime)
	}
	h.current = l
	return nil
}

func (h *hub) leave(l *run.Wire) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.current == l {
		h.current = nil
		if h.timer != nil && !h.closed {
			h.timer.Reset(h.linger)
		}
	}
}

// stop asks the keeper to end; last is called once it has.
func (h *hub) stop(last func(error)) {
	h.mu.Lock()
	h.last = last
	h.mu.Unlock()
	h.once.Do(func() { close(h.shutdown) })
}

// close tells who asked for the end how it went, and closes the connection.
func (h *hub) close(err error) {
	h.mu.Lock()
	h.closed = true
	last, current := h.last, h.current
	if h.timer != nil {
		h.timer.Stop()
	}
	h.mu.Unlock()
	if last != nil {
		last(err)
	}
	if current != nil {
		current.Finish(helloTime)
	}
	h.serving.Wait()
}
