package gate

import (
	"context"
	"errors"
	"sync"
	"time"
)

// ErrBusy says that there is no place and no hope for one in time.
var ErrBusy = errors.New("too much to do")

// Options are the bounds of a class.
type Options struct {
	// Name is how metrics call the class.
	Name string
	// Places is how many requests are worked on at a time, at least 1.
	Places int
	// Line is how many may wait for a place, all callers together.
	Line int
	// Patience is how long one may wait. Its context may end the wait sooner.
	Patience time.Duration
}

// Class admits a bounded number of requests of one kind. Its methods may be
// called from many goroutines.
type Class struct {
	Options

	mu      sync.Mutex
	running int              // guarded by mu, as all below
	waiting int              // in all lines
	lines   map[string]*line // of callers who wait, by their names
	turns   []*line          // the same in the order of their turns
	queued  uint64           // how many ever had to wait
	refused uint64
}

// line is the requests of one caller that wait, the first to come first.
type line struct {
	who     string
	waiters []*waiter
}

// waiter is a request that waits. Its channel is closed when it has a place.
type waiter struct{ admitted chan struct{} }

// New makes a class.
func New(o Options) *Class {
	o.Places = max(1, o.Places)
	return &Class{Options: o, lines: make(map[string]*line)}
}

// Enter takes a place, for which it waits if need be. ErrBusy if there is none
// within Patience or the line is full; the context's error if that ends first.
// After nil the caller must call Leave once.
func (c *Class) Enter(ctx context.Context, who string) error {
	w, err := c.take(who)
	if w == nil {
		return err
	}
	patience := time.NewTimer(c.Patience)
	defer patience.Stop()
	select {
	case <-w.admitted:
		return nil
	case <-patience.C:
		err = ErrBusy
	case <-ctx.Done():
		err = ctx.Err()
	}
	return c.giveUp(who, w, err)
}

// take takes a place or stands in line: then there is a waiter.
func (c *Class) take(who string) (*waiter, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.running < c.Places {
		c.running++
		return nil, nil //nolint:nilnil // it has its place
	}
	l := c.lines[who]
	// A quarter of the line stays free for those who have nothing in it yet.
	if c.waiting >= c.Line || l != nil && len(l.waiters) >= c.Line-c.Line/4 {
		c.refused++
		return nil, ErrBusy
	}
	if l == nil {
		l = &line{who: who}
		c.lines[who], c.turns = l, append(c.turns, l)
	}
	w := &waiter{admitted: make(chan struct{})}
	l.waiters = append(l.waiters, w)
	c.waiting++
	c.queued++
	return w, nil
}

// giveUp leaves the line, unless the place came in the same moment.
func (c *Class) giveUp(who string, w *waiter, reason error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if l := c.lines[who]; l != nil {
		for i := range l.waiters {
			if l.waiters[i] == w {
				l.waiters = append(l.waiters[:i], l.waiters[i+1:]...)
				c.waiting--
				c.refused++
				c.closeEmpty(l)
				return reason
			}
		}
	}
	return nil // admitted
}

// closeEmpty removes a line in which nobody waits any more.
func (c *Class) closeEmpty(l *line) {
	if len(l.waiters) > 0 {
		return
	}
	delete(c.lines, l.who)
	for i := range c.turns {
		if c.turns[i] == l {
			c.turns = append(c.turns[:i], c.turns[i+1:]...)
			return
		}
	}
}

// Leave gives a place back, to the first of the line whose turn it is.
func (c *Class) Leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.turns) == 0 {
		c.running--
		return
	}
	l := c.turns[0]
	w := l.waiters[0]
	l.waiters = l.waiters[1:]
	c.waiting--
	c.turns = append(c.turns[1:], l)
	c.closeEmpty(l)
	close(w.admitted)
}

// Full tells whether a request that came now would be refused. One that brings
// much with it need not bring it in vain.
func (c *Class) Full() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.running >= c.Places && c.waiting >= c.Line
}

// State is a class at one moment.
type State struct {
	Running, Waiting int
	// Queued is how many requests ever had to wait, Refused how many got no
	// place; since New.
	Queued, Refused uint64
}

// State tells how full the class is.
func (c *Class) State() State {
	c.mu.Lock()
	defer c.mu.Unlock()
	return State{Running: c.running, Waiting: c.waiting, Queued: c.queued, Refused: c.refused}
}
