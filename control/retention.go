package control

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/store"
)

// RemoveExpiredFiles asks nodes to remove the directories of completed tasks
// whose retention is over, a slice of them, and returns when to look again: now
// if there may be more, the zero time if no task has files that expire. A task
// of which that cannot be written down does not keep others from it; the error
// names it.
func (s *Service) RemoveExpiredFiles(ctx context.Context) (next time.Time, err error) {
	var tasks []batch.Task
	err = s.db.Update(ctx, func(tx *store.Tx) (err error) {
		if tasks, err = tx.ExpiredTasks(tx.Now(), slice); err != nil {
			return err
		}
		return s.expireFiles(tx, tasks)
	})
	if err != nil && len(tasks) > 1 {
		err = s.expireEach(ctx, tasks)
	}
	return next, errors.Join(err, s.db.View(ctx, func(tx *store.Tx) (err error) {
		next, _, err = tx.NextTaskExpiry()
		return err
	}))
}

// expireEach is expireFiles for one task after the other.
func (s *Service) expireEach(ctx context.Context, tasks []batch.Task) error {
	var failures []error
	for i := range tasks {
		ref := &tasks[i]
		err := s.db.Update(ctx, func(tx *store.Tx) error {
			t, err := tx.Task(ref.Account, ref.Job, ref.ID)
			if errors.Is(err, store.ErrNotFound) {
				return nil
			}
			if err != nil || t.FilesExpire().IsZero() {
				return err
			}
			return s.expireFiles(tx, []batch.Task{t})
		})
		if err != nil {
			failures = append(failures, fmt.Errorf("remove files of task %s of job %s of %s: %w", ref.ID, ref.Job, ref.Account, err))
		}
	}
	return errors.Join(failures...)
}

// expireFiles asks for the directories of tasks to be removed.
func (s *Service) expireFiles(tx *store.Tx, tasks []batch.Task) error {
	ledgers := make(map[batch.AccountName]*Ledger)
	for i := range tasks {
		t := &tasks[i]
		l := ledgers[t.Account]
		if l == nil {
			l = s.Ledger(tx, t.Account)
			ledgers[t.Account] = l
		}
		if err := l.removeFiles(t); err != nil {
			return err
		}
		t.FilesRemoved = true
		l.save(t)
	}
	for _, l := range ledgers {
		if err := l.Close(); err != nil {
			return err
		}
	}
	return nil
}
