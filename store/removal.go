package store

import (
	"fmt"

	"github.com/batchyard/batchyard/batch"
)

// Removal is a directory that a node is asked to remove: of a task, or of a
// whole job if Task is empty. Its number is the caller's, unique for the node.
type Removal struct {
	Node batch.NodeID
	ID   int64
	Job  batch.JobID
	Task batch.TaskID
}

// AddRemovals asks nodes to remove directories. What a node is asked already
// stays as it is; a node that is gone has nothing left to remove.
func (tx *Tx) AddRemovals(removals []Removal) error {
	for from, to := range cut(len(removals)) {
		args := make([]any, 0, 4*(to-from))
		for _, r := range removals[from:to] {
			args = append(args, batch.Key(r.Node), r.ID, string(r.Job), string(r.Task))
		}
		_, err := tx.Exec(`
			INSERT INTO removal (node, id, job, task)
			SELECT v.column1, v.column2, v.column3, v.column4
			FROM (VALUES `+tuples(1, to-from, "text", "bigint", "text", "text")+`) AS v
			JOIN node ON node.id = v.column1
			WHERE TRUE
			ON CONFLICT DO NOTHING`, args...)
		if err != nil {
			return fmt.Errorf("add removals: %w", err)
		}
	}
	return nil
}

// Removals returns what a node is asked to remove, of numbers above one, the
// lowest first.
func (tx *Tx) Removals(node batch.NodeID, above int64, limit int) ([]batch.Removal, error) {
	rows, err := tx.Query(`
		SELECT id, job, task
		FROM removal
		WHERE node = $1 AND id > $2
		ORDER BY id
		LIMIT $3`, batch.Key(node), above, limit)
	return all("list removals", rows, err, func(row scanner) (r batch.Removal, err error) {
		return r, row.Scan(&r.ID, &r.Job, &r.Task)
	})
}

// RemovalsOf returns those of a node's removals that take directories of some
// tasks or of their jobs.
func (tx *Tx) RemovalsOf(node batch.NodeID, tasks []TaskRef) (removals []batch.Removal, err error) {
	jobs := map[batch.JobID]bool{}
	var places []TaskRef
	for _, t := range tasks {
		if !jobs[t.Job] {
			jobs[t.Job] = true
			places = append(places, TaskRef{Job: t.Job})
		}
		places = append(places, t)
	}
	for from, to := range cut(len(places)) {
		args := make([]any, 1, 1+2*(to-from))
		args[0] = batch.Key(node)
		for _, p := range places[from:to] {
			args = append(args, string(p.Job), string(p.Task))
		}
		rows, err := tx.Query(`
			SELECT r.id, r.job, r.task
			FROM (VALUES `+tuples(2, to-from, "text", "text")+`) AS v
			JOIN removal AS r ON r.node = $1 AND r.job = v.column1 AND r.task = v.column2
			ORDER BY r.id`, args...)
		some, err := all("list removals of tasks", rows, err, func(row scanner) (r batch.Removal, err error) {
			return r, row.Scan(&r.ID, &r.Job, &r.Task)
		})
		if err != nil {
			return nil, err
		}
		removals = append(removals, some...)
	}
	return removals, nil
}

// DropRemovals forgets what a node has removed.
func (tx *Tx) DropRemovals(node batch.NodeID, ids []int64) error {
	for from, to := range cut(len(ids)) {
		args := make([]any, 1, 1+to-from)
		args[0] = batch.Key(node)
		for _, id := range ids[from:to] {
			args = append(args, id)
		}
		_, err := tx.Exec(`
			DELETE FROM removal
			WHERE node = $1 AND id IN (`+parameters(2, to-from)+`)`, args...)
		if err != nil {
			return fmt.Errorf("drop removals: %w", err)
		}
	}
	return nil
}
