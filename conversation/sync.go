package conversation

import (
	"cmp"
	"context"
	"errors"
	"slices"
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
	// maxInstance bounds the name of an agent process, maxReported what is taken
	// of one report: the rest is reported again.
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
	if i := report.Instance; i == "" || i != batch.Printable(i, maxInstance) {
		return batch.NodeOrders{}, batch.InvalidValue("instance", i, "It is a text of 1 to %d bytes", maxInstance)
	}
	report.Tasks = report.Tasks[:min(len(report.Tasks), maxReported)]
	report.Removed = report.Removed[:min(len(report.Removed), maxReported)]
	call := nodeCall{room: r, node: batch.NodeID(batch.Key(node)), token: token, report: &report, at: r.now()}
	watch := r.db.Watch(store.NodeTopic(call.node))
	defer watch.Close()
	orders, err := call.begin(ctx)
	if err == nil && orders == nil {
		orders, err = call.wait(ctx, watch)
	}
	if err != nil {
		return batch.NodeOrders{}, err
	}
	r.metrics.carry(&report, orders)
	return value(orders), nil
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
	// untaken is what could not be taken of the report.
	untaken map[attempt]bool
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
	var orders *batch.NodeOrders
	h, err := c.transact(ctx, c.room.db.Glance, func(h *hearing) (err error) {
		orders = nil
		if err := h.apply(); err != nil {
			return err
		}
		if h.unsaved = h.news(); h.unsaved {
			return nil
		}
		orders, err = h.answer(ifNew)
		return err
	})
	if err != nil {
		return nil, err
	}
	if h.unsaved {
		return c.observe(ctx)
	}
	c.remember(h, orders)
	return orders, nil
}

// transact runs a transaction of the call. The node counts as heard when what it
// said is committed, and not if that fails; while it runs, nobody gives the node
// up.
func (c *nodeCall) transact(ctx context.Context, run func(context.Context, func(*store.Tx) error) error,
	do func(*hearing) error,
) (h *hearing, err error) {
	memory := &c.room.memory
	err = run(ctx, func(tx *store.Tx) (err error) {
		memory.leave(c, false) // if it runs again
		losses := memory.losses()
		if h, err = c.hear(tx); err != nil {
			return err
		}
		if !memory.enter(c, losses) {
			return batch.Errorf(batch.CodeServerBusy, "The compute node is being given up; call again.")
		}
		return do(h)
	})
	memory.leave(c, err == nil && !h.unsaved)
	return h, err
}

// remember keeps what was read or written, now that it is on disk.
func (c *nodeCall) remember(h *hearing, orders *batch.NodeOrders) {
	told := int64(0)
	if orders != nil {
		told = orders.Revision
	}
	c.room.memory.remember(c.node, h.account(), told)
	if h.ended > 0 {
		h.pace.after = h.account().revision
	}
	if h.pace != h.knownPace {
		c.room.memory.keepPace(c.node, h.pace)
	}
}

// observe takes the report in a transaction that goes on if the caller hangs
// up: what a node has said once is kept.
func (c *nodeCall) observe(ctx context.Context) (*batch.NodeOrders, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), observeTimeout)
	defer cancel()
	orders, err := c.take(ctx)
	if err == nil || isRefusal(err) || ctx.Err() != nil || errors.Is(err, store.ErrClosed) {
		return orders, err
	}
	return c.takeApart(ctx, err)
}

// isRefusal tells whether an error is meant for the node, rather than a
// failure to take what it said.
func isRefusal(err error) bool { return batch.CodeOf(err) != "" }

// take takes the report as it stands, in one transaction.
func (c *nodeCall) take(ctx context.Context) (*batch.NodeOrders, error) {
	var orders *batch.NodeOrders
	h, err := c.transact(ctx, c.room.db.Update, func(h *hearing) (err error) {
		orders = nil
		if err := h.apply(); err != nil {
			return err
		}
		if err := h.save(); err != nil {
			return err
		}
		must := ifNew
		if final(c.report) {
			must = mustAnswer
		}
		orders, err = h.answer(must)
		return err
	})
	if err != nil {
		return nil, err
	}
	c.room.metrics.observe(h)
	if h.left {
		c.room.memory.forget(c.node)
	} else {
		c.remember(h, orders)
	}
	return orders, nil
}

// maxUntaken is how many items of a report may fail before it is the database
// that fails.
const maxUntaken = 10

// takeApart takes the report item by item after it could not be taken as a
// whole, so that what cannot be kept of one task keeps nobody else's results
// from being taken. A result that cannot be kept becomes a plain failure of its
// task; if not even that can be, the orders go on to name the attempt.
func (c *nodeCall) takeApart(ctx context.Context, reason error) (*batch.NodeOrders, error) {
	c.room.log.Error("report not taken, taking it item by item", "node", c.node, "err", reason)
	whole, untaken := c.report, 0
	defer func() { c.report = whole }()
	for i := range whole.Tasks {
		t := &whole.Tasks[i]
		if c.takeItem(ctx, whole, *t) {
			continue
		}
		if c.untaken == nil {
			c.untaken = make(map[attempt]bool)
		}
		c.untaken[attempt{keyOf(t.Job, t.Task), t.Attempt}] = true
		if untaken++; untaken == maxUntaken || ctx.Err() != nil {
			return nil, reason
		}
	}
	rest := *whole
	rest.Tasks = nil
	c.report = &rest
	return c.take(ctx)
}

// takeItem takes what the report says of one attempt.
func (c *nodeCall) takeItem(ctx context.Context, whole *batch.NodeReport, task batch.TaskReport) bool {
	item := *whole
	item.Tasks, item.Removed, item.Left = []batch.TaskReport{task}, nil, false
	c.report = &item
	_, err := c.take(ctx)
	if err != nil && task.Phase == batch.PhaseEnded {
		c.room.log.Error("result of a task not kept", "node", c.node, "job", task.Job, "task", task.Task, "err", err)
		item.Tasks[0].Start, item.Tasks[0].Outcome = nil, nil
		_, err = c.take(ctx)
	}
	if err != nil {
		c.room.log.Error("report of a task not taken", "node", c.node, "job", task.Job, "task", task.Task, "err", err)
	}
	return err == nil
}

// wait holds the call.
func (c *nodeCall) wait(ctx context.Context, watch *store.Watch) (*batch.NodeOrders, error) {
	r := c.room
	mine := r.memory.wait(c.node)
	defer r.memory.done(c.node, mine)
	r.metrics.waiting.Inc()
	defer r.metrics.waiting.Dec()
	if r.files.fresh(c.node, r.now()) { // asked for before this call could be woken
		return c.look(ctx, mustAnswer)
	}
	timer := time.NewTimer(r.files.patience(c.node, r.hold()))
	defer timer.Stop()
	var confirmed <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-watch.C:
			if orders, err := c.look(ctx, ifUntold); err != nil || orders != nil {
				return orders, err
			}
			if confirmed == nil && r.memory.behind(c.node) {
				confirmed = time.After(confirmTime)
			}
		case <-confirmed:
			confirmed = nil
			if orders, err := c.look(ctx, ifNew); err != nil || orders != nil {
				return orders, err
			}
		case <-mine.files:
			return c.look(ctx, mustAnswer)
		case <-mine.superseded:
			return c.look(ctx, mustAnswer)
		case <-timer.C:
			return c.look(ctx, mustAnswer)
		}
	}
}

// hold is how long a call without news is held: an answer renews the node's
// lease, so two may go missing before it has run out.
func (r *Room) hold() time.Duration { return min(syncWait, r.lease/3) }

// urgency is what an answer needs to be given.
type urgency int

const (
	ifUntold   urgency = iota // something new that no other answer has brought
	ifNew                     // something new
	mustAnswer                // nothing
)

// confirmTime is how long an answer that brought something new may take to be
// confirmed before another one brings it too.
const confirmTime = time.Second

// look reads the orders as they are now; nil if there is nothing to say and
// nothing must be said.
func (c *nodeCall) look(ctx context.Context, must urgency) (*batch.NodeOrders, error) {
	var orders *batch.NodeOrders
	h, err := c.transact(ctx, c.room.db.Glance, func(h *hearing) (err error) {
		orders, err = h.answer(must)
		return err
	})
	if err != nil {
		return nil, err
	}
	c.remember(h, orders)
	return orders, nil
}

// hear reads the node and what it holds, and checks who is calling.
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
	stale := c.room.memory.stale(c.node, c.report)
	h := &hearing{Ledger: c.room.control.Ledger(tx, n.Account), room: c.room, tx: tx, node: n, report: c.report, at: c.at, untaken: c.untaken, stale: stale}
	h.known, h.confirmed, h.told, h.removals = c.room.memory.recall(c.node, c.report.Instance)
	h.knownPace = c.room.memory.pace(c.node)
	if h.pace = h.knownPace; c.report.Epoch == c.room.epoch {
		h.pace = h.pace.heard(c.report.Revision, c.at)
	}
	if h.known.revision == n.Revision {
		h.holds = h.known.tasks()
		return h, nil
	}
	if h.holds, err = tx.HeldTasks(c.node); err != nil {
		return nil, err
	}
	slices.SortFunc(h.holds, func(a, b store.HeldTask) int { return cmp.Compare(a.Sequence, b.Sequence) })
	return h, nil
}

func badToken() error {
	return batch.Errorf(batch.CodeAuthenticationFailed, "The node's token is not valid: it may have been replaced or revoked.")
}
