package control

import (
	"context"
	"time"

	"github.com/batchyard/batchyard/store"
)

// RemoveExpiredFiles asks nodes to remove the directories of completed tasks
// whose retention is over, a slice of them, and returns when to look again: now
// if there may be more, the zero time if no task has files that expire.
func (s *Service) RemoveExpiredFiles(ctx context.Context) (next time.Time, err error) {
	err = s.db.Update(ctx, func(tx *store.Tx) error {
		tasks, err := tx.ExpiredTasks(tx.Now(), slice)
		if err != nil {
			return err
		}
		ledgers := make(map[string]*Ledger)
		for i := range tasks {
			t := &tasks[i]
			l := ledgers[string(t.Account)]
			if l == nil {
				l = s.Ledger(tx, t.Account)
				ledgers[string(t.Account)] = l
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
		next, _, err = tx.NextTaskExpiry()
		return err
	})
	return next, err
}
