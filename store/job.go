package store

import (
	"database/sql"
	"fmt"
	"time"

	"github.com/batchyard/batchyard/batch"
)

// JobRef names a job of any account.
type JobRef struct {
	Account batch.AccountName
	Job     batch.JobID
}

// JobDelta is what is added to the counts of a job.
type JobDelta struct {
	Job    batch.JobID
	Counts batch.TaskCounts
	Bound  int64
}

// JobStanding is how a job stands after its counts have changed.
type JobStanding struct {
	Job                    batch.JobID
	Pool                   batch.PoolID
	State                  batch.JobState
	Active, Running, Bound int64
	MaxParallel            int // -1 for no limit
	OnAll                  batch.OnAllTasksComplete
	OnFailure              batch.OnTaskFailure
}

// jobBody is what no statement looks at.
type jobBody struct {
	Specification   batch.JobSpecification `json:"specification"`
	TerminateReason string                 `json:"terminateReason,omitempty"`
	Disable         batch.DisableTasks     `json:"disable,omitempty"`
	StartLead       int64                  `json:"startLead,omitzero"` // in microseconds
}

const jobColumns = `account, state, changed, prev_state, prev_changed, created, stamp, started, ended,
			active, running, succeeded, failed, active_slots, running_slots, succeeded_slots, failed_slots, bound, body`

// Job returns the job, or ErrNotFound.
func (tx *Tx) Job(account batch.AccountName, id batch.JobID) (batch.Job, error) {
	return one("get job", tx.QueryRow(`
		SELECT `+jobColumns+`
		FROM job
		WHERE account = $1 AND id = $2`, string(account), batch.Key(id)), tx.scanJob)
}

// Jobs returns the jobs of an account.
func (tx *Tx) Jobs(account batch.AccountName, list List) ([]batch.Job, error) {
	text, args := list.query(`
		SELECT `+jobColumns+`
		FROM job
		WHERE account = $1`, "id", string(account))
	rows, err := tx.Query(text, args...)
	return listed("list jobs", list, rows, err, tx.scanJob)
}

// InsertJob adds a job, which begins now. If there is one of that key the error is one that
// IsDuplicate knows.
func (tx *Tx) InsertJob(j *batch.Job) error {
	args, err := tx.jobArgs(j)
	if err != nil {
		return err
	}
	_, err = tx.Exec(`
		INSERT INTO job (account, id, name, display_name, pool, pool_name, state, changed, prev_state, prev_changed,
			stamp, priority, max_parallel, on_all, on_failure, started, ended, expires,
			active, running, succeeded, failed, active_slots, running_slots, succeeded_slots, failed_slots, bound, body, created)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19,
			$20, $21, $22, $23, $24, $25, $26, $27, $28, $29)`, append(args, j.CreationTime.UnixMicro())...)
	if err != nil {
		return fmt.Errorf("insert job: %w", err)
	}
	return nil
}

// UpdateJob writes the whole job, its counts included, and moves its queues to
// where it says. ErrNotFound if it is gone.
func (tx *Tx) UpdateJob(j *batch.Job) error {
	args, err := tx.jobArgs(j)
	if err != nil {
		return err
	}
	err = tx.changeOne("update job", `
		UPDATE job
		SET name = $3, display_name = $4, pool = $5, pool_name = $6, state = $7, changed = $8, prev_state = $9, prev_changed = $10,
			stamp = $11, priority = $12, max_parallel = $13, on_all = $14, on_failure = $15, started = $16, ended = $17, expires = $18,
			active = $19, running = $20, succeeded = $21, failed = $22,
			active_slots = $23, running_slots = $24, succeeded_slots = $25, failed_slots = $26, bound = $27, body = $28
		WHERE account = $1 AND id = $2`, args...)
	if err != nil {
		return err
	}
	return tx.moveQueues(j)
}

// jobArgs are the parameters of InsertJob and UpdateJob.
func (tx *Tx) jobArgs(j *batch.Job) ([]any, error) {
	body, err := encode(&jobBody{
		Specification: j.JobSpecification, TerminateReason: j.TerminateReason, Disable: j.Disable, StartLead: (tx.lead - j.DatesSet).Microseconds(),
	})
	if err != nil {
		return nil, err
	}
	c := j.Counts
	return []any{
		string(j.Account), batch.Key(j.ID), name(j.ID), j.DisplayName, batch.Key(j.PoolInfo.PoolID), string(j.PoolInfo.PoolID),
		string(j.State), micros(j.StateTransitionTime), string(j.PreviousState), micros(j.PreviousStateTransitionTime),
		int64(j.Stamp), j.Priority, *j.MaxParallelTasks, string(j.OnAllTasksComplete), string(j.OnTaskFailure),
		micros(j.StartTime), micros(j.EndTime), tx.due(j.Expires()),
		c.Active, c.Running, c.Succeeded, c.Failed, c.ActiveSlots, c.RunningSlots, c.SucceededSlots, c.FailedSlots, j.Bound, body,
	}, nil
}

// DeleteJob removes the row of a job whose tasks are gone. ErrNotFound if it is
// gone itself.
func (tx *Tx) DeleteJob(account batch.AccountName, id batch.JobID) error {
	if err := tx.dropQueues(account, id); err != nil {
		return err
	}
	if err := tx.ForgetDeaths(account, id, ""); err != nil {
		return err
	}
	return tx.changeOne("delete job", `
		DELETE FROM job
		WHERE account = $1 AND id = $2`, string(account), batch.Key(id))
}

// AddJobCounts adds to the counts of jobs, each named once, and says how each of
// them stands then. A job that is gone is not in the answer.
func (tx *Tx) AddJobCounts(account batch.AccountName, deltas []JobDelta) ([]JobStanding, error) {
	var standings []JobStanding
	for from, to := range cut(len(deltas)) {
		args := make([]any, 1, 1+10*(to-from))
		args[0] = string(account)
		for _, d := range deltas[from:to] {
			c := d.Counts
			args = append(args, batch.Key(d.Job), c.Active, c.Running, c.Succeeded, c.Failed,
				c.ActiveSlots, c.RunningSlots, c.SucceededSlots, c.FailedSlots, d.Bound)
		}
		const n = "bigint"
		rows, err := tx.Query(`
			UPDATE job
			SET active = active + v.column2, running = running + v.column3,
				succeeded = succeeded + v.column4, failed = failed + v.column5,
				active_slots = active_slots + v.column6, running_slots = running_slots + v.column7,
				succeeded_slots = succeeded_slots + v.column8, failed_slots = failed_slots + v.column9,
				bound = bound + v.column10
			FROM (VALUES `+tuples(2, to-from, "text", n, n, n, n, n, n, n, n, n)+`) AS v
			WHERE account = $1 AND id = v.column1
			RETURNING id, name, pool_name, state, active, running, bound, max_parallel, on_all, on_failure`, args...)
		some, err := all("add job counts", rows, err, scanStanding)
		if err != nil {
			return nil, err
		}
		standings = append(standings, some...)
	}
	return standings, nil
}

func scanStanding(row scanner) (JobStanding, error) {
	var s JobStanding
	var key, own string
	err := row.Scan(&key, &own, &s.Pool, &s.State, &s.Active, &s.Running, &s.Bound, &s.MaxParallel, &s.OnAll, &s.OnFailure)
	s.Job = named[batch.JobID](key, own)
	return s, err
}

// EndingJobs names the jobs of all accounts that are being disabled, terminated
// or deleted.
func (tx *Tx) EndingJobs() ([]JobRef, error) {
	rows, err := tx.Query(`
		SELECT account, id, name
		FROM job
		WHERE state IN ('disabling', 'terminating', 'deleting')
		ORDER BY account, id`)
	return all("list ending jobs", rows, err, scanJobRef)
}

// ExpiringJobs names the jobs of all accounts whose wall clock limit is over by
// the given time and which have not been ended.
func (tx *Tx) ExpiringJobs(by time.Time) ([]JobRef, error) {
	rows, err := tx.Query(`
		SELECT account, id, name
		FROM job
		WHERE expires IS NOT NULL AND expires <= $1 AND state IN ('active', 'disabling', 'disabled', 'enabling')
		ORDER BY expires, account, id`, tx.due(by))
	return all("list expiring jobs", rows, err, scanJobRef)
}

// NextJobExpiry is when the next job expires, if any does.
func (tx *Tx) NextJobExpiry() (time.Time, bool, error) {
	var at sql.NullInt64
	err := tx.QueryRow(`
		SELECT min(expires)
		FROM job
		WHERE expires IS NOT NULL AND state IN ('active', 'disabling', 'disabled', 'enabling')`).Scan(&at)
	if err != nil {
		return time.Time{}, false, fmt.Errorf("get next job expiry: %w", err)
	}
	return tx.dueDate(at), at.Valid, nil
}

func scanJobRef(row scanner) (JobRef, error) {
	var ref JobRef
	var key, own string
	err := row.Scan(&ref.Account, &key, &own)
	ref.Job = named[batch.JobID](key, own)
	return ref, err
}

func (tx *Tx) scanJob(row scanner) (batch.Job, error) {
	var j batch.Job
	var changed, previous, created, started, ended sql.NullInt64
	var text []byte
	c := &j.Counts
	err := row.Scan(&j.Account, &j.State, &changed, &j.PreviousState, &previous, &created, &j.Stamp, &started, &ended,
		&c.Active, &c.Running, &c.Succeeded, &c.Failed, &c.ActiveSlots, &c.RunningSlots, &c.SucceededSlots, &c.FailedSlots,
		&j.Bound, &text)
	if err != nil {
		return j, err
	}
	var body jobBody
	if err := decode(text, &body); err != nil {
		return j, err
	}
	j.JobSpecification, j.TerminateReason, j.Disable = body.Specification, body.TerminateReason, body.Disable
	j.DatesSet = tx.lead - time.Duration(body.StartLead)*time.Microsecond
	j.StateTransitionTime, j.PreviousStateTransitionTime = moment(changed), moment(previous)
	j.CreationTime, j.StartTime, j.EndTime = moment(created), moment(started), moment(ended)
	return j, nil
}
