package control

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"time"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/store"
)

// PoolStep is what a pool does next on its way to its target.
type PoolStep struct {
	// AddDedicated and AddLowPriority nodes are to be made.
	AddDedicated, AddLowPriority int
	// Leave are nodes that are to leave the pool.
	Leave []batch.NodeID
	// Settle ends the resize, with Errors if it was not reached.
	Settle bool
	Errors []batch.ResizeError
	// Delete removes the pool, which has no nodes.
	Delete bool
}

// none tells whether there is nothing to do.
func (s PoolStep) none() bool {
	return s.AddDedicated+s.AddLowPriority+len(s.Leave) == 0 && !s.Settle && !s.Delete
}

// ResizingPools returns the pools of all accounts that are on their way to a
// target, or to their end.
func (s *Service) ResizingPools(ctx context.Context) ([]batch.Pool, error) {
	var pools []batch.Pool
	err := s.db.View(ctx, func(tx *store.Tx) (err error) {
		pools, err = tx.ResizingPools()
		return err
	})
	return pools, err
}

// StepPool lets decide look at a pool and its nodes, and does what it says, in
// one transaction. Decide runs inside it, so it must be quick and do nothing
// else.
func (s *Service) StepPool(ctx context.Context, account batch.AccountName, id batch.PoolID,
	decide func(p *batch.Pool, nodes []batch.Node, now time.Time) PoolStep,
) error {
	return s.db.Update(ctx, func(tx *store.Tx) error {
		p, err := tx.Pool(account, id)
		if errors.Is(err, store.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		nodes, err := tx.Nodes(account, id, store.List{})
		if err != nil {
			return err
		}
		step := decide(&p, nodes, tx.Now())
		if step.none() {
			return nil
		}
		return s.takeStep(tx, &p, nodes, step)
	})
}

func (s *Service) takeStep(tx *store.Tx, p *batch.Pool, nodes []batch.Node, step PoolStep) error {
	if step.Delete {
		tx.Changed(TopicPools)
		return tx.DeletePool(p.Account, p.ID)
	}
	if err := s.addNodes(tx, p, step.AddDedicated, step.AddLowPriority); err != nil {
		return err
	}
	if len(step.Leave) > 0 {
		leaving := make(map[batch.NodeID]bool, len(step.Leave))
		for _, id := range step.Leave {
			leaving[id] = true
		}
		var chosen []batch.Node
		for i := range nodes {
			if leaving[nodes[i].ID] {
				chosen = append(chosen, nodes[i])
			}
		}
		if err := s.leave(tx, p, chosen, p.Deallocation); err != nil {
			return err
		}
		tx.Changed(TopicResize)
	}
	if step.AddDedicated+step.AddLowPriority > 0 {
		tx.Changed(TopicResize)
	}
	if step.Settle {
		p.Settle(step.Errors, tx.Now())
	}
	return tx.UpdatePool(p)
}

// addNodes makes rows of nodes; package fleet makes the nodes.
func (s *Service) addNodes(tx *store.Tx, p *batch.Pool, dedicated, lowPriority int) error {
	if dedicated+lowPriority == 0 {
		return nil
	}
	nodes := make([]batch.Node, 0, dedicated+lowPriority)
	for range dedicated {
		nodes = append(nodes, batch.NewNode(p, newNodeID("d"), true, tx.Now()))
	}
	for range lowPriority {
		nodes = append(nodes, batch.NewNode(p, newNodeID("p"), false, tx.Now()))
	}
	p.CurrentDedicatedNodes += dedicated
	p.CurrentLowPriorityNodes += lowPriority
	tx.Changed(TopicNodes)
	return tx.InsertNodes(nodes)
}

// newNodeID is an id as the service makes them; kind is d for dedicated nodes
// and p for the others.
func newNodeID(kind string) batch.NodeID {
	random := make([]byte, 32)
	_, _ = rand.Read(random) // never fails, by its documentation
	return batch.NodeID("tvmps_" + hex.EncodeToString(random) + "_" + kind)
}
