package store

import (
	"cmp"
	"database/sql"
	"math"
	"slices"
	"strconv"

	"github.com/batchyard/batchyard/batch"
)

// Detail is how much of each task of a list is wanted. The less it is, the
// less there is to decode.
type Detail int

// Details: everything, the short form, and the short form of which only names,
// times of creation and changes, states and the stamp are set.
const (
	WholeTask Detail = iota
	TaskRun
	TaskState
)

// columns are what a query selects for a detail, and what reads it.
func (d Detail) columns() (string, func(scanner) (batch.Task, error)) {
	switch d {
	case TaskState:
		return `task.account, task.job, task.id, task.name, task.stamp, task.created, task.state, task.changed,
			task.prev_state, task.prev_changed, ` + jobName, scanState
	case TaskRun:
		return taskColumns + ", " + jobName, scanShort
	}
	return taskColumns + ", " + jobName + ", " + taskBody, scanTask
}

func scanState(row scanner) (batch.Task, error) {
	var t batch.Task
	var job, key, own, jobOwn string
	var created, changed, previous sql.NullInt64
	err := row.Scan(&t.Account, &job, &key, &own, &t.Stamp, &created, &t.State, &changed, &t.PreviousState, &previous, &jobOwn)
	t.ID, t.Job = named[batch.TaskID](key, own), named[batch.JobID](job, jobOwn)
	t.CreationTime, t.StateTransitionTime, t.PreviousStateTransitionTime = moment(created), moment(changed), moment(previous)
	return t, err
}

// TasksInPart returns the tasks of a job as far as a detail says.
func (tx *Tx) TasksInPart(account batch.AccountName, job batch.JobID, list List, detail Detail) ([]batch.Task, error) {
	columns, scan := detail.columns()
	text, args := list.query(`
		SELECT `+columns+`
		FROM task
		WHERE account = $1 AND job = $2`, "id", string(account), batch.Key(job))
	rows, err := tx.Query(text, args...)
	return listed("list tasks", list, rows, err, scan)
}

// TaskKeyAt is the key of the task that has so many others between itself and a
// key, in the order of keys; ErrNotFound if there are not as many.
func (tx *Tx) TaskKeyAt(account batch.AccountName, job batch.JobID, after string, between int64) (string, error) {
	return one("find key of task", tx.QueryRow(`
		SELECT id
		FROM task
		WHERE account = $1 AND job = $2 AND id > $3
		ORDER BY id
		LIMIT 1 OFFSET $4`, string(account), batch.Key(job), after, between), func(row scanner) (key string, err error) {
		return key, row.Scan(&key)
	})
}

// ChangeList selects a page of the tasks of a job in the order in which their
// states have changed, the oldest change first. A task whose state changes
// while somebody goes through the pages comes again, at the end; none is missed.
type ChangeList struct {
	States []batch.TaskState
	// From and To are the first and the last time of a change, in microseconds
	// since 1970 UTC; nil where there is no end.
	From, To *int64
	// AfterTime and After are the change and the key of the last task of the
	// page before; After is empty at first.
	AfterTime int64
	After     string
	// Max is how many tasks are wanted.
	Max int
	// Where is an additional condition, as in List.
	Where func(first int) (clause string, args []any)
	// Detail is how much of each is wanted.
	Detail Detail
	// Cut is that of List.
	Cut *bool
}

// TasksByChange returns tasks in the order of their last changes.
func (tx *Tx) TasksByChange(account batch.AccountName, job batch.JobID, list ChangeList) ([]batch.Task, error) {
	var tasks []batch.Task
	var end *batch.Task // the first at which the list of a state was cut
	for _, state := range list.States {
		some, err := tx.tasksByChange(account, job, state, list)
		if err != nil {
			return nil, err
		}
		tasks = append(tasks, some...)
		if list.Cut != nil && *list.Cut && (end == nil || compareChanges(some[len(some)-1], *end) < 0) {
			end = &some[len(some)-1]
		}
	}
	if len(list.States) > 1 {
		slices.SortFunc(tasks, compareChanges)
	}
	if end != nil {
		*list.Cut = true
		tasks = slices.DeleteFunc(tasks, func(t batch.Task) bool { return compareChanges(t, *end) > 0 })
	}
	return tasks[:min(len(tasks), list.Max)], nil
}

// compareChanges orders tasks by their last changes.
func compareChanges(a, b batch.Task) int {
	return cmp.Or(a.StateTransitionTime.Compare(b.StateTransitionTime), cmp.Compare(batch.Key(a.ID), batch.Key(b.ID)))
}

func (tx *Tx) tasksByChange(account batch.AccountName, job batch.JobID, state batch.TaskState, list ChangeList) ([]batch.Task, error) {
	columns, scan := list.Detail.columns()
	after, to := int64(math.MinInt64), int64(math.MaxInt64)
	if list.From != nil {
		after = *list.From
	}
	if list.To != nil {
		to = *list.To
	}
	if list.After != "" {
		after = list.AfterTime
	}
	args := []any{string(account), batch.Key(job), string(state), after, list.After, to}
	text := `
		SELECT ` + columns + `
		FROM task
		WHERE account = $1 AND job = $2 AND state = $3
			AND (changed, id) > (CAST($4 AS bigint), CAST($5 AS keytext)) AND changed <= CAST($6 AS bigint)`
	if list.Where != nil {
		clause, more := list.Where(len(args) + 1)
		text += "\nAND (" + clause + ")"
		args = append(args, more...)
	}
	args = append(args, list.Max)
	rows, err := tx.Query(text+"\nORDER BY changed, id\nLIMIT $"+strconv.Itoa(len(args)), args...)
	return listed("list tasks by change", List{Cut: list.Cut}, rows, err, scan)
}
