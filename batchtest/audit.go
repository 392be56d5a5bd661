package batchtest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing/synctest"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/control"
)

// load is what a node holds, as tasks say or as the node says.
type load struct{ Bound, BoundSlots, Running, RunningSlots int }

// Audit waits until nothing moves at this moment, lists all tasks and nodes and
// compares them with what is counted, with what was added and with what the
// Witness saw. It returns the tasks, or what is wrong.
func (c *Cluster) Audit(pool batch.PoolID, added map[batch.JobID][]batch.TaskID) ([]batch.Task, error) {
	synctest.Wait()
	a := audit{cluster: c, ctx: c.living, held: map[batch.NodeID]load{}}
	for _, job := range sortedJobs(added) {
		a.job(job, added[job])
	}
	a.nodes(pool)
	for _, v := range c.Witness.Violations() {
		a.wrong("%s", v)
	}
	return a.tasks, errors.Join(a.errs...)
}

// audit is one of them.
type audit struct {
	cluster *Cluster
	ctx     context.Context // an audit is one call
	tasks   []batch.Task
	held    map[batch.NodeID]load
	errs    []error
}

func (a *audit) wrong(format string, args ...any) {
	a.errs = append(a.errs, fmt.Errorf(format, args...))
}

// list reads all pages.
func list[T any](page func(control.Query) (control.Page[T], error)) ([]T, error) {
	var all []T
	var q control.Query
	for {
		p, err := page(q)
		if err != nil {
			return nil, err
		}
		all = append(all, p.Items...)
		if q.Token = p.Next; q.Token == "" {
			return all, nil
		}
	}
}

// job recounts one job.
func (a *audit) job(id batch.JobID, added []batch.TaskID) {
	s := a.cluster.Server()
	job, err := s.Job(a.ctx, Account, id)
	if err != nil {
		a.wrong("read job %s: %w", id, err)
		return
	}
	tasks, err := list(func(q control.Query) (control.Page[batch.Task], error) { return s.Tasks(a.ctx, Account, id, q) })
	if err != nil {
		a.wrong("list tasks of %s: %w", id, err)
		return
	}
	a.tasks = append(a.tasks, tasks...)
	a.compareNames(id, tasks, added)
	var want batch.TaskCounts
	bound := int64(0)
	for i := range tasks {
		count(&want, &tasks[i])
		if tasks[i].Bound {
			bound++
		}
		a.task(&tasks[i])
		a.times(&tasks[i])
	}
	a.jobTimes(&job)
	if job.Counts != want {
		a.wrong("job %s counts %+v and has %+v", id, job.Counts, want)
	}
	if job.Bound != bound {
		a.wrong("job %s counts %d tasks bound to nodes and has %d", id, job.Bound, bound)
	}
}

// compareNames finds tasks that were accepted and are lost.
func (a *audit) compareNames(job batch.JobID, tasks []batch.Task, added []batch.TaskID) {
	there := make(map[batch.TaskID]int, len(tasks))
	for i := range tasks {
		there[tasks[i].ID]++
	}
	for _, id := range added {
		if there[id] != 1 {
			a.wrong("task %s/%s was added and is there %d times", job, id, there[id])
		}
	}
	if len(tasks) != len(added) {
		a.wrong("job %s has %d tasks, %d were added", job, len(tasks), len(added))
	}
}

// count adds a task to the counts of its job.
func count(c *batch.TaskCounts, t *batch.Task) {
	slots := int64(t.RequiredSlots)
	switch {
	case t.State == batch.TaskActive:
		c.Active, c.ActiveSlots = c.Active+1, c.ActiveSlots+slots
	case t.State == batch.TaskRunning:
		c.Running, c.RunningSlots = c.Running+1, c.RunningSlots+slots
	case t.ExecutionInfo.Result == batch.ResultSuccess:
		c.Succeeded, c.SucceededSlots = c.Succeeded+1, c.SucceededSlots+slots
	default:
		c.Failed, c.FailedSlots = c.Failed+1, c.FailedSlots+slots
	}
}

// task books a task on its node, and holds its end against what was seen.
func (a *audit) task(t *batch.Task) {
	if t.Bound {
		l := a.held[t.Node]
		l.Bound, l.BoundSlots = l.Bound+1, l.BoundSlots+t.RequiredSlots
		if t.State == batch.TaskRunning {
			l.Running, l.RunningSlots = l.Running+1, l.RunningSlots+t.RequiredSlots
		}
		a.held[t.Node] = l
	}
	switch {
	case t.State == batch.TaskCompleted && t.Bound:
		a.wrong("task %s/%s is completed and bound to %s", t.Job, t.ID, t.Node)
	case t.State == batch.TaskRunning && !t.Bound:
		a.wrong("task %s/%s runs nowhere", t.Job, t.ID)
	case t.State == batch.TaskCompleted && t.ExecutionInfo.ExitCode == nil:
		if f := t.ExecutionInfo.FailureInfo; f == nil || f.Code != batch.FailureTaskEnded {
			a.wrong("task %s/%s is completed without an exit code: %+v", t.Job, t.ID, f)
		}
	case t.State == batch.TaskCompleted && t.ExecutionInfo.FailureInfo != nil && t.ExecutionInfo.FailureInfo.Code == batch.FailureWallClock:
		a.cluster.Witness.Exceeded(TaskKey{t.Job, t.ID}, t.Node)
	case t.State == batch.TaskCompleted:
		a.cluster.Witness.Completed(TaskKey{t.Job, t.ID}, t.Node, *t.ExecutionInfo.ExitCode)
	}
}

// nodes recounts the nodes of a pool.
func (a *audit) nodes(pool batch.PoolID) {
	s := a.cluster.Server()
	nodes, err := list(func(q control.Query) (control.Page[batch.Node], error) { return s.Nodes(a.ctx, Account, pool, q) })
	if err != nil {
		a.wrong("list nodes: %w", err)
		return
	}
	for i := range nodes {
		a.node(&nodes[i])
	}
	for id, l := range a.held {
		a.wrong("tasks are bound to node %s, which is gone: %+v", id, l)
	}
	p, err := s.Pool(a.ctx, Account, pool)
	if err == nil {
		a.resize(&p)
	}
	if err != nil {
		a.wrong("read pool: %w", err)
	} else if counted := p.CurrentDedicatedNodes + p.CurrentLowPriorityNodes; counted != len(nodes) {
		a.wrong("pool %s counts %d nodes and has %d", pool, counted, len(nodes))
	}
}

// Diary is what happened so far.
func (c *Cluster) Diary() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return strings.Join(c.diary, "\n")
}

func sortedJobs(added map[batch.JobID][]batch.TaskID) []batch.JobID {
	return slices.Sorted(maps.Keys(added))
}
