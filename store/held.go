package store

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/batchyard/batchyard/batch"
)

// HeldTask is a task that a node holds, as its orders name it.
type HeldTask struct {
	TaskRef
	Sequence int64
	Slots    int
	State    batch.TaskState
	Attempt  int
	Release  batch.Release
}

// HeldTasks returns what a node holds, in any order: the few columns that are
// wanted each time the node calls.
func (tx *Tx) HeldTasks(node batch.NodeID) ([]HeldTask, error) {
	rows, err := tx.Query(`
		SELECT job, `+ownJobName+`, id, name, seq, slots, state, attempt, release
		FROM task
		WHERE node = $1 AND task.bound`, batch.Key(node))
	return all("list held tasks", rows, err, func(row scanner) (t HeldTask, err error) {
		var job, jobOwn, key, own string
		err = row.Scan(&job, &jobOwn, &key, &own, &t.Sequence, &t.Slots, &t.State, &t.Attempt, &t.Release)
		t.Job, t.Task = named[batch.JobID](job, jobOwn), named[batch.TaskID](key, own)
		return t, err
	})
}

// RetainedUntil is when the retention of the last files on a node is over; the
// zero time if it keeps none. Kept tells that it never is. It looks at all tasks
// whose files are kept.
func (tx *Tx) RetainedUntil(node batch.NodeID) (until time.Time, kept bool, err error) {
	var at sql.NullInt64
	err = tx.QueryRow(`
		SELECT max(expires)
		FROM task
		WHERE node = $1 AND expires > 0`, batch.Key(node)).Scan(&at)
	if err != nil {
		return until, false, fmt.Errorf("get retention of node: %w", err)
	}
	if at.Int64 == forever {
		return until, true, nil
	}
	return tx.dueDate(at), false, nil
}

// RunsByRef returns the named tasks, as far as they exist, in any order and in
// the short form.
func (tx *Tx) RunsByRef(account batch.AccountName, refs []TaskRef) ([]batch.Task, error) {
	return byRef(tx, "task", account, refs, taskColumns+", "+ownJobName, scanShort)
}

// byRef reads columns of named tasks from a table that has their keys.
func byRef[T any](tx *Tx, table string, account batch.AccountName, refs []TaskRef, columns string, scan func(scanner) (T, error)) ([]T, error) {
	var items []T
	for from, to := range cut(len(refs)) {
		args := make([]any, 1, 1+2*(to-from))
		args[0] = string(account)
		for _, ref := range refs[from:to] {
			args = append(args, batch.Key(ref.Job), batch.Key(ref.Task))
		}
		rows, err := tx.Query(`
			SELECT `+columns+`
			FROM (VALUES `+tuples(2, to-from, "text", "text")+`) AS v
			CROSS JOIN `+table+` -- cross: SQLite shall begin with the values
			WHERE `+table+`.account = $1 AND `+table+`.job = v.column1 AND `+table+`.id = v.column2`, args...)
		some, err := all("get tasks", rows, err, scan)
		if err != nil {
			return nil, err
		}
		items = append(items, some...)
	}
	return items, nil
}

// Glance is a View for a brief read that follows close on an update, as when
// somebody was just woken by one. With SQLite it takes its turn among the
// updates: the writer's connection has at hand what was just written, while a
// connection that only reads begins anew after each commit. It may see what is
// being committed with it, and returns after that is on disk.
func (db *DB) Glance(ctx context.Context, fn func(tx *Tx) error) error {
	if db.Dialect() != SQLite {
		return db.View(ctx, fn)
	}
	return db.Update(ctx, func(tx *Tx) error {
		tx.readOnly = true
		return fn(tx)
	})
}
