package control

import (
	"context"
	"errors"
	"time"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/store"
)

// giveUpAfter is how long a node may be silent before its tasks are queued
// again. It is longer than the lease, by which time the agent has killed them.
func (s *Service) giveUpAfter() time.Duration { return s.lease + s.lease/4 }

// ExpectNodes counts every node that is known to be in contact, or to hold
// tasks, as heard now unless it was heard already. A server calls it when it
// begins to watch over nodes.
func (s *Service) ExpectNodes(ctx context.Context) error {
	var nodes []batch.Node
	err := s.db.View(ctx, func(tx *store.Tx) (err error) {
		nodes, err = tx.AllNodes()
		return err
	})
	now := s.now()
	for i := range nodes {
		if n := &nodes[i]; n.State != batch.NodeCreating && (n.State != batch.NodeUnknown || n.BoundTasks > 0 || n.Leaving != "") {
			s.contacts.expect(n.ID, now)
		}
	}
	return err
}

// LoseNodes gives up the nodes that were silent for too long, and returns when
// to look again.
func (s *Service) LoseNodes(ctx context.Context) (next time.Time, err error) {
	silent, heard := s.contacts.silent(s.now().Add(-s.giveUpAfter()))
	for _, id := range silent {
		if err := s.loseNode(ctx, id); err != nil {
			return time.Time{}, err
		}
	}
	next = s.now().Add(s.giveUpAfter() / 4) // a node may be heard for the first time
	if due := heard.Add(s.giveUpAfter()); !heard.IsZero() && due.Before(next) {
		next = due
	}
	return next, nil
}

// loseNode gives up one node, unless it was heard in the meantime: a call of
// the node notes its contact inside its transaction, and this one looks inside
// its own.
func (s *Service) loseNode(ctx context.Context, id batch.NodeID) error {
	lost, gone := false, false
	err := s.db.Update(ctx, func(tx *store.Tx) error {
		lost, gone = false, false
		if s.contacts.last(id).After(s.now().Add(-s.giveUpAfter())) {
			return nil
		}
		n, err := tx.Node(id)
		if errors.Is(err, store.ErrNotFound) {
			gone = true
			return nil
		}
		if err != nil {
			return err
		}
		lost = true
		l := s.ledger(tx, n.Account)
		if n.Leaving != "" {
			return l.dropLost(&n)
		}
		l.hold(&n)
		l.touch(n.ID)
		if n.State != batch.NodeUnusable || n.Unfit {
			n.Lose(batch.NodeUnknown, tx.Now())
		}
		if err := l.requeue(n.ID); err != nil {
			return err
		}
		return l.closeHeld(&n)
	})
	if err == nil && (lost || gone) {
		s.contacts.forget(id)
	}
	if err == nil && lost {
		s.metrics.lost.Inc()
		s.log.Warn("lost contact with compute node", "node", id, "silent", s.giveUpAfter())
	}
	return err
}

// dropLost removes a node that was to leave and is not there any more.
func (l *ledger) dropLost(n *batch.Node) error {
	p, err := l.tx.Pool(n.Account, n.Pool)
	if err != nil {
		return err
	}
	if err := l.drop(&p, n); err != nil {
		return err
	}
	if err := l.close(); err != nil {
		return err
	}
	return l.tx.UpdatePool(&p)
}

// NodeGone notes that the provider of a node cannot bring its agent back. The
// node is unusable from now on; what it may still run is queued again when its
// lease is over.
func (s *Service) NodeGone(ctx context.Context, id batch.NodeID) error {
	err := s.db.Update(ctx, func(tx *store.Tx) error {
		n, err := tx.Node(id)
		if errors.Is(err, store.ErrNotFound) {
			return batch.NotFound("compute node", id)
		}
		if err != nil || !n.Lose(batch.NodeUnusable, tx.Now()) {
			return err
		}
		tx.Changed(TopicResize)
		return tx.UpdateNode(&n)
	})
	if err == nil {
		s.contacts.expect(batch.NodeID(batch.Key(id)), s.now())
	}
	return err
}
