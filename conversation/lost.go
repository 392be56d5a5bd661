package conversation

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/control"
	"github.com/batchyard/batchyard/store"
)

// giveUpAfter is how long a node may be silent before its tasks are queued
// again. It is longer than the lease, by which time the agent has killed them.
func (r *Room) giveUpAfter() time.Duration { return r.lease + r.lease/4 }

// LoseNodes gives up the nodes that were silent for too long, and returns when
// to look again. Nodes of which nothing was heard since the server began count
// as heard when this is called first, or when something is asked of them that
// only they can end, such as to leave.
func (r *Room) LoseNodes(ctx context.Context) (next time.Time, err error) {
	if err := r.expectNodes(ctx); err != nil {
		return next, err
	}
	asked := r.now()
	silent, heard := r.memory.silent(asked.Add(-r.giveUpAfter()))
	var failures []error
	for _, id := range silent {
		if err := r.loseNode(ctx, id, asked); err != nil {
			failures = append(failures, fmt.Errorf("give up node %s: %w", id, err))
		}
	}
	wait := r.giveUpAfter() / 4 // a node may be heard for the first time
	if !heard.IsZero() {
		wait = min(wait, heard.Add(r.giveUpAfter()).Sub(r.now()))
	}
	return r.db.Now().Add(wait), errors.Join(failures...)
}

// expectNodes counts every node that should be heard as heard now unless it
// was heard already.
func (r *Room) expectNodes(ctx context.Context) error {
	var nodes []batch.NodeID
	err := r.db.View(ctx, func(tx *store.Tx) (err error) {
		nodes, err = tx.AwaitedNodes()
		return err
	})
	now := r.now()
	for _, id := range nodes {
		r.memory.expect(id, now)
	}
	return err
}

// errDeaf says that a transaction had to wait for so long that reports had to as
// well.
var errDeaf = errors.New("the database did not answer")

// loseNode gives up one node, unless it was heard since a time at which it was
// found to be silent. While the database does not answer nobody is heard, so then
// it is not the node that is silent: it has more time.
func (r *Room) loseNode(ctx context.Context, id batch.NodeID, asked time.Time) error {
	if !r.memory.beginLoss(id, r.now().Add(-r.giveUpAfter())) {
		return nil
	}
	lost := false
	err := r.db.Update(ctx, func(tx *store.Tx) (err error) {
		if r.now().Sub(asked) > r.giveUpAfter()/4 {
			return errDeaf
		}
		lost, err = r.giveUp(tx, id)
		return err
	})
	r.memory.endLoss(id, err == nil)
	if errors.Is(err, errDeaf) {
		r.memory.excuse(id, r.now())
		r.log.Warn("compute node has more time: nobody could be heard", "node", id, "waited", r.now().Sub(asked), "err", err)
		return nil
	}
	if err == nil && lost {
		r.metrics.lost.Inc()
		r.log.Warn("lost contact with compute node", "node", id, "silent", r.giveUpAfter())
	}
	return err
}

// giveUp gives up a node and tells whether there was something to give up.
func (r *Room) giveUp(tx *store.Tx, id batch.NodeID) (bool, error) {
	n, err := tx.Node(id)
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	l := r.control.Ledger(tx, n.Account)
	switch {
	case n.Leaving != "":
		return true, l.DropNode(&n)
	case n.State == batch.NodeUnusable && !n.Unfit && n.BoundTasks == 0:
		return false, nil // its provider has said so, and nothing is left to do
	}
	l.Hold(&n)
	l.Touch(n.ID)
	if n.State != batch.NodeUnusable || n.Unfit {
		n.Lose(batch.NodeUnknown, tx.Now())
	}
	if err := l.Requeue(n.ID); err != nil {
		return false, err
	}
	return true, l.CloseHeld(&n)
}

// NodeGone notes that the provider of a node cannot bring its agent back. The
// node is unusable from now on; what it may still run is queued again when its
// lease is over.
func (r *Room) NodeGone(ctx context.Context, id batch.NodeID) error {
	return r.db.Update(ctx, func(tx *store.Tx) error {
		n, err := tx.Node(id)
		if errors.Is(err, store.ErrNotFound) {
			return batch.NotFound("compute node", id)
		}
		if err != nil || !n.Lose(batch.NodeUnusable, tx.Now()) {
			return err
		}
		tx.Changed(control.TopicResize)
		return tx.UpdateNode(&n)
	})
}
