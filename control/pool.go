package control

import (
	"context"
	"errors"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/store"
)

// AddPool adds a pool, which begins to move towards its target. PoolExists if
// the id is taken.
func (s *Service) AddPool(ctx context.Context, account batch.AccountName, spec batch.PoolSpecification) (batch.Stamp, error) {
	if err := spec.Normalize(); err != nil {
		return 0, err
	}
	var stamp batch.Stamp
	err := s.db.Update(ctx, func(tx *store.Tx) error {
		p := batch.NewPool(account, spec, tx.Now())
		stamp = p.Stamp
		tx.Changed(TopicPools, TopicResize, TopicUnfit)
		err := tx.InsertPool(&p)
		if store.IsDuplicate(err) {
			return batch.Errorf(batch.CodePoolExists, "The specified pool already exists: %q.", spec.ID)
		}
		return err
	})
	return stamp, err
}

// Pool returns a pool; PoolNotFound if there is none.
func (s *Service) Pool(ctx context.Context, account batch.AccountName, id batch.PoolID) (batch.Pool, error) {
	var p batch.Pool
	err := s.db.View(ctx, func(tx *store.Tx) (err error) {
		p, err = findPool(tx, account, id)
		return err
	})
	return p, err
}

// Pools returns a page of an account's pools, ordered by id.
func (s *Service) Pools(ctx context.Context, account batch.AccountName, q Query) (Page[batch.Pool], error) {
	list, err := q.list(poolFields, maxPage)
	if err != nil {
		return Page[batch.Pool]{}, err
	}
	var pools []batch.Pool
	err = s.db.View(ctx, func(tx *store.Tx) (err error) {
		pools, err = tx.Pools(account, list)
		return err
	})
	return page(pools, list, func(p *batch.Pool) string { return batch.Key(p.ID) }), err
}

// PatchPool changes what the patch carries.
func (s *Service) PatchPool(ctx context.Context, account batch.AccountName, id batch.PoolID, patch batch.PoolPatch, c batch.Conditions) (batch.Stamp, error) {
	return s.changePool(ctx, account, id, c, func(tx *store.Tx, p *batch.Pool) error {
		tx.Changed(ReadyTopic(account, id), TopicUnfit) // its fill type and slots may be others
		return p.Patch(patch, tx.Now())
	})
}

// ReplacePool replaces start task and metadata, and drops those that the patch
// does not carry.
func (s *Service) ReplacePool(ctx context.Context, account batch.AccountName, id batch.PoolID, patch batch.PoolPatch, c batch.Conditions) (batch.Stamp, error) {
	return s.changePool(ctx, account, id, c, func(tx *store.Tx, p *batch.Pool) error {
		return p.Replace(patch, tx.Now())
	})
}

// DeletePool begins to delete a pool, which is gone when its nodes are.
func (s *Service) DeletePool(ctx context.Context, account batch.AccountName, id batch.PoolID, c batch.Conditions) error {
	_, err := s.changePool(ctx, account, id, c, func(tx *store.Tx, p *batch.Pool) error {
		tx.Changed(TopicPools, TopicResize)
		return p.Delete(tx.Now())
	})
	return err
}

// ResizePool sets new targets; PoolBeingResized while the pool moves towards
// others.
func (s *Service) ResizePool(ctx context.Context, account batch.AccountName, id batch.PoolID, r batch.PoolResize, c batch.Conditions) (batch.Stamp, error) {
	return s.changePool(ctx, account, id, c, func(tx *store.Tx, p *batch.Pool) error {
		tx.Changed(TopicResize)
		return p.Resize(r, tx.Now())
	})
}

// StopResize ends a resize where it stands.
func (s *Service) StopResize(ctx context.Context, account batch.AccountName, id batch.PoolID, c batch.Conditions) (batch.Stamp, error) {
	return s.changePool(ctx, account, id, c, func(tx *store.Tx, p *batch.Pool) error {
		tx.Changed(TopicResize)
		return p.StopResize(tx.Now())
	})
}

// RemoveNodes asks named nodes to leave the pool and lowers its targets by as
// many. Names that no node of the pool has are passed over.
func (s *Service) RemoveNodes(ctx context.Context, account batch.AccountName, id batch.PoolID, r batch.NodeRemoval, c batch.Conditions) (batch.Stamp, error) {
	return s.changePool(ctx, account, id, c, func(tx *store.Tx, p *batch.Pool) error {
		nodes, err := nodesToRemove(tx, p, r.NodeList)
		if err != nil {
			return err
		}
		dedicated, low := 0, 0
		for i := range nodes {
			switch n := &nodes[i]; {
			case n.Leaving != "": // its pool's target was lowered before
			case n.Dedicated:
				dedicated++
			default:
				low++
			}
		}
		removal := r
		if err := p.RemoveNodes(&removal, dedicated, low, tx.Now()); err != nil {
			return err
		}
		tx.Changed(TopicResize)
		return s.leave(tx, p, nodes, removal.NodeDeallocationOption)
	})
}

// nodesToRemove are those of the names that are nodes of the pool and stay, if
// only for the files on them.
func nodesToRemove(tx *store.Tx, p *batch.Pool, ids []batch.NodeID) ([]batch.Node, error) {
	if len(ids) > maxRemovedNodes {
		return nil, nil // Pool.RemoveNodes says what is wrong
	}
	nodes, err := tx.NodesByID(ids)
	var ours []batch.Node
	for _, n := range nodes {
		if n.Account == p.Account && batch.Key(n.Pool) == batch.Key(p.ID) && (n.Leaving == "" || n.Retains()) {
			ours = append(ours, n)
		}
	}
	return ours, err
}

// maxRemovedNodes is how many nodes one request may name.
const maxRemovedNodes = 100

// maxCountPage is the largest page of node counts.
const maxCountPage = 10

// PoolNodeCounts returns a page of how many nodes each pool has in each state.
func (s *Service) PoolNodeCounts(ctx context.Context, account batch.AccountName, q Query) (Page[batch.PoolNodeCounts], error) {
	none := Page[batch.PoolNodeCounts]{}
	list, err := q.list(countFields, maxCountPage)
	if err != nil {
		return none, err
	}
	var items []batch.PoolNodeCounts
	err = s.db.View(ctx, func(tx *store.Tx) error {
		pools, err := tx.Pools(account, list)
		if err != nil {
			return err
		}
		ids := make([]batch.PoolID, len(pools))
		for i := range pools {
			ids[i] = pools[i].ID
		}
		counts, err := tx.CountNodes(account, ids)
		items = nil
		for _, id := range ids {
			c := counts[batch.Key(id)]
			c.Pool = id
			items = append(items, c)
		}
		return err
	})
	if err != nil {
		return none, err
	}
	return page(items, list, func(c *batch.PoolNodeCounts) string { return batch.Key(c.Pool) }), nil
}

// changePool runs a change of one pool in a transaction and writes it.
func (s *Service) changePool(ctx context.Context, account batch.AccountName, id batch.PoolID, c batch.Conditions,
	change func(*store.Tx, *batch.Pool) error,
) (batch.Stamp, error) {
	var stamp batch.Stamp
	err := s.db.Update(ctx, func(tx *store.Tx) error {
		p, err := findPool(tx, account, id)
		if err != nil {
			return err
		}
		if err := c.Check(p.Stamp, false); err != nil {
			return err
		}
		if err := change(tx, &p); err != nil {
			return err
		}
		stamp = p.Stamp
		return tx.UpdatePool(&p)
	})
	return stamp, err
}

// findPool reads a pool that the caller named.
func findPool(tx *store.Tx, account batch.AccountName, id batch.PoolID) (batch.Pool, error) {
	p, err := tx.Pool(account, id)
	if errors.Is(err, store.ErrNotFound) {
		return p, batch.NotFound("pool", id)
	}
	return p, err
}

// parentPool reads a pool on the way to something else, of which the protocol
// says ResourceNotFound.
func parentPool(tx *store.Tx, account batch.AccountName, id batch.PoolID) (batch.Pool, error) {
	p, err := tx.Pool(account, id)
	if errors.Is(err, store.ErrNotFound) {
		return p, batch.Errorf(batch.CodeResourceNotFound, "The specified pool does not exist: %q.", id)
	}
	return p, err
}
