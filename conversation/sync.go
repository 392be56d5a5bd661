package conversation

import (
	"context"
	"errors"
	"time"

	"github.com/batchyard/batchyard/auth"
	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/store"
)

const (
	// syncWait is how long a call without news is held at most.
	syncWait = 20 * time.Second
	// observeTimeout bounds the keeping of a report whose sender hung up.
	observeTimeout = 30 * time.Second
	// maxInstance and maxReported bound what a report may carry.
	maxInstance, maxReported = 128, 4096
)

// Sync is the one call of a node: it takes the node's report and answers with
// all that the node should be doing.
//
// What the report says is on disk when Sync returns, and also if the caller
// hangs up. A report with results is answered at once; any other call is held
// until the orders are others than the node has, somebody asks for one of its
// files, or about twenty seconds have passed. Of several calls of one node only
// the newest is held.
//
// AuthenticationFailed: the token is not the node's. Forbidden: a newer agent
// speaks for the node. NodeNotFound: the node is no more. The agent ends its
// tasks and itself upon each of these.
func (r *Room) Sync(ctx context.Context, node batch.NodeID, token string, report batch.NodeReport) (batch.NodeOrders, error) {
	began := time.Now()
	defer func() { r.metrics.syncs.Observe(time.Since(began).Seconds()) }()
	if report.Instance == "" || len(report.Instance) > maxInstance {
		return batch.NodeOrders{}, batch.InvalidValue("instance", report.Instance, "It has 1 to %d bytes", maxInstance)
	}
	if len(report.Tasks) > maxReported || len(report.Removed) > maxReported {
		return batch.NodeOrders{}, batch.InvalidValue("tasks", len(report.Tasks), "There are at most %d", maxReported)
	}
	call := nodeCall{room: r, node: batch.NodeID(batch.Key(node)), token: token, report: &report, at: r.now()}
	watch := r.db.Watch(store.NodeTopic(call.node))
	defer watch.Close()
	orders, err := call.begin(ctx)
	if err != nil || orders != nil {
		return value(orders), err
	}
	orders, err = call.wait(ctx, watch)
	return value(orders), err
}

func value(orders *batch.NodeOrders) batch.NodeOrders {
	if orders == nil {
		return batch.NodeOrders{}
	}
	return *orders
}

// nodeCall is one call of Sync.
type nodeCall struct {
	room   *Room
	node   batch.NodeID
	token  string
	report *batch.NodeReport
	at     time.Time // when it came
}

// final tells whether the report has something that the node repeats until the
// answer shows that it was taken.
func final(r *batch.NodeReport) bool {
	if r.Left || len(r.Removed) > 0 {
		return true
	}
	for i := range r.Tasks {
		if p := r.Tasks[i].Phase; p == batch.PhaseEnded || p == batch.PhaseReleased {
			return true
		}
	}
	return false
}

// begin takes the report and answers if there is something to say. It writes
// only if the report has news: most calls of an idle node do not.
func (c *nodeCall) begin(ctx context.Context) (*batch.NodeOrders, error) {
	if final(c.report) {
		return c.observe(ctx)
	}
	var h *hearing
	var orders *batch.NodeOrders
	err := c.room.db.Glance(ctx, func(tx *store.Tx) (err error) {
		orders = nil
		if h, err = c.hear(tx); err != nil {
			return err
		}
		if err := h.apply(); err != nil || h.news() {
			return err
		}
		orders, err = h.answer(false)
		return err
	})
	if err != nil {
		return nil, err
	}
	if h.news() {
		return c.observe(ctx)
	}
	c.remember(h)
	return orders, nil
}

// remember keeps what was read or written, now that it is on disk.
func (c *nodeCall) remember(h *hearing) {
	c.room.memory.remember(c.node, h.node.Revision, h.holds)
}

// observe takes the report in a transaction that goes on if the caller hangs
// up: what a node has said once is kept.
func (c *nodeCall) observe(ctx context.Context) (*batch.NodeOrders, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), observeTimeout)
	defer cancel()
	var h *hearing
	var orders *batch.NodeOrders
	err := c.room.db.Update(ctx, func(tx *store.Tx) (err error) {
		orders = nil
		if h, err = c.hear(tx); err != nil {
			return err
		}
		if err := h.apply(); err != nil {
			return err
		}
		if err := h.save(); err != nil {
			return err
		}
		orders, err = h.answer(final(c.report))
		return err
	})
	if err != nil {
		return nil, err
	}
	c.room.metrics.observe(h)
	if h.left {
		c.room.memory.forget(c.node)
	} else {
		c.remember(h)
	}
	return orders, nil
}

// wait holds the call.
func (c *nodeCall) wait(ctx context.Context, watch *store.Watch) (*batch.NodeOrders, error) {
	r := c.room
	mine := r.memory.wait(c.node)
	defer r.memory.done(c.node, mine)
	r.metrics.waiting.Inc()
	defer r.metrics.waiting.Dec()
	if r.files.fresh(c.node, r.now()) { // asked for before this call could be woken
		return c.look(ctx, true)
	}
	timer := time.NewTimer(r.files.patience(c.node, r.hold()))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-watch.C:
			if orders, err := c.look(ctx, false); err != nil || orders != nil {
				return orders, err
			}
		case <-mine.files:
			return c.look(ctx, true)
		case <-mine.superseded:
			return c.look(ctx, true)
		case <-timer.C:
			return c.look(ctx, true)
		}
	}
}

// hold is how long a call without news is held: an answer renews the node's
// lease, so two may go missing before it has run out.
func (r *Room) hold() time.Duration { return min(syncWait, r.lease/3) }

// look reads the orders as they are now; nil if there is nothing to say and
// nothing must be said.
func (c *nodeCall) look(ctx context.Context, must bool) (*batch.NodeOrders, error) {
	var h *hearing
	var orders *batch.NodeOrders
	err := c.room.db.Glance(ctx, func(tx *store.Tx) (err error) {
		if h, err = c.hear(tx); err != nil {
			return err
		}
		orders, err = h.answer(must)
		return err
	})
	if err != nil {
		return nil, err
	}
	c.remember(h)
	return orders, nil
}

// hear reads the node and what it holds, and checks who is calling. A call that
// passes counts as contact, in whatever the caller does with it: a node is
// given up only by looking at contacts inside a transaction too.
func (c *nodeCall) hear(tx *store.Tx) (*hearing, error) {
	n, err := tx.Node(c.node)
	if errors.Is(err, store.ErrNotFound) {
		return nil, batch.NotFound("compute node", c.node)
	}
	if err != nil {
		return nil, err
	}
	if !auth.CheckToken(c.token, string(n.TokenHash)) {
		return nil, badToken()
	}
	if n.Instance != "" && n.Instance != c.report.Instance && c.report.Revision != 0 {
		return nil, batch.Errorf(batch.CodeForbidden, "A newer agent speaks for the compute node.")
	}
	stale := c.room.memory.hear(c.node, c.at, c.report)
	holds, known := c.room.memory.holds(c.node, n.Revision)
	if !known {
		if holds, err = tx.HeldTasks(c.node); err != nil {
			return nil, err
		}
	}
	return &hearing{
		Ledger: c.room.control.Ledger(tx, n.Account), room: c.room, tx: tx, node: n, holds: holds, report: c.report, stale: stale,
	}, nil
}

func badToken() error {
	return batch.Errorf(batch.CodeAuthenticationFailed, "The node's token is not valid: it may have been replaced or revoked.")
}
