package store

import (
	"github.com/batchyard/batchyard/batch"
)

// Binding gives a task to a node.
type Binding struct {
	TaskRef
	Node batch.NodeID
}

// Bound is a task that a node got.
type Bound struct {
	TaskRef
	Node  batch.NodeID
	Slots int
}

// BindTasks gives tasks of an account to nodes of a pool, as a new attempt of
// each, and returns those that were still waiting for a node, of jobs that still
// run tasks and with nodes that still take some. They stay active until the node
// reports that they have begun, so neither stamp nor times change. The queues
// they leave are for the caller to tend.
//
// Job and node are asked by scalar queries and not joined, and CASE keeps the
// partial indexes out: without statistics PostgreSQL takes each of these for a
// shorter way than the key, and reads all tasks of the job.
func (tx *Tx) BindTasks(account batch.AccountName, pool batch.PoolID, bindings []Binding) ([]Bound, error) {
	var bound []Bound
	for from, to := range cut(len(bindings)) {
		args := make([]any, 2, 2+3*(to-from))
		args[0], args[1] = string(account), string(pool)
		jobs := make(map[string]batch.JobID)
		for _, b := range bindings[from:to] {
			key := batch.Key(b.Job)
			jobs[key] = b.Job
			args = append(args, key, batch.Key(b.Task), batch.Key(b.Node))
		}
		rows, err := tx.Query(`
			UPDATE task
			SET node = v.column3, bound = TRUE, attempt = attempt + 1, release = '', pool_name = $2
			FROM (VALUES `+tuples(3, to-from, "text", "text", "text")+`) AS v
			WHERE task.account = $1 AND task.job = v.column1 AND task.id = v.column2
				AND CASE WHEN task.bound THEN FALSE ELSE task.state = 'active' END
				AND (SELECT job.state FROM job WHERE job.account = $1 AND job.id = v.column1) = 'active'
				AND (SELECT node.takes FROM node WHERE node.id = v.column3)
			RETURNING task.job, task.id, task.name, task.node, task.slots`, args...)
		some, err := all("bind tasks", rows, err, func(row scanner) (Bound, error) {
			return scanBound(row, jobs)
		})
		if err != nil {
			return nil, err
		}
		bound = append(bound, some...)
	}
	return bound, nil
}

func scanBound(row scanner, jobs map[string]batch.JobID) (Bound, error) {
	var b Bound
	var job, key, own string
	err := row.Scan(&job, &key, &own, &b.Node, &b.Slots)
	b.Job, b.Task = jobs[job], named[batch.TaskID](key, own)
	return b, err
}
