package control

import (
	"context"
	"strconv"
	"strings"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/odata"
	"github.com/batchyard/batchyard/store"
)

// Tasks returns a page of a job's tasks: ordered by id, or, if the filter asks
// for states or for times, by the time of the last change of the state, so that
// a page costs what it has and not what the job has.
func (s *Service) Tasks(ctx context.Context, account batch.AccountName, job batch.JobID, q Query) (Page[batch.Task], error) {
	list, err := q.list(taskFields, maxPage)
	if err != nil {
		return Page[batch.Task]{}, err
	}
	changes, err := q.byChange(list)
	if err != nil {
		return Page[batch.Task]{}, err
	}
	read := func(tx *store.Tx) ([]batch.Task, error) { return tx.Tasks(account, job, list) }
	key := func(t *batch.Task) string { return batch.Key(t.ID) }
	switch {
	case changes != nil:
		read = func(tx *store.Tx) ([]batch.Task, error) { return tx.TasksByChange(account, job, *changes) }
		key = changeToken
	case q.Brief:
		read = func(tx *store.Tx) ([]batch.Task, error) { return tx.BriefTasks(account, job, list) }
	}
	var tasks []batch.Task
	err = s.db.View(ctx, func(tx *store.Tx) (err error) {
		if tasks, err = read(tx); err == nil && len(tasks) == 0 {
			_, err = findJob(tx, account, job)
		}
		return err
	})
	return page(tasks, list, key), err
}

// byChange is the list in the order of changes if that is where to look for
// what the filter wants, nil otherwise.
func (q Query) byChange(list store.List) (*store.ChangeList, error) {
	filter, err := odata.ParseFilter(q.Filter, taskFields)
	if err != nil {
		return nil, err // list has refused it already
	}
	state, changed, created := filter.Bounds("state"), filter.Bounds("stateTransitionTime"), filter.Bounds("creationTime")
	wanted := state.Words != nil || changed.From != nil || changed.To != nil || created.From != nil
	if !wanted || filter.Bounds("id").Named {
		if list.After != "" && strings.HasPrefix(list.After, changeMark) {
			return nil, badQuery("$skiptoken", q.Token, otherFilter)
		}
		return nil, nil
	}
	c := &store.ChangeList{From: changed.From, To: changed.To, Max: list.Max, Where: list.Where, Brief: q.Brief}
	// A task is created before its state changes, so nothing that was created
	// later has changed earlier.
	if c.From == nil || created.From != nil && *created.From > *c.From {
		c.From = created.From
	}
	if state.Words == nil {
		state.Words = taskWords()
	}
	for _, word := range state.Words {
		c.States = append(c.States, batch.TaskState(word))
	}
	if list.After == "" {
		return c, nil
	}
	var ok bool
	if c.AfterTime, c.After, ok = parseChangeToken(list.After); !ok {
		return nil, badQuery("$skiptoken", q.Token, otherFilter)
	}
	return c, nil
}

// changeMark begins a place in a list by changes; no id begins with it.
const changeMark = "@"

func changeToken(t *batch.Task) string {
	return changeMark + strconv.FormatInt(t.StateTransitionTime.UnixMicro(), 10) + " " + batch.Key(t.ID)
}

func parseChangeToken(token string) (at int64, key string, ok bool) {
	text, marked := strings.CutPrefix(token, changeMark)
	number, key, both := strings.Cut(text, " ")
	at, err := strconv.ParseInt(number, 10, 64)
	return at, key, marked && both && key != "" && err == nil
}

// otherFilter is why the place in a list of one order is none in the other.
const otherFilter = "It belongs to a list with another filter"
