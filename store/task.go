package store

import (
	"database/sql"
	"fmt"
	"math"
	"time"

	"github.com/batchyard/batchyard/batch"
)

// TaskRef names a task of an account.
type TaskRef struct {
	Job  batch.JobID
	Task batch.TaskID
}

// A task is two rows: how it was specified, which is seldom read, in table
// specification, and everything that changes with its state, with copies of what
// the scheduler and the nodes' reports need of the specification, in table task.
//
// A task is read in one of two forms. The full form has all of it. The short
// form leaves out the specification but for the ID, RequiredSlots, and, in
// Constraints, MaxTaskRetryCount and RetentionTime: enough for every verb that
// changes the state, and cheap, since only one row is read and no JSON is decoded.

// taskColumns is the short form. It needs the job's name beside it.
const taskColumns = `task.account, task.job, task.id, task.name, task.seq, task.slots, task.max_retries, task.retention, task.stamp, task.created,
			task.state, task.changed, task.prev_state, task.prev_changed, task.pool_name, task.node, task.bound, task.attempt, task.release,
			task.started, task.ended, task.exit_code, task.failure, task.retry_count, task.retried, task.requeue_count, task.requeued, task.result, task.expires`

// jobName is the job's name where all tasks are of one job, $1 and $2.
const jobName = `(SELECT job.name FROM job WHERE job.account = $1 AND job.id = $2)`

// ownJobName is the same where tasks are of many jobs. It is no join, which
// PostgreSQL might begin with.
const ownJobName = `(SELECT job.name FROM job WHERE job.account = task.account AND job.id = task.job)`

// Task returns the task, or ErrNotFound.
func (tx *Tx) Task(account batch.AccountName, job batch.JobID, id batch.TaskID) (batch.Task, error) {
	return one("get task", tx.QueryRow(`
		SELECT `+taskColumns+`, `+jobName+`, `+taskBody+`
		FROM task
		WHERE account = $1 AND job = $2 AND id = $3`, string(account), batch.Key(job), batch.Key(id)), scanTask)
}

// Tasks returns the tasks of a job.
func (tx *Tx) Tasks(account batch.AccountName, job batch.JobID, list List) ([]batch.Task, error) {
	text, args := list.query(`
		SELECT `+taskColumns+`, `+jobName+`, `+taskBody+`
		FROM task
		WHERE account = $1 AND job = $2`, "id", string(account), batch.Key(job))
	rows, err := tx.Query(text, args...)
	return listed("list tasks", list, rows, err, scanTask)
}

// TasksByRef returns the named tasks, as far as they exist, in any order.
func (tx *Tx) TasksByRef(account batch.AccountName, refs []TaskRef) ([]batch.Task, error) {
	return byRef(tx, "task", account, refs, taskColumns+", "+ownJobName+", "+taskBody, scanTask)
}

// BoundTasks returns the tasks that a node holds, in the short form.
func (tx *Tx) BoundTasks(node batch.NodeID) ([]batch.Task, error) {
	rows, err := tx.Query(`
		SELECT `+taskColumns+`, `+ownJobName+`
		FROM task
		WHERE node = $1 AND task.bound`, batch.Key(node))
	return all("list bound tasks", rows, err, scanShort)
}

// BoundTasksOfJob returns tasks of a job that nodes hold, in the short form. It
// goes through the nodes of the job's pool, of which there are fewer than there
// may be tasks.
func (tx *Tx) BoundTasksOfJob(account batch.AccountName, job batch.JobID, limit int) ([]batch.Task, error) {
	rows, err := tx.Query(`
		SELECT `+taskColumns+`, job.name
		FROM job
		CROSS JOIN node
		CROSS JOIN task
		WHERE job.account = $1 AND job.id = $2
			AND node.account = job.account AND node.pool = job.pool AND node.bound_tasks > 0
			AND task.node = node.id AND task.bound AND task.account = job.account AND task.job = job.id
		LIMIT $3`, string(account), batch.Key(job), limit)
	return all("list bound tasks of job", rows, err, scanShort)
}

// UnfinishedTasks returns tasks of a job that are not completed, in the short
// form.
func (tx *Tx) UnfinishedTasks(account batch.AccountName, job batch.JobID, limit int) ([]batch.Task, error) {
	rows, err := tx.Query(`
		SELECT `+taskColumns+`, `+jobName+`
		FROM task
		WHERE account = $1 AND job = $2 AND state IN ('active', 'preparing', 'running')
		LIMIT $3`, string(account), batch.Key(job), limit)
	return all("list unfinished tasks", rows, err, scanShort)
}

// ExpiredTasks returns completed tasks of all accounts whose files may go by the
// given time and have not been removed, in the short form.
func (tx *Tx) ExpiredTasks(by time.Time, limit int) ([]batch.Task, error) {
	rows, err := tx.Query(`
		SELECT `+taskColumns+`, `+ownJobName+`
		FROM task
		WHERE task.expires > 0 AND task.expires <= $1
		ORDER BY task.expires
		LIMIT $2`, tx.due(by), limit)
	return all("list expired tasks", rows, err, scanShort)
}

// NextTaskExpiry is when the files of the next task may go, if there are any.
func (tx *Tx) NextTaskExpiry() (time.Time, bool, error) {
	var at sql.NullInt64
	err := tx.QueryRow(`
		SELECT min(expires)
		FROM task
		WHERE expires > 0 AND expires < $1`, forever).Scan(&at)
	if err != nil {
		return time.Time{}, false, fmt.Errorf("get next task expiry: %w", err)
	}
	return tx.dueDate(at), at.Valid, nil
}

// InsertTasks adds tasks that are new and wait for a node, all of one job. It
// says which went in: the others have the key of a task that is there already,
// or of an earlier one of the call.
func (tx *Tx) InsertTasks(tasks []batch.Task) (inserted []bool, err error) {
	inserted = make([]bool, len(tasks))
	for from, to := range cut(len(tasks)) {
		if err := tx.insertTasks(tasks[from:to], inserted[from:to]); err != nil {
			return nil, err
		}
	}
	return inserted, nil
}

func (tx *Tx) insertTasks(tasks []batch.Task, inserted []bool) error {
	t := &tasks[0]
	args, bodies := make([]any, 5, 5+9*len(tasks)), make([]string, len(tasks))
	args[0], args[1], args[2], args[3], args[4] = string(t.Account), batch.Key(t.Job), string(t.Pool), int64(t.Stamp), t.CreationTime.UnixMicro()
	for i := range tasks {
		t := &tasks[i]
		var err error
		if bodies[i], err = encode(&t.TaskSpecification); err != nil {
			return err
		}
		args = append(args, batch.Key(t.ID), name(t.ID), t.DisplayName, t.Sequence, t.RequiredSlots, affinity(t),
			*t.Constraints.MaxTaskRetryCount, int64(*t.Constraints.RetentionTime), t.Attempt)
	}
	n, err := tx.Exec(`
		INSERT INTO task (account, job, pool_name, stamp, created, changed, id, name, display_name, seq, slots, affinity,
			max_retries, retention, attempt,
			state, prev_state, node, bound, release, retry_count, requeue_count, result)
		SELECT $1, $2, $3, CAST($4 AS bigint), CAST($5 AS bigint), CAST($5 AS bigint),
			v.column1, v.column2, v.column3, v.column4, v.column5, v.column6, v.column7, v.column8, v.column9,
			'active', '', '', FALSE, '', 0, 0, ''
		FROM (VALUES `+tuples(6, len(tasks), "text", "text", "text", "bigint", "bigint", "text", "bigint", "bigint", "bigint")+`) AS v
		WHERE TRUE
		ON CONFLICT DO NOTHING`, args...)
	if err != nil {
		return fmt.Errorf("insert tasks: %w", err)
	}
	if int(n) == len(tasks) {
		for i := range inserted {
			inserted[i] = true
		}
	} else if err := tx.whichInserted(tasks, inserted); err != nil {
		return err
	}
	return tx.insertSpecifications(tasks, inserted, bodies)
}

// whichInserted looks which rows are ours, by their sequence numbers.
func (tx *Tx) whichInserted(tasks []batch.Task, inserted []bool) error {
	args := []any{string(tasks[0].Account), batch.Key(tasks[0].Job)}
	index := make(map[int64]int, len(tasks))
	for i := range tasks {
		args = append(args, batch.Key(tasks[i].ID))
		index[tasks[i].Sequence] = i
	}
	rows, err := tx.Query(`
		SELECT seq
		FROM task
		WHERE account = $1 AND job = $2 AND id IN (`+parameters(3, len(tasks))+`)`, args...)
	found, err := all("look for inserted tasks", rows, err, func(row scanner) (seq int64, err error) {
		return seq, row.Scan(&seq)
	})
	for _, seq := range found {
		if i, ok := index[seq]; ok {
			inserted[i] = true
		}
	}
	return err
}

// affinity is the key of the node near which the task likes to run, or empty.
func affinity(t *batch.Task) string {
	if t.AffinityInfo == nil {
		return ""
	}
	return batch.Key(t.AffinityInfo.AffinityID)
}

// The columns that a run of a task changes, as SaveRuns and UpdateTask name
// them, and their types.
var runTypes = []string{
	"text", "bigint", "text", "bigint", "text", "boolean", "bigint", "text", "bigint",
	"bigint", "bigint", "bigint", "jsontext", "bigint", "bigint", "bigint", "bigint", "text", "bigint",
}

// runArgs are the values of these columns.
func (tx *Tx) runArgs(args []any, t *batch.Task) ([]any, error) {
	info := &t.ExecutionInfo
	var failure, exitCode any
	if info.FailureInfo != nil {
		text, err := encode(info.FailureInfo)
		if err != nil {
			return nil, err
		}
		failure = text
	}
	if info.ExitCode != nil {
		exitCode = *info.ExitCode
	}
	return append(args,
		string(t.State), micros(t.StateTransitionTime), string(t.PreviousState), micros(t.PreviousStateTransitionTime),
		batch.Key(t.Node), t.Bound, t.Attempt, string(t.Release), int64(t.Stamp),
		microsAt(info.StartTime), microsAt(info.EndTime), exitCode, failure, info.RetryCount, microsAt(info.LastRetryTime),
		info.RequeueCount, microsAt(info.LastRequeueTime), string(info.Result), tx.expires(t)), nil
}

// forever is when files may go that are kept without a limit.
const forever = math.MaxInt64

// expires is when the task's files may go, as its column says it. A completed task
// is not written again before its files have gone, so the date of its completion is
// of this transaction.
func (tx *Tx) expires(t *batch.Task) any {
	switch {
	case t.FilesRemoved:
		return 0
	case t.KeepsFiles():
		return forever
	}
	return tx.due(t.FilesExpire())
}

// UpdateTask writes the whole task, its specification included. ErrNotFound if
// it is gone.
func (tx *Tx) UpdateTask(t *batch.Task) error {
	args, err := tx.runArgs([]any{string(t.Account), batch.Key(t.Job), batch.Key(t.ID)}, t)
	if err != nil {
		return err
	}
	args = append(args, t.DisplayName, t.RequiredSlots, affinity(t),
		*t.Constraints.MaxTaskRetryCount, int64(*t.Constraints.RetentionTime), string(t.Pool))
	err = tx.changeOne("update task", `
		UPDATE task
		SET state = $4, changed = $5, prev_state = $6, prev_changed = $7, node = $8, bound = $9, attempt = $10, release = $11,
			stamp = $12, started = $13, ended = $14, exit_code = $15, failure = $16, retry_count = $17, retried = $18,
			requeue_count = $19, requeued = $20, result = $21, expires = $22,
			display_name = $23, slots = $24, affinity = $25, max_retries = $26, retention = $27, pool_name = $28
		WHERE account = $1 AND job = $2 AND id = $3`, args...)
	if err != nil {
		return err
	}
	return tx.saveSpecification(t)
}

// SaveRuns writes what a run changes of tasks of one account, which may be in
// the short form: all but the specification and the pool. Tasks that are gone
// are left out.
func (tx *Tx) SaveRuns(tasks []batch.Task) error {
	types := append([]string{"text", "text"}, runTypes...)
	for from, to := range cut(len(tasks)) {
		args := make([]any, 1, 1+len(types)*(to-from))
		args[0] = string(tasks[from].Account)
		for i := range tasks[from:to] {
			t := &tasks[from+i]
			var err error
			if args, err = tx.runArgs(append(args, batch.Key(t.Job), batch.Key(t.ID)), t); err != nil {
				return err
			}
		}
		_, err := tx.Exec(`
			UPDATE task
			SET state = v.column3, changed = v.column4, prev_state = v.column5, prev_changed = v.column6,
				node = v.column7, bound = v.column8, attempt = v.column9, release = v.column10, stamp = v.column11,
				started = v.column12, ended = v.column13, exit_code = v.column14, failure = v.column15,
				retry_count = v.column16, retried = v.column17, requeue_count = v.column18, requeued = v.column19,
				result = v.column20, expires = v.column21
			FROM (VALUES `+tuples(2, to-from, types...)+`) AS v
			WHERE account = $1 AND job = v.column1 AND id = v.column2`, args...)
		if err != nil {
			return fmt.Errorf("save runs: %w", err)
		}
	}
	return nil
}

// DeleteTask removes a task. ErrNotFound if it is gone.
func (tx *Tx) DeleteTask(account batch.AccountName, job batch.JobID, id batch.TaskID) error {
	if err := tx.dropSpecification(account, job, id); err != nil {
		return err
	}
	return tx.changeOne("delete task", `
		DELETE FROM task
		WHERE account = $1 AND job = $2 AND id = $3`, string(account), batch.Key(job), batch.Key(id))
}

// DeleteTasks removes tasks of a job, at most limit, whatever their state. It
// says how many, and on which nodes they ran.
func (tx *Tx) DeleteTasks(account batch.AccountName, job batch.JobID, limit int) (n int, nodes []batch.NodeID, err error) {
	if err := tx.dropSpecifications(account, job, limit); err != nil {
		return 0, nil, err
	}
	rows, err := tx.Query(`
		DELETE FROM task
		WHERE account = $1 AND job = $2 AND id IN (
			SELECT id
			FROM task
			WHERE account = $1 AND job = $2
			ORDER BY id
			LIMIT $3)
		RETURNING node`, string(account), batch.Key(job), limit)
	ran, err := all("delete tasks", rows, err, func(row scanner) (id batch.NodeID, err error) {
		return id, row.Scan(&id)
	})
	seen := map[batch.NodeID]bool{"": true}
	for _, id := range ran {
		if !seen[id] {
			nodes = append(nodes, id)
		}
		seen[id] = true
	}
	return len(ran), nodes, err
}

func scanTask(row scanner) (batch.Task, error) {
	var body []byte
	t, err := scanRun(row, &body)
	if err != nil {
		return t, err
	}
	return t, decode(body, &t.TaskSpecification)
}

// scanShort reads the short form.
func scanShort(row scanner) (batch.Task, error) { return scanRun(row) }

func scanRun(row scanner, more ...any) (batch.Task, error) {
	var t batch.Task
	var job, key, own, jobOwn string
	var slots, retries int
	var retention batch.Duration
	var changed, created, previous, start, end, exitCode, retried, requeued, expires sql.NullInt64
	var failure []byte
	info := &t.ExecutionInfo
	dest := []any{
		&t.Account, &job, &key, &own, &t.Sequence, &slots, &retries, &retention, &t.Stamp, &created,
		&t.State, &changed, &t.PreviousState, &previous, &t.Pool, &t.Node, &t.Bound, &t.Attempt, &t.Release,
		&start, &end, &exitCode, &failure, &info.RetryCount, &retried, &info.RequeueCount, &requeued, &info.Result, &expires, &jobOwn,
	}
	if err := row.Scan(append(dest, more...)...); err != nil {
		return t, err
	}
	t.ID, t.Job = named[batch.TaskID](key, own), named[batch.JobID](job, jobOwn)
	t.RequiredSlots = slots
	t.Constraints = &batch.TaskConstraints{MaxTaskRetryCount: &retries, RetentionTime: &retention}
	t.CreationTime, t.StateTransitionTime, t.PreviousStateTransitionTime = moment(created), moment(changed), moment(previous)
	info.StartTime, info.EndTime = momentAt(start), momentAt(end)
	info.LastRetryTime, info.LastRequeueTime = momentAt(retried), momentAt(requeued)
	t.FilesRemoved = expires.Valid && expires.Int64 == 0
	if exitCode.Valid {
		code := int(exitCode.Int64)
		info.ExitCode = &code
	}
	if failure == nil {
		return t, nil
	}
	return t, decode(failure, &info.FailureInfo)
}
