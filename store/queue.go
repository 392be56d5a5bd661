package store

import (
	"fmt"

	"github.com/batchyard/batchyard/batch"
)

// QueueRef names a queue of an account: the tasks of a job that wait for a node
// and need the same number of its slots.
type QueueRef struct {
	Job   batch.JobID
	Slots int
}

// Queue is a queue that is not empty, of a job that may start one more task.
type Queue struct {
	QueueRef
	Priority    int
	MaxParallel int   // of the job, -1 for no limit
	Bound       int64 // tasks of the job that nodes hold
	Head        int64 // the sequence of the oldest task
}

// ReadyTask is a task that waits for a node, as the scheduler looks at it.
type ReadyTask struct {
	TaskRef
	Sequence int64
	Slots    int
	Affinity string       // the key of the node near which it likes to run, or empty
	Was      batch.NodeID // where it ran before, or empty
}

// QueueSlots returns for which numbers of slots a pool has open queues, in
// rising order. It steps through the index from one number to the next.
func (tx *Tx) QueueSlots(account batch.AccountName, pool batch.PoolID) ([]int, error) {
	const next = `
			SELECT queue.slots
			FROM queue
			WHERE queue.account = $1 AND queue.pool = $2 AND queue.open AND queue.head IS NOT NULL`
	rows, err := tx.Query(`
		WITH RECURSIVE step (slots) AS (
			SELECT (`+next+` ORDER BY queue.slots LIMIT 1)
			UNION ALL
			SELECT (`+next+` AND queue.slots > step.slots ORDER BY queue.slots LIMIT 1)
			FROM step
			WHERE step.slots IS NOT NULL
		)
		SELECT slots
		FROM step
		WHERE slots IS NOT NULL`, string(account), batch.Key(pool))
	return all("list slots of queues", rows, err, func(row scanner) (slots int, err error) {
		return slots, row.Scan(&slots)
	})
}

// OpenQueues returns the open queues of a pool whose tasks need so many slots,
// the most urgent first, and of equals that with the oldest task.
func (tx *Tx) OpenQueues(account batch.AccountName, pool batch.PoolID, slots, limit int) ([]Queue, error) {
	rows, err := tx.Query(`
		SELECT next.job, job.name, next.priority, job.max_parallel, job.bound, next.head
		FROM (
			SELECT account, job, priority, head
			FROM queue
			WHERE account = $1 AND pool = $2 AND slots = $3 AND open AND head IS NOT NULL
			ORDER BY priority DESC, head
			LIMIT $4
		) AS next
		JOIN job ON job.account = next.account AND job.id = next.job
		ORDER BY next.priority DESC, next.head`, string(account), batch.Key(pool), slots, limit)
	return all("list open queues", rows, err, func(row scanner) (Queue, error) {
		q := Queue{QueueRef: QueueRef{Slots: slots}}
		var key, own string
		err := row.Scan(&key, &own, &q.Priority, &q.MaxParallel, &q.Bound, &q.Head)
		q.Job = named[batch.JobID](key, own)
		return q, err
	})
}

// QueuedTasks returns tasks of a queue from a sequence number on, the oldest
// first.
func (tx *Tx) QueuedTasks(account batch.AccountName, queue QueueRef, from int64, limit int) ([]ReadyTask, error) {
	rows, err := tx.Query(`
		SELECT id, name, seq, affinity, node
		FROM task
		WHERE account = $1 AND job = $2 AND slots = $3 AND state = 'active' AND NOT bound AND seq >= $4
		ORDER BY seq
		LIMIT $5`, string(account), batch.Key(queue.Job), queue.Slots, from, limit)
	return all("list queued tasks", rows, err, func(row scanner) (ReadyTask, error) {
		t := ReadyTask{TaskRef: TaskRef{Job: queue.Job}, Slots: queue.Slots}
		var key, own string
		err := row.Scan(&key, &own, &t.Sequence, &t.Affinity, &t.Was)
		t.Task = named[batch.TaskID](key, own)
		return t, err
	})
}

// HeadTasks returns the oldest task of each queue, in any order.
func (tx *Tx) HeadTasks(account batch.AccountName, queues []Queue) ([]ReadyTask, error) {
	var tasks []ReadyTask
	for from, to := range cut(len(queues)) {
		args := make([]any, 1, 1+3*(to-from))
		args[0] = string(account)
		jobs := make(map[string]batch.JobID, to-from)
		for _, q := range queues[from:to] {
			key := batch.Key(q.Job)
			jobs[key] = q.Job
			args = append(args, key, q.Slots, q.Head)
		}
		rows, err := tx.Query(`
			SELECT task.job, task.id, task.name, task.seq, task.slots, task.affinity, task.node
			FROM (VALUES `+tuples(2, to-from, "text", "bigint", "bigint")+`) AS v
			CROSS JOIN task -- cross: SQLite shall begin with the values
			WHERE task.account = $1 AND task.job = v.column1 AND task.slots = v.column2 AND task.seq = v.column3
				AND task.state = 'active' AND NOT task.bound`, args...)
		some, err := all("get heads of queues", rows, err, func(row scanner) (t ReadyTask, err error) {
			var job, key, own string
			err = row.Scan(&job, &key, &own, &t.Sequence, &t.Slots, &t.Affinity, &t.Was)
			t.Job, t.Task = jobs[job], named[batch.TaskID](key, own)
			return t, err
		})
		if err != nil {
			return nil, err
		}
		tasks = append(tasks, some...)
	}
	return tasks, nil
}

// WaitingTasks returns tasks of a queue in the short form, the oldest first.
func (tx *Tx) WaitingTasks(account batch.AccountName, queue QueueRef, limit int) ([]batch.Task, error) {
	rows, err := tx.Query(`
		SELECT `+taskColumns+`, `+jobName+`
		FROM task
		WHERE account = $1 AND job = $2 AND slots = $3 AND state = 'active' AND NOT bound
		ORDER BY seq
		LIMIT $4`, string(account), batch.Key(queue.Job), queue.Slots, limit)
	return all("list waiting tasks", rows, err, scanShort)
}

// MostSlots is how many slots a task of a job needs that waits for a node; 0 if
// none waits.
func (tx *Tx) MostSlots(account batch.AccountName, job batch.JobID) (int, error) {
	return one("get slots of queues", tx.QueryRow(`
		SELECT COALESCE(max(slots), 0)
		FROM queue
		WHERE account = $1 AND job = $2 AND head IS NOT NULL`, string(account), batch.Key(job)), func(row scanner) (slots int, err error) {
		return slots, row.Scan(&slots)
	})
}

// UnfitQueue is an open queue whose tasks need more slots than a node of its
// pool has.
type UnfitQueue struct {
	Account batch.AccountName
	QueueRef
	NodeSlots int
	Pool      batch.PoolID // as the job names it
}

// UnfitQueue returns one such queue of any account, or ErrNotFound.
func (tx *Tx) UnfitQueue() (UnfitQueue, error) {
	return one("find unfit queue", tx.QueryRow(`
		SELECT queue.account, queue.job, queue.slots, pool.slots,
			(SELECT job.pool_name FROM job WHERE job.account = queue.account AND job.id = queue.job)
		FROM pool
		CROSS JOIN queue -- cross: SQLite shall begin with the pools
		WHERE pool.state = 'active' AND queue.account = pool.account AND queue.pool = pool.id
			AND queue.slots > pool.slots AND queue.open AND queue.head IS NOT NULL
		LIMIT 1`), func(row scanner) (q UnfitQueue, err error) {
		return q, row.Scan(&q.Account, &q.Job, &q.Slots, &q.NodeSlots, &q.Pool)
	})
}

// queueOpen is whether the queues of a job are open: it runs tasks and may run
// one more.
const queueOpen = `(job.state = 'active' AND (job.max_parallel < 0 OR job.bound < job.max_parallel))`

// queueHead is the oldest task of a queue, where column1 and column2 of v are
// the job and the slots.
const queueHead = `(
				SELECT task.seq
				FROM task
				WHERE task.account = $1 AND task.job = v.column1 AND task.slots = v.column2 AND task.state = 'active' AND NOT task.bound
				ORDER BY task.seq
				LIMIT 1)`

// TendQueues sets queues right, each named once, after tasks have joined or left
// them and the counts of their jobs are written. What is right already is not
// written.
func (tx *Tx) TendQueues(account batch.AccountName, queues []QueueRef) error {
	for from, to := range cut(len(queues)) {
		args := make([]any, 1, 1+2*(to-from))
		args[0] = string(account)
		for _, q := range queues[from:to] {
			args = append(args, batch.Key(q.Job), q.Slots)
		}
		_, err := tx.Exec(`
			INSERT INTO queue (account, job, slots, pool, priority, open, head)
			SELECT job.account, job.id, v.column2, job.pool, job.priority, `+queueOpen+`, `+queueHead+`
			FROM (VALUES `+tuples(2, to-from, "text", "bigint")+`) AS v
			CROSS JOIN job -- cross: SQLite shall begin with the values
			WHERE job.account = $1 AND job.id = v.column1
			ON CONFLICT (account, job, slots) DO UPDATE
			SET pool = excluded.pool, priority = excluded.priority, open = excluded.open, head = excluded.head
			WHERE queue.head IS DISTINCT FROM excluded.head OR queue.open <> excluded.open
				OR queue.pool <> excluded.pool OR queue.priority <> excluded.priority`, args...)
		if err != nil {
			return fmt.Errorf("tend queues: %w", err)
		}
	}
	return nil
}

// OpenOrClose says of all queues of jobs whether they are open, after the jobs
// have reached the limit of their parallel tasks or come below it.
func (tx *Tx) OpenOrClose(account batch.AccountName, jobs []batch.JobID, open bool) error {
	for from, to := range cut(len(jobs)) {
		args := make([]any, 2, 2+to-from)
		args[0], args[1] = string(account), open
		for _, id := range jobs[from:to] {
			args = append(args, batch.Key(id))
		}
		_, err := tx.Exec(`
			UPDATE queue
			SET open = $2
			WHERE account = $1 AND open <> $2 AND job IN (`+parameters(3, to-from)+`)`, args...)
		if err != nil {
			return fmt.Errorf("open or close queues: %w", err)
		}
	}
	return nil
}

// moveQueues makes the queues of a job those of its pool, priority and state.
func (tx *Tx) moveQueues(j *batch.Job) error {
	_, err := tx.Exec(`
		UPDATE queue
		SET pool = $3, priority = $4, open = $5
		WHERE account = $1 AND job = $2 AND (pool <> $3 OR priority <> $4 OR open <> $5)`,
		string(j.Account), batch.Key(j.ID), batch.Key(j.PoolInfo.PoolID), j.Priority, j.MayStart())
	if err != nil {
		return fmt.Errorf("move queues: %w", err)
	}
	return nil
}

// dropQueues removes the queues of a job that goes.
func (tx *Tx) dropQueues(account batch.AccountName, job batch.JobID) error {
	_, err := tx.Exec(`
		DELETE FROM queue
		WHERE account = $1 AND job = $2`, string(account), batch.Key(job))
	if err != nil {
		return fmt.Errorf("drop queues: %w", err)
	}
	return nil
}

// RightQueues is a query of the queues as they should be, without those that are
// empty.
// It makes them from the tasks themselves: CASE keeps the index out.
const RightQueues = `
	SELECT job.account AS account, job.id AS job, w.slots AS slots, job.pool AS pool, job.priority AS priority, ` + queueOpen + ` AS open, w.head AS head
	FROM (
		SELECT account, job, slots, min(seq) AS head
		FROM task
		WHERE CASE WHEN bound THEN FALSE ELSE state = 'active' END
		GROUP BY account, job, slots
	) AS w
	JOIN job ON job.account = w.account AND job.id = w.job`

// RemakeQueues are statements that make all queues anew.
func RemakeQueues() []string {
	return []string{
		`DELETE FROM queue`,
		`INSERT INTO queue (account, job, slots, pool, priority, open, head) ` + RightQueues,
	}
}
