package conversation

import (
	"sync"
	"time"

	"github.com/batchyard/batchyard/batch"
)

// memory knows when each node was heard last, the call of each that waits, and
// what it holds. It is memory of this process: after a start every node counts as heard
// at the start, so a restart costs a lost node at most one more lease.
type memory struct {
	mu    sync.Mutex
	lost  int64                     // guarded by mu: how often a node was given up, or begun to be
	nodes map[batch.NodeID]*contact // guarded by mu
}

type contact struct {
	at   time.Time
	call *call // nil while no call waits
	// busy are calls whose transaction runs, losing is set while the node is
	// being given up: one keeps the other away.
	busy   map[*nodeCall]bool
	losing bool
	// instance and number are of the newest report.
	instance string
	number   int64
	// known is what the node should be doing as of the newest revision that was
	// seen, nil if none was.
	known *account
	// confirmed is the highest revision of this epoch that the agent has applied, and
	// told the highest that it was answered with. removals is the highest number
	// of those that it has got.
	confirmed, told, removals int64
	pace                      pace
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

// stale tells whether a report is out of date because a newer one of the same
// agent was taken before.
func (c *memory) stale(node batch.NodeID, report *batch.NodeReport) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	entry := c.nodes[node]
	return entry != nil && entry.instance == report.Instance && report.Number > 0 && report.Number < entry.number
}

// losses is how often nodes were given up so far. Who reads a node's row asks
// before.
func (c *memory) losses() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lost
}

// enter begins a transaction of a call, which has read the node's row after
// losses said so many. False: the row may be of before the node was given up.
func (c *memory) enter(call *nodeCall, losses int64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	entry := c.of(call.node)
	if entry.losing || losses != c.lost {
		return false
	}
	if entry.busy == nil {
		entry.busy = make(map[*nodeCall]bool)
	}
	entry.busy[call] = true
	return true
}

// leave ends it. If it was committed, the node was heard when the call came.
func (c *memory) leave(call *nodeCall, committed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	entry := c.nodes[call.node]
	if entry == nil || !entry.busy[call] {
		return
	}
	delete(entry.busy, call)
	if !committed {
		return
	}
	if call.at.After(entry.at) {
		entry.at = call.at
	}
	r := call.report
	if entry.instance != r.Instance {
		entry.confirmed, entry.told, entry.removals = 0, 0, 0
	}
	if entry.instance != r.Instance || r.Number == 0 || r.Number > entry.number {
		entry.instance, entry.number = r.Instance, r.Number
	}
	if r.Epoch == call.room.epoch {
		entry.confirmed, entry.removals = max(entry.confirmed, r.Revision), max(entry.removals, r.RemovalsTo)
	}
}

// beginLoss begins to give a node up, unless it was heard since a time or is
// just being heard. No call of it is taken until endLoss.
func (c *memory) beginLoss(node batch.NodeID, since time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	entry := c.nodes[node]
	if entry == nil || entry.at.After(since) || len(entry.busy) > 0 {
		return false
	}
	c.lost++
	entry.losing = true
	return true
}

// endLoss ends that. A node that was given up is forgotten.
func (c *memory) endLoss(node batch.NodeID, lost bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lost++
	if entry := c.nodes[node]; entry != nil {
		entry.losing = false
		if lost {
			entry.forget()
		}
	}
}

// recall returns what is known of a node's orders, and how far an agent has got
// with them. The ledger raises the revision whenever a task is bound to the
// node, unbound from it or asked back, so what was read once at a revision need
// not be read again. That a task has begun does not raise it; whoever relies on
// a task's state reads the task.
func (c *memory) recall(node batch.NodeID, instance string) (known *account, confirmed, told, removals int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	entry := c.nodes[node]
	if entry == nil || entry.known == nil {
		return &account{}, 0, 0, 0
	}
	if entry.instance != instance {
		return entry.known, 0, 0, 0
	}
	return entry.known, entry.confirmed, entry.told, entry.removals
}

// remember keeps what a node should be doing. It must be on disk. Told is the
// revision that an answer brings, 0 for none. Calls of a node overlap, and of two
// that read one revision either may come first.
func (c *memory) remember(node batch.NodeID, known *account, told int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	entry := c.nodes[node]
	if entry == nil {
		return
	}
	switch before := entry.known; {
	case before == nil || known.revision > before.revision:
		entry.known = known
	case known.revision == before.revision:
		known.takeStarts(before)
		entry.known = known
	}
	entry.told = max(entry.told, told)
}

// pace is how quickly a node completes tasks, as far as is known.
func (c *memory) pace(node batch.NodeID) pace {
	c.mu.Lock()
	defer c.mu.Unlock()
	if entry := c.nodes[node]; entry != nil {
		return entry.pace
	}
	return pace{}
}

// keepPace keeps what a call has told of it.
func (c *memory) keepPace(node batch.NodeID, p pace) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if entry := c.nodes[node]; entry != nil {
		entry.pace = p
	}
}

// behind tells whether the agent was told of orders that it has not confirmed.
func (c *memory) behind(node batch.NodeID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	entry := c.nodes[node]
	return entry != nil && entry.told > entry.confirmed
}

// expect counts a node as heard at a time unless it was heard already.
func (c *memory) expect(node batch.NodeID, at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if entry := c.of(node); entry.at.IsZero() {
		entry.at = at
	}
}

// excuse counts a node as heard at a time although it was not.
func (c *memory) excuse(node batch.NodeID, at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if entry := c.nodes[node]; entry != nil && at.After(entry.at) {
		entry.at = at
	}
}

// forget drops a node that is no more.
func (c *memory) forget(node batch.NodeID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if entry := c.nodes[node]; entry != nil {
		entry.forget()
		if entry.call == nil && len(entry.busy) == 0 {
			delete(c.nodes, node)
		}
	}
}

// forget drops what is known of a node, but for the calls that are here.
func (c *contact) forget() { *c = contact{call: c.call, busy: c.busy} }

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
