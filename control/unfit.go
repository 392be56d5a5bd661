package control

import (
	"context"
	"errors"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/store"
)

// FailUnfit fails one slice of the tasks that wait for nodes of a pool which
// have fewer slots than they need, and tells whether those were all. Such tasks
// are refused when they are added, reactivated or moved with their job; these
// waited when the pool was not there, or was another of the same id. The
// scheduler passes them over.
func (s *Service) FailUnfit(ctx context.Context) (done bool, err error) {
	err = s.db.View(ctx, func(tx *store.Tx) error {
		_, err := tx.UnfitQueue()
		return err
	})
	if errors.Is(err, store.ErrNotFound) {
		return true, nil // as ever; nobody waits for the look
	}
	if err != nil {
		return false, err
	}
	err = s.db.Update(ctx, func(tx *store.Tx) error {
		unfit, err := tx.UnfitQueue()
		if err != nil {
			return err
		}
		tasks, err := tx.WaitingTasks(unfit.Account, unfit.QueueRef, slice)
		if err != nil {
			return err
		}
		if len(tasks) == 0 { // a broken database; the look for such queues is to end
			return tx.TendQueues(unfit.Account, []store.QueueRef{unfit.QueueRef})
		}
		l := s.Ledger(tx, unfit.Account)
		for i := range tasks {
			t := &tasks[i]
			if err := l.Change(t, func() error { return t.Misfit(unfit.Pool, unfit.NodeSlots, tx.Now()) }); err != nil {
				return err
			}
		}
		return l.Close()
	})
	if errors.Is(err, store.ErrNotFound) {
		err = nil
	}
	return false, err
}

// checkFit refuses tasks that need more slots than a node of a pool has.
func checkFit(p *batch.Pool, property string, value any, slots int) error {
	if slots <= p.TaskSlotsPerNode {
		return nil
	}
	return batch.InvalidValue(property, value, "A task needs %d task slots, and the nodes of pool %s have %d each", slots, p.ID, p.TaskSlotsPerNode)
}

// checkMove refuses to move a job to a pool where a task of it that waits could
// never run. A job without a pool waits for one.
func checkMove(tx *store.Tx, job *batch.Job) error {
	p, err := tx.Pool(job.Account, job.PoolInfo.PoolID)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	most, err := tx.MostSlots(job.Account, job.ID)
	if err != nil {
		return err
	}
	return checkFit(&p, "poolInfo.poolId", p.ID, most)
}
