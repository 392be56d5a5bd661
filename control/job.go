package control

import (
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/store"
)

// AddJob adds a job to a pool, which it waits for if there is none of that id.
// JobExists if the id is taken, or JobBeingDeleted if it is about to become free.
func (s *Service) AddJob(ctx context.Context, account batch.AccountName, spec batch.JobSpecification) (batch.Stamp, error) {
	if err := spec.Normalize(); err != nil {
		return 0, err
	}
	var stamp batch.Stamp
	err := s.db.Update(ctx, func(tx *store.Tx) error {
		if err := mayUsePool(tx, account, spec.PoolInfo.PoolID); err != nil {
			return err
		}
		if err := jobIDFree(tx, account, spec.ID); err != nil {
			return err
		}
		job := batch.NewJob(account, spec, tx.Now())
		job.Settle(tx.Now()) // one that ends without tasks is over at once
		stamp = job.Stamp
		tx.Changed(TopicExpiries)
		return tx.InsertJob(&job)
	})
	return stamp, err
}

// mayUsePool refuses a pool that goes away. One that is not there may come.
func mayUsePool(tx *store.Tx, account batch.AccountName, id batch.PoolID) error {
	_, state, err := tx.PoolVersion(account, id)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return nil
	case err == nil && state == batch.PoolDeleting:
		return batch.Errorf(batch.CodePoolBeingDeleted, "The specified pool is being deleted: %q.", id)
	}
	return err
}

func jobIDFree(tx *store.Tx, account batch.AccountName, id batch.JobID) error {
	old, err := tx.Job(account, id)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return nil
	case err != nil:
		return err
	case old.State == batch.JobDeleting:
		return batch.Errorf(batch.CodeJobBeingDeleted, "The specified job is being deleted: %q.", id)
	}
	return batch.Errorf(batch.CodeJobExists, "The specified job already exists: %q.", id)
}

// Job returns a job; JobNotFound if there is none.
func (s *Service) Job(ctx context.Context, account batch.AccountName, id batch.JobID) (batch.Job, error) {
	var job batch.Job
	err := s.db.View(ctx, func(tx *store.Tx) (err error) {
		if job, err = findJob(tx, account, id); err != nil {
			return err
		}
		return noteMissingPools(tx, account, []*batch.Job{&job})
	})
	return job, err
}

// Jobs returns a page of an account's jobs, ordered by id.
func (s *Service) Jobs(ctx context.Context, account batch.AccountName, q Query) (Page[batch.Job], error) {
	list, err := q.list(jobFields, maxPage)
	if err != nil {
		return Page[batch.Job]{}, err
	}
	var jobs []batch.Job
	err = s.db.View(ctx, func(tx *store.Tx) (err error) {
		if jobs, err = tx.Jobs(account, list); err != nil {
			return err
		}
		all := make([]*batch.Job, len(jobs))
		for i := range jobs {
			all[i] = &jobs[i]
		}
		return noteMissingPools(tx, account, all)
	})
	return page(jobs, list, func(j *batch.Job) string { return batch.Key(j.ID) }), err
}

// noteMissingPools tells jobs of which tasks wait for a pool that is not there.
func noteMissingPools(tx *store.Tx, account batch.AccountName, jobs []*batch.Job) error {
	ids := make(map[string]bool)
	for _, j := range jobs {
		if j.RunsTasks() && j.Counts.Active > 0 {
			ids[batch.Key(j.PoolInfo.PoolID)] = true
		}
	}
	if len(ids) == 0 {
		return nil
	}
	there, err := tx.PoolsThere(account, slices.Sorted(maps.Keys(ids)))
	if err != nil {
		return err
	}
	for _, j := range jobs {
		if key := batch.Key(j.PoolInfo.PoolID); ids[key] && !there[key] {
			j.AwaitPool()
		}
	}
	return nil
}

// TaskCounts returns how many tasks of a job are in which state.
func (s *Service) TaskCounts(ctx context.Context, account batch.AccountName, id batch.JobID) (batch.TaskCounts, error) {
	job, err := s.Job(ctx, account, id)
	return job.Counts, err
}

// PatchJob changes what the patch carries.
func (s *Service) PatchJob(ctx context.Context, account batch.AccountName, id batch.JobID, patch batch.JobPatch, c batch.Conditions) (batch.Stamp, error) {
	return s.updateJob(ctx, account, id, c, func(tx *store.Tx, job *batch.Job) error { return job.Patch(patch, tx.Now()) })
}

// ReplaceJob puts what the patch does not carry back to its default.
func (s *Service) ReplaceJob(ctx context.Context, account batch.AccountName, id batch.JobID, patch batch.JobPatch, c batch.Conditions) (batch.Stamp, error) {
	return s.updateJob(ctx, account, id, c, func(tx *store.Tx, job *batch.Job) error { return job.Replace(patch, tx.Now()) })
}

// updateJob changes a job and moves its queues: one row for each number of slots
// that its tasks need, however many tasks there are.
func (s *Service) updateJob(ctx context.Context, account batch.AccountName, id batch.JobID, c batch.Conditions,
	update func(*store.Tx, *batch.Job) error,
) (batch.Stamp, error) {
	return s.changeJob(ctx, account, id, c, func(tx *store.Tx, job *batch.Job) error {
		before := job.PoolInfo.PoolID
		if err := update(tx, job); err != nil {
			return err
		}
		tx.Changed(TopicExpiries, ReadyTopic(account, before))
		if batch.Key(before) == batch.Key(job.PoolInfo.PoolID) {
			return nil
		}
		if err := mayUsePool(tx, account, job.PoolInfo.PoolID); err != nil {
			return err
		}
		return checkMove(tx, job)
	})
}

// EnableJob lets a disabled job run tasks again.
func (s *Service) EnableJob(ctx context.Context, account batch.AccountName, id batch.JobID, c batch.Conditions) (batch.Stamp, error) {
	return s.changeJob(ctx, account, id, c, func(tx *store.Tx, job *batch.Job) error {
		tx.Changed(TopicUnfit)
		return job.Enable(tx.Now())
	})
}

// DisableJob keeps a job from running tasks; the option says what becomes of
// those that run.
func (s *Service) DisableJob(ctx context.Context, account batch.AccountName, id batch.JobID, tasks batch.DisableTasks, c batch.Conditions) (batch.Stamp, error) {
	return s.changeJob(ctx, account, id, c, func(tx *store.Tx, job *batch.Job) error {
		tx.Changed(TopicEndings)
		return job.BeginDisable(tasks, tx.Now())
	})
}

// TerminateJob ends a job and its tasks. Without a reason it is UserTerminate.
func (s *Service) TerminateJob(ctx context.Context, account batch.AccountName, id batch.JobID, reason string, c batch.Conditions) (batch.Stamp, error) {
	if reason == "" {
		reason = batch.ReasonUserTerminate
	}
	if len(reason) > maxReason {
		return 0, batch.InvalidValue("terminateReason", reason, "A reason has at most %d bytes", maxReason)
	}
	return s.changeJob(ctx, account, id, c, func(tx *store.Tx, job *batch.Job) error {
		tx.Changed(TopicEndings)
		return job.BeginTerminate(reason, tx.Now())
	})
}

// maxReason bounds what a user may say about the end of a job.
const maxReason = 1024

// DeleteJob begins to delete a job, its tasks and their files.
func (s *Service) DeleteJob(ctx context.Context, account batch.AccountName, id batch.JobID, c batch.Conditions) error {
	_, err := s.changeJob(ctx, account, id, c, func(tx *store.Tx, job *batch.Job) error {
		tx.Changed(TopicEndings)
		return job.BeginDelete(tx.Now())
	})
	return err
}

// changeJob runs a change of one job in a transaction and writes it. What the
// change began for the job's tasks gets its first slice here, so that a small
// job is done with at once.
func (s *Service) changeJob(ctx context.Context, account batch.AccountName, id batch.JobID, c batch.Conditions,
	change func(*store.Tx, *batch.Job) error,
) (batch.Stamp, error) {
	var stamp batch.Stamp
	err := s.db.Update(ctx, func(tx *store.Tx) error {
		job, err := findJob(tx, account, id)
		if err != nil {
			return err
		}
		if err := c.Check(job.Stamp, false); err != nil {
			return err
		}
		before := job.State
		if err := change(tx, &job); err != nil {
			return err
		}
		job.Settle(tx.Now())
		stamp = job.Stamp
		if err := saveJob(tx, &job); err != nil || job.State == before {
			return err
		}
		if _, err = s.endSlice(tx, &job); err != nil {
			return err
		}
		if job, err = tx.Job(account, id); err == nil {
			stamp = job.Stamp
		} else if errors.Is(err, store.ErrNotFound) {
			err = nil // deleted with all that it had
		}
		return err
	})
	return stamp, err
}

// saveJob writes a job, and has the scheduler look at its pool: the job may come
// elsewhere among the others there, or no longer stand before them.
func saveJob(tx *store.Tx, job *batch.Job) error {
	tx.Changed(ReadyTopic(job.Account, job.PoolInfo.PoolID))
	return tx.UpdateJob(job)
}

// findJob reads a job that the caller named.
func findJob(tx *store.Tx, account batch.AccountName, id batch.JobID) (batch.Job, error) {
	job, err := tx.Job(account, id)
	if errors.Is(err, store.ErrNotFound) {
		return job, batch.NotFound("job", id)
	}
	return job, err
}
