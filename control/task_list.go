package control

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/odata"
	"github.com/batchyard/batchyard/store"
	"golang.org/x/sync/errgroup"
)

// Tasks returns a page of a job's tasks: ordered by id, or, if the filter asks
// for states or for times, by the time of the last change of the state, so that
// a page costs what it has and not what the job has.
func (s *Service) Tasks(ctx context.Context, account batch.AccountName, job batch.JobID, q Query) (Page[batch.Task], error) {
	list, err := q.list(taskFields, maxPage)
	if err != nil {
		return Page[batch.Task]{}, err
	}
	filter, err := odata.ParseFilter(q.Filter, taskFields)
	if err != nil {
		return Page[batch.Task]{}, err // list has refused it already
	}
	changes, err := q.byChange(filter, list)
	if err != nil {
		return Page[batch.Task]{}, err
	}
	if changes == nil {
		walk := walk{account, job, list, q.Detail, !filter.IsZero() && !filter.Bounds("id").Named}
		tasks, err := s.tasksByID(ctx, walk)
		return page(tasks, list, func(t *batch.Task) string { return batch.Key(t.ID) }), err
	}
	var tasks []batch.Task
	err = s.db.View(ctx, func(tx *store.Tx) (err error) {
		if tasks, err = tx.TasksByChange(account, job, *changes); err == nil && len(tasks) == 0 {
			_, err = findJob(tx, account, job)
		}
		return err
	})
	return page(tasks, list, changeToken), err
}

// walk is a page of tasks to be found in the order of ids.
type walk struct {
	account batch.AccountName
	job     batch.JobID
	list    store.List
	detail  store.Detail
	long    bool // no index knows what is wanted
}

// read reads a part of the page and says whether it was cut.
func (w walk) read(tx *store.Tx, after, until string, cut *bool) ([]batch.Task, error) {
	part := w.list
	part.After, part.Until, part.Cut = after, until, cut
	return tx.TasksInPart(w.account, w.job, part, w.detail)
}

// tasksByID reads a page in the order of ids. A filter that few tasks pass makes
// that a walk through the whole job. Most find their page near its beginning;
// for the others two go on at once, each through half of the rest.
func (s *Service) tasksByID(ctx context.Context, w walk) ([]batch.Task, error) {
	var tasks []batch.Task
	var near, middle string // where to go on, and where the second half begins
	err := s.db.View(ctx, func(tx *store.Tx) (err error) {
		near, middle = "", ""
		if w.long {
			if near, err = keyAt(tx, w, w.list.After, s.nearTasks); err != nil {
				return err
			}
		}
		tasks, err = w.read(tx, w.list.After, near, w.list.Cut)
		switch {
		case err != nil || len(tasks) >= w.list.Max || *w.list.Cut:
			return err
		case near != "":
			middle, err = w.middle(tx, near)
		case len(tasks) == 0:
			_, err = findJob(tx, w.account, w.job)
		}
		return err
	})
	if err != nil || near == "" || len(tasks) >= w.list.Max || *w.list.Cut {
		return tasks, err
	}
	halves, cut := [2][]batch.Task{}, [2]bool{}
	group, ctx := errgroup.WithContext(ctx)
	for i, ends := range [2][2]string{{near, middle}, {middle, ""}} {
		if i == 1 && middle == "" {
			continue // too short to be divided
		}
		group.Go(func() error {
			return s.db.View(ctx, func(tx *store.Tx) (err error) {
				halves[i], err = w.read(tx, ends[0], ends[1], &cut[i])
				return err
			})
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	if cut[0] {
		halves[1] = nil
	}
	*w.list.Cut = cut[0] || cut[1]
	tasks = slices.Concat(tasks, halves[0], halves[1])
	return tasks[:min(len(tasks), w.list.Max)], nil
}

// middle is about half of what follows a key if the whole job does; empty if
// less follows, which is what a late page has.
func (w walk) middle(tx *store.Tx, near string) (string, error) {
	j, err := findJob(tx, w.account, w.job)
	if err != nil {
		return "", err
	}
	c := &j.Counts
	return keyAt(tx, w, near, (c.Active+c.Running+c.Succeeded+c.Failed)/2)
}

// keyAt is the key so many tasks after another; empty if there are not as many.
func keyAt(tx *store.Tx, w walk, after string, between int64) (string, error) {
	key, err := tx.TaskKeyAt(w.account, w.job, after, between)
	if errors.Is(err, store.ErrNotFound) {
		return "", nil
	}
	return key, err
}

// byChange is the list in the order of changes if that is where to look for
// what the filter wants, nil otherwise.
func (q Query) byChange(filter odata.Filter, list store.List) (*store.ChangeList, error) {
	state, changed, created := filter.Bounds("state"), filter.Bounds("stateTransitionTime"), filter.Bounds("creationTime")
	wanted := state.Words != nil || changed.From != nil || changed.To != nil || created.From != nil
	if !wanted || filter.Bounds("id").Named {
		if list.After != "" && strings.HasPrefix(list.After, changeMark) {
			return nil, badQuery("$skiptoken", q.Token, otherFilter)
		}
		return nil, nil
	}
	c := &store.ChangeList{From: changed.From, To: changed.To, Max: list.Max, Where: list.Where, Detail: q.Detail, Cut: list.Cut}
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
