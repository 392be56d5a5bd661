package store

import (
	"cmp"
	"math"
	"slices"
	"strconv"

	"github.com/batchyard/batchyard/batch"
)

// BriefTasks returns the tasks of a job in the short form.
func (tx *Tx) BriefTasks(account batch.AccountName, job batch.JobID, list List) ([]batch.Task, error) {
	text, args := list.query(`
		SELECT `+taskColumns+`, `+jobName+`
		FROM task
		WHERE account = $1 AND job = $2`, "id", string(account), batch.Key(job))
	rows, err := tx.Query(text, args...)
	return all("list tasks", rows, err, scanShort)
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
	// Brief asks for the short form.
	Brief bool
}

// TasksByChange returns tasks in the order of their last changes.
func (tx *Tx) TasksByChange(account batch.AccountName, job batch.JobID, list ChangeList) ([]batch.Task, error) {
	var tasks []batch.Task
	for _, state := range list.States {
		some, err := tx.tasksByChange(account, job, state, list)
		if err != nil {
			return nil, err
		}
		tasks = append(tasks, some...)
	}
	if len(list.States) > 1 {
		slices.SortFunc(tasks, func(a, b batch.Task) int {
			return cmp.Or(a.StateTransitionTime.Compare(b.StateTransitionTime), cmp.Compare(batch.Key(a.ID), batch.Key(b.ID)))
		})
	}
	return tasks[:min(len(tasks), list.Max)], nil
}

func (tx *Tx) tasksByChange(account batch.AccountName, job batch.JobID, state batch.TaskState, list ChangeList) ([]batch.Task, error) {
	columns, scan := ", body", scanTask
	if list.Brief {
		columns, scan = "", scanShort
	}
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
		SELECT ` + taskColumns + `, ` + jobName + columns + `
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
	return all("list tasks by change", rows, err, scan)
}
