package control

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/store"
)

// slice is how many tasks of an ending job one transaction touches: few enough
// not to keep other verbs waiting.
const slice = 500

// messageJobEnded is what a task's failure says when its job took it along.
const messageJobEnded = "The task was ended because its job was terminated."

// EndJob does one slice of what is left to do for a job that is being disabled,
// terminated or deleted, and tells whether that was all there is to do now. It
// may be called for any job at any time.
func (s *Service) EndJob(ctx context.Context, account batch.AccountName, id batch.JobID) (done bool, err error) {
	err = s.db.Update(ctx, func(tx *store.Tx) error {
		job, err := tx.Job(account, id)
		if errors.Is(err, store.ErrNotFound) {
			done = true
			return nil
		}
		if err != nil {
			return err
		}
		done, err = s.endSlice(tx, &job)
		return err
	})
	return done, err
}

// endSlice does one slice and tells whether nothing is left to begin. The row
// of the job has been written; what follows from the slice for the job itself
// is the ledger's.
func (s *Service) endSlice(tx *store.Tx, job *batch.Job) (done bool, err error) {
	switch job.State {
	case batch.JobDisabling:
		return s.disableSlice(tx, job)
	case batch.JobTerminating:
		tasks, err := tx.UnfinishedTasks(job.Account, job.ID, slice)
		if err != nil {
			return false, err
		}
		return len(tasks) < slice, s.endTasks(tx, job, tasks)
	case batch.JobDeleting:
		return s.deleteSlice(tx, job)
	}
	return true, nil
}

func (s *Service) endTasks(tx *store.Tx, job *batch.Job, tasks []batch.Task) error {
	l := s.Ledger(tx, job.Account)
	for i := range tasks {
		t := &tasks[i]
		if err := l.Change(t, func() error { return t.End(messageJobEnded, tx.Now()) }); err != nil {
			return err
		}
	}
	return l.Close()
}

// disableSlice asks nodes to give the job's tasks back, or ends them. It does
// all of them: they are no more than the nodes have slots.
func (s *Service) disableSlice(tx *store.Tx, job *batch.Job) (bool, error) {
	tasks, err := tx.BoundTasksOfJob(job.Account, job.ID, int(job.Bound))
	if err != nil {
		return false, err
	}
	l := s.Ledger(tx, job.Account)
	for i := range tasks {
		t := &tasks[i]
		switch {
		case t.State == batch.TaskActive && job.Disable == batch.DisableTasksWait:
			l.release(t, batch.ReleaseUnstarted)
		case t.State == batch.TaskActive || job.Disable == batch.DisableTasksRequeue:
			l.release(t, batch.ReleaseAlways)
		case job.Disable == batch.DisableTasksTerminate:
			if err := l.Change(t, func() error { return t.End("The task was ended because its job was disabled.", tx.Now()) }); err != nil {
				return false, err
			}
		}
	}
	return true, l.Close()
}

// deleteSlice first takes the job's tasks from their nodes, then removes rows
// of tasks, and the job's own with the last of them. Each node that ran a task
// is asked to remove the job's directory.
func (s *Service) deleteSlice(tx *store.Tx, job *batch.Job) (bool, error) {
	bound, err := tx.BoundTasksOfJob(job.Account, job.ID, slice)
	if err != nil {
		return false, err
	}
	if err := s.endTasks(tx, job, bound); err != nil || len(bound) == slice {
		return false, err
	}
	n, nodes, err := tx.DeleteTasks(job.Account, job.ID, slice)
	if err != nil {
		return false, err
	}
	if err := s.askRemovals(tx, nodes, job.ID); err != nil || n == slice {
		return false, err
	}
	return true, tx.DeleteJob(job.Account, job.ID)
}

// askRemovals asks nodes to remove the directory of a job.
func (s *Service) askRemovals(tx *store.Tx, nodes []batch.NodeID, job batch.JobID) error {
	if len(nodes) == 0 {
		return nil
	}
	first := s.take(len(nodes), tx.Now())
	removals := make([]store.Removal, len(nodes))
	for i, node := range nodes {
		removals[i] = store.Removal{Node: node, ID: first + int64(i), Job: job}
	}
	if err := tx.AddRemovals(removals); err != nil {
		return err
	}
	return tx.RaiseRevisions(nodes)
}

// EndingJobs names the jobs for which EndJob may have something to do.
func (s *Service) EndingJobs(ctx context.Context) ([]store.JobRef, error) {
	var jobs []store.JobRef
	err := s.db.View(ctx, func(tx *store.Tx) (err error) {
		jobs, err = tx.EndingJobs()
		return err
	})
	return jobs, err
}

// ExpireJobs terminates the jobs whose wall clock limit is over and returns
// when the next one's is, the zero time if no job has one. Jobs that cannot be
// terminated do not keep others from it; the error names them.
func (s *Service) ExpireJobs(ctx context.Context) (next time.Time, err error) {
	var jobs []store.JobRef
	if err := s.db.View(ctx, func(tx *store.Tx) (err error) {
		jobs, err = tx.ExpiringJobs(tx.Now())
		return err
	}); err != nil {
		return next, err
	}
	var failures []error
	for _, ref := range jobs {
		if err := s.db.Update(ctx, func(tx *store.Tx) error { return s.expire(tx, ref) }); err != nil {
			failures = append(failures, fmt.Errorf("terminate job %s of %s: %w", ref.Job, ref.Account, err))
		}
	}
	failures = append(failures, s.db.View(ctx, func(tx *store.Tx) (err error) {
		next, _, err = tx.NextJobExpiry()
		return err
	}))
	return next, errors.Join(failures...)
}

func (s *Service) expire(tx *store.Tx, ref store.JobRef) error {
	jobs, err := tx.ExpiringJobs(tx.Now())
	if err != nil || !slices.Contains(jobs, ref) {
		return err // it is gone, or has got another limit
	}
	job, err := tx.Job(ref.Account, ref.Job)
	if err != nil {
		return err
	}
	if err := job.BeginTerminate(batch.ReasonMaxWallClock, tx.Now()); err != nil {
		return err
	}
	job.Settle(tx.Now())
	tx.Changed(TopicEndings)
	return saveJob(tx, &job)
}
