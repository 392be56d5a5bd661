package store

import (
	"github.com/batchyard/batchyard/batch"
)

// ReadyTask is a task that waits for a node, as the scheduler looks at it.
type ReadyTask struct {
	TaskRef
	Sequence int64
	Slots    int
	Affinity string       // the key of the node near which it likes to run, or empty
	Was      batch.NodeID // where it ran before, or empty
}

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

// ReadyTasks returns tasks of a job that wait for a node, the oldest first.
func (tx *Tx) ReadyTasks(account batch.AccountName, job batch.JobID, limit int) ([]ReadyTask, error) {
	rows, err := tx.Query(`
		SELECT id, name, seq, slots, affinity, node
		FROM task
		WHERE account = $1 AND job = $2 AND state = 'active' AND NOT bound
		ORDER BY seq
		LIMIT $3`, string(account), batch.Key(job), limit)
	return all("list ready tasks", rows, err, func(row scanner) (ReadyTask, error) {
		t := ReadyTask{TaskRef: TaskRef{Job: job}}
		var key, own string
		err := row.Scan(&key, &own, &t.Sequence, &t.Slots, &t.Affinity, &t.Was)
		t.Task = named[batch.TaskID](key, own)
		return t, err
	})
}

// BindTasks gives tasks of an account to nodes, as a new attempt of each, and
// returns those that were still waiting for a node, of jobs that still run tasks
// and with nodes that still take some. They stay active until the node reports
// that they have begun, so neither stamp nor times change.
//
// Job and node are asked by scalar queries and not joined, and CASE keeps the
// partial indexes out: without statistics PostgreSQL takes each of these for a
// shorter way than the key, and reads all tasks of the job.
func (tx *Tx) BindTasks(account batch.AccountName, bindings []Binding) ([]Bound, error) {
	var bound []Bound
	for from, to := range cut(len(bindings)) {
		args := make([]any, 1, 1+3*(to-from))
		args[0] = string(account)
		jobs := make(map[string]batch.JobID)
		for _, b := range bindings[from:to] {
			key := batch.Key(b.Job)
			jobs[key] = b.Job
			args = append(args, key, batch.Key(b.Task), batch.Key(b.Node))
		}
		rows, err := tx.Query(`
			UPDATE task
			SET node = v.column3, bound = TRUE, attempt = attempt + 1, release = '',
				pool_name = (SELECT job.pool_name FROM job WHERE job.account = $1 AND job.id = v.column1)
			FROM (VALUES `+tuples(2, to-from, "text", "text", "text")+`) AS v
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
