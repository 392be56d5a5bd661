package store

import "sync"

// changes wakes those who watch a topic after a commit that named it.
type changes struct {
	mu       sync.Mutex
	watchers map[string]map[*Watch]struct{} // guarded by mu
}

func newChanges() *changes {
	return &changes{watchers: make(map[string]map[*Watch]struct{})}
}

// Watch is someone's interest in topics. Begin to watch first and read the
// database then: a change between the two is a wake-up already waiting in C.
type Watch struct {
	// C receives when a topic has changed since the last receive. However many
	// changes there were, it holds one.
	C <-chan struct{}

	c       chan struct{}
	topics  []string
	changes *changes
}

// Watch begins to watch topics, until Close.
func (db *DB) Watch(topics ...string) *Watch {
	c := make(chan struct{}, 1)
	w := &Watch{C: c, c: c, topics: topics, changes: db.changes}
	db.changes.add(w)
	return w
}

// Close ends the watch. C is not closed, so it just stays silent.
func (w *Watch) Close() { w.changes.remove(w) }

// wake never waits: a wake-up that is still in the channel covers this one.
func (w *Watch) wake() {
	select {
	case w.c <- struct{}{}:
	default:
	}
}

func (c *changes) add(w *Watch) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, topic := range w.topics {
		set := c.watchers[topic]
		if set == nil {
			set = make(map[*Watch]struct{})
			c.watchers[topic] = set
		}
		set[w] = struct{}{}
	}
}

func (c *changes) remove(w *Watch) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, topic := range w.topics {
		delete(c.watchers[topic], w)
		if len(c.watchers[topic]) == 0 {
			delete(c.watchers, topic)
		}
	}
}

// announce wakes everyone who watches one of the topics.
func (c *changes) announce(topics []string) {
	if len(topics) == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, topic := range topics {
		for w := range c.watchers[topic] {
			w.wake()
		}
	}
}
