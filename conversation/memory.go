package conversation

import (
	"slices"
	"sync"
	"time"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/store"
)

// memory knows when each node was heard last, the call of each that waits, and
// what it holds. It is memory of this process: after a start every node counts as heard
// at the start, so a restart costs a lost node at most one more lease.
type memory struct {
	mu    sync.Mutex
	nodes map[batch.NodeID]*contact // guarded by mu
}

type contact struct {
	at   time.Time
	call *call // nil while no call waits
	// instance and number are of the newest report.
	instance string
	number   int64
	// holds is what the node held at a revision of its orders.
	holds    []store.HeldTask
	revision int64
}

// call is a Sync that waits for something to tell.
type call struct {
	superseded chan struct{} // closed when a newer call of the node waits
	files      chan struct{} // receives when somebody asks for a file
}

func (c *memory) of(node batch.NodeID) *contact {
	if c.nodes == nil {
		c.nodes = make(map[batch.NodeID]*contact)
	}
	entry := c.nodes[node]
	if entry == nil {
		entry = &contact{}
		c.nodes[node] = entry
	}
	return entry
}

// hear notes that a node was in contact, and tells whether its report is out of
// date because a newer one of the same agent came before.
func (c *memory) hear(node batch.NodeID, at time.Time, report *batch.NodeReport) (stale bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	entry := c.of(node)
	if at.After(entry.at) {
		entry.at = at
	}
	stale = entry.instance == report.Instance && report.Number > 0 && report.Number < entry.number
	if !stale {
		entry.instance, entry.number = report.Instance, report.Number
	}
	return stale
}

// holds returns what a node holds at a revision, if it is known. The ledger
// raises the revision whenever a task is bound to the node, unbound from it or
// asked back, so what was read once need not be read again. That a task has
// begun does not raise it; whoever relies on a task's state reads the task.
func (c *memory) holds(node batch.NodeID, revision int64) ([]store.HeldTask, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	entry := c.nodes[node]
	if entry == nil || entry.revision != revision {
		return nil, false
	}
	return slices.Clone(entry.holds), true
}

// remember keeps what a node holds at a revision. It must be on disk.
func (c *memory) remember(node batch.NodeID, revision int64, holds []store.HeldTask) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if entry := c.nodes[node]; entry != nil && revision >= entry.revision {
		entry.revision, entry.holds = revision, holds
	}
}

// expect counts a node as heard at a time unless it was heard already.
func (c *memory) expect(node batch.NodeID, at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if entry := c.of(node); entry.at.IsZero() {
		entry.at = at
	}
}

// last is when a node was heard; the zero time if never.
func (c *memory) last(node batch.NodeID) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if entry := c.nodes[node]; entry != nil {
		return entry.at
	}
	return time.Time{}
}

// forget drops a node that is no more, or given up.
func (c *memory) forget(node batch.NodeID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.nodes, node)
}

// silent returns the nodes not heard since a time, and when the next one was
// heard, the zero time if there is none.
func (c *memory) silent(since time.Time) (nodes []batch.NodeID, next time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, entry := range c.nodes {
		switch {
		case entry.at.IsZero():
		case !entry.at.After(since):
			nodes = append(nodes, id)
		case next.IsZero() || entry.at.Before(next):
			next = entry.at
		}
	}
	return nodes, next
}

// wait registers a waiting call and sends an older one of the node home.
func (c *memory) wait(node batch.NodeID) *call {
	mine := &call{superseded: make(chan struct{}), files: make(chan struct{}, 1)}
	c.mu.Lock()
	defer c.mu.Unlock()
	entry := c.of(node)
	if entry.call != nil {
		close(entry.call.superseded)
	}
	entry.call = mine
	return mine
}

// done ends the wait of a call.
func (c *memory) done(node batch.NodeID, mine *call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if entry := c.nodes[node]; entry != nil && entry.call == mine {
		entry.call = nil
	}
}

// wake tells the waiting call of a node that somebody asks for a file.
func (c *memory) wake(node batch.NodeID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if entry := c.nodes[node]; entry != nil && entry.call != nil {
		select {
		case entry.call.files <- struct{}{}:
		default:
		}
	}
}

// taskKey is how tasks are looked up in memory.
type taskKey struct{ job, task string }

func keyOf(job batch.JobID, task batch.TaskID) taskKey {
	return taskKey{batch.Key(job), batch.Key(task)}
}
