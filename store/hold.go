package store

import (
	"context"
	"fmt"
	"time"
)

// holdName is the row, among those that say who may run a loop, that keeps all
// servers from giving tasks to nodes.
const holdName = "tasks held"

// HoldTasks keeps servers from giving tasks to nodes until the first of them has
// run for as long as a node may go on without its server. It is for a database
// that was put back to an earlier time, or mended: there may be nodes that still
// run tasks of which it knows nothing, and these must have ended before anyone
// runs them again. No clock is trusted but that of the server that waits.
func (tx *Tx) HoldTasks() error {
	_, err := tx.Exec(`
		INSERT INTO lease (name, holder, epoch, beat)
		VALUES ($1, '', 1, 0)
		ON CONFLICT (name) DO UPDATE SET epoch = lease.epoch + 1`, holdName)
	if err != nil {
		return fmt.Errorf("hold tasks: %w", err)
	}
	return nil
}

// TasksHeld tells whether tasks are held, and how often that was asked for.
func (tx *Tx) TasksHeld() (epoch int64, held bool, err error) {
	err = tx.QueryRow(`SELECT epoch FROM lease WHERE name = $1`, holdName).Scan(&epoch)
	if isNone(err) {
		return 0, false, nil
	}
	return epoch, err == nil, err
}

// AwaitTasks returns when tasks may be given to nodes: at once, or, if tasks are
// held, after the given time. When ctx ends it returns nil and leaves the wait to
// the next server.
func (db *DB) AwaitTasks(ctx context.Context, wait time.Duration) error {
	var epoch int64
	var held bool
	err := db.View(ctx, func(tx *Tx) (err error) {
		epoch, held, err = tx.TasksHeld()
		return err
	})
	if err != nil && ctx.Err() == nil {
		return err
	}
	if !held {
		return nil
	}
	db.log.Warn("database was restored or mended: no task starts until nodes of before have ended theirs", "wait", wait)
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return nil
	case <-timer.C:
	}
	return db.Update(ctx, func(tx *Tx) error {
		_, err := tx.Exec(`DELETE FROM lease WHERE name = $1 AND epoch = $2`, holdName, epoch)
		return err
	})
}
