package batchtest

import (
	"cmp"
	"errors"
	"testing/synctest"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/store"
)

// Recount is an Audit by the database itself, for very many tasks: it counts
// the rows of tasks by job and by node, compares that with what jobs and nodes
// count, and returns the counts of all jobs together, or what is wrong.
func (c *Cluster) Recount() (batch.TaskCounts, error) {
	synctest.Wait()
	var total batch.TaskCounts
	s := c.current()
	if s == nil {
		return total, errors.New("the server is down")
	}
	a := audit{cluster: c, ctx: c.living, held: map[batch.NodeID]load{}}
	err := s.db.View(a.ctx, func(tx *store.Tx) error {
		return errors.Join(a.countTasks(tx, &total), a.compareNodes(tx))
	})
	if err != nil {
		a.wrong("recount: %w", err)
	}
	for _, v := range c.Witness.Violations() {
		a.wrong("%s", v)
	}
	return total, errors.Join(a.errs...)
}

// each reads rows.
func each(tx *store.Tx, query string, scan func(scan func(...any) error) error) error {
	rows, err := tx.Query(query)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := scan(rows.Scan); err != nil {
			return err
		}
	}
	return rows.Err()
}

// jobCounts are what a job counts.
type jobCounts struct {
	batch.TaskCounts
	bound int64
}

func (a *audit) countTasks(tx *store.Tx, total *batch.TaskCounts) error {
	tasks, jobs := map[string]jobCounts{}, map[string]jobCounts{}
	err := each(tx, `
		SELECT job, state, result, bound, count(*), sum(slots)
		FROM task
		GROUP BY job, state, result, bound`, func(scan func(...any) error) error {
		var job, state, result string
		var bound bool
		var n, slots int64
		err := scan(&job, &state, &result, &bound, &n, &slots)
		c := tasks[job]
		for _, to := range []*batch.TaskCounts{&c.TaskCounts, total} {
			countRows(to, batch.TaskState(state), batch.TaskResult(result), n, slots)
		}
		if bound {
			c.bound += n
		}
		tasks[job] = c
		return err
	})
	if err != nil {
		return err
	}
	err = each(tx, `
		SELECT id, active, running, succeeded, failed, active_slots, running_slots, succeeded_slots, failed_slots, bound
		FROM job`, func(scan func(...any) error) error {
		var id string
		var c jobCounts
		err := scan(&id, &c.Active, &c.Running, &c.Succeeded, &c.Failed,
			&c.ActiveSlots, &c.RunningSlots, &c.SucceededSlots, &c.FailedSlots, &c.bound)
		jobs[id] = c
		return err
	})
	for id, c := range jobs {
		if c != tasks[id] {
			a.wrong("job %s counts %+v and has %+v", id, c, tasks[id])
		}
	}
	return err
}

func countRows(c *batch.TaskCounts, state batch.TaskState, result batch.TaskResult, n, slots int64) {
	switch {
	case state == batch.TaskActive:
		c.Active, c.ActiveSlots = c.Active+n, c.ActiveSlots+slots
	case state == batch.TaskRunning:
		c.Running, c.RunningSlots = c.Running+n, c.RunningSlots+slots
	case result == batch.ResultSuccess:
		c.Succeeded, c.SucceededSlots = c.Succeeded+n, c.SucceededSlots+slots
	default:
		c.Failed, c.FailedSlots = c.Failed+n, c.FailedSlots+slots
	}
}

func (a *audit) compareNodes(tx *store.Tx) error {
	err := each(tx, `
		SELECT node, state, count(*), sum(slots)
		FROM task
		WHERE bound
		GROUP BY node, state`, func(scan func(...any) error) error {
		var node, state string
		var n, slots int
		err := scan(&node, &state, &n, &slots)
		l := a.held[batch.NodeID(node)]
		l.Bound, l.BoundSlots = l.Bound+n, l.BoundSlots+slots
		if batch.TaskState(state) == batch.TaskRunning {
			l.Running, l.RunningSlots = l.Running+n, l.RunningSlots+slots
		}
		a.held[batch.NodeID(node)] = l
		return err
	})
	if err != nil {
		return err
	}
	err = each(tx, `
		SELECT id, slots, bound_tasks, bound_slots, running_tasks, running_slots
		FROM node`, func(scan func(...any) error) error {
		var n batch.Node
		err := scan(&n.ID, &n.Slots, &n.BoundTasks, &n.BoundSlots, &n.RunningTasks, &n.RunningSlots)
		a.node(&n)
		return err
	})
	for id, l := range a.held {
		a.wrong("tasks are bound to node %s, which is gone: %+v", id, l)
	}
	return err
}

// node holds what a node counts against the tasks that it holds.
func (a *audit) node(n *batch.Node) {
	if got := (load{n.BoundTasks, n.BoundSlots, n.RunningTasks, n.RunningSlots}); got != a.held[n.ID] {
		a.wrong("node %s counts %+v and holds %+v", n.ID, got, a.held[n.ID])
	}
	if n.RunningSlots < 0 || n.RunningSlots > n.Slots || n.BoundSlots < n.RunningSlots {
		a.wrong("node %s has %d slots, %d run and %d are bound", n.ID, n.Slots, n.RunningSlots, n.BoundSlots)
	}
	delete(a.held, n.ID)
}

// Completed tells the Witness which tasks of a job are completed, and returns
// how many.
func (c *Cluster) Completed(job batch.JobID) (n int, err error) {
	s := c.current()
	if s == nil {
		return 0, errors.New("the server is down")
	}
	err = s.db.View(c.living, func(tx *store.Tx) error {
		return each(tx, `
			SELECT job, id, name, node, exit_code
			FROM task
			WHERE state = 'completed'`, func(scan func(...any) error) error {
			var of, id, name, node string
			var exit int
			err := scan(&of, &id, &name, &node, &exit)
			if err != nil || of != batch.Key(job) {
				return err
			}
			c.Witness.Completed(TaskKey{job, batch.TaskID(cmp.Or(name, id))}, batch.NodeID(node), exit)
			n++
			return nil
		})
	})
	return n, err
}
