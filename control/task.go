package control

import (
	"context"
	"errors"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/store"
)

// AddResult is what became of one task of AddTasks.
type AddResult struct {
	ID    batch.TaskID
	Stamp batch.Stamp
	// Err is nil if the task was added; a *batch.Error says why not.
	Err error
}

// Limits on what is added.
const (
	maxAddedTasks = 100       // tasks of one call, as in the protocol
	maxTaskSize   = 256 << 10 // bytes of all texts of a task
	maxFilesSize  = 64 << 10  // bytes of its resource files
)

// AddTask adds a task to a job.
func (s *Service) AddTask(ctx context.Context, account batch.AccountName, job batch.JobID, spec batch.TaskSpecification) (batch.Stamp, error) {
	results, err := s.AddTasks(ctx, account, job, []batch.TaskSpecification{spec})
	if err != nil {
		return 0, err
	}
	return results[0].Stamp, results[0].Err
}

// AddTasks adds up to a hundred tasks to a job, in one transaction. A task that
// is not valid, or whose id is taken, does not keep the others out; its result
// says so. An error means that none was added.
func (s *Service) AddTasks(ctx context.Context, account batch.AccountName, id batch.JobID, specs []batch.TaskSpecification) ([]AddResult, error) {
	if len(specs) == 0 || len(specs) > maxAddedTasks {
		return nil, batch.InvalidValue("value", len(specs), "It has 1 to %d tasks", maxAddedTasks)
	}
	var results []AddResult
	err := s.db.Update(ctx, func(tx *store.Tx) error {
		job, err := findJob(tx, account, id)
		if err != nil {
			return err
		}
		if err := job.AcceptsTasks(); err != nil {
			return err
		}
		results, err = s.addTasks(tx, &job, specs)
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, r := range results {
		if r.Err == nil {
			s.metrics.added.Inc()
		}
	}
	return results, nil
}

func (s *Service) addTasks(tx *store.Tx, job *batch.Job, specs []batch.TaskSpecification) ([]AddResult, error) {
	slots, err := slotsOfPool(tx, job, specs)
	if err != nil {
		return nil, err
	}
	results := make([]AddResult, len(specs))
	tasks := make([]batch.Task, 0, len(specs))
	at := make([]int, 0, len(specs)) // where in results each of tasks is
	sequence := s.take(len(specs), tx.Now())
	for i, spec := range specs {
		results[i].ID = spec.ID
		if results[i].Err = normalizeTask(&spec, job, slots); results[i].Err == nil {
			tasks, at = append(tasks, batch.NewTask(job, spec, sequence+int64(i), tx.Now())), append(at, i)
		}
	}
	if len(tasks) == 0 {
		return results, nil
	}
	inserted, err := tx.InsertTasks(tasks)
	if err != nil {
		return nil, err
	}
	l := s.Ledger(tx, job.Account)
	for i := range tasks {
		r := &results[at[i]]
		if !inserted[i] {
			r.Err = batch.Errorf(batch.CodeTaskExists, "The specified task already exists: %q.", r.ID)
			continue
		}
		r.Stamp = tasks[i].Stamp
		l.count(&tasks[i], +1)
		l.tend(job.ID, tasks[i].RequiredSlots)
	}
	return results, l.Close()
}

// slotsOfPool is how many slots a task may require, which matters only if one
// of the tasks wants more than one.
func slotsOfPool(tx *store.Tx, job *batch.Job, specs []batch.TaskSpecification) (int, error) {
	most := 1
	for i := range specs {
		most = max(most, specs[i].RequiredSlots)
	}
	if most == 1 {
		return 1, nil
	}
	p, err := tx.Pool(job.Account, job.PoolInfo.PoolID)
	if errors.Is(err, store.ErrNotFound) {
		return most, nil // the job waits for another pool
	}
	return p.TaskSlotsPerNode, err
}

// normalizeTask leaves the caller's specification alone as far as it is shared:
// defaults only fill what was empty, so doing it twice does no harm.
func normalizeTask(spec *batch.TaskSpecification, job *batch.Job, slots int) error {
	if err := spec.Normalize(&job.JobSpecification); err != nil {
		return err
	}
	if spec.RequiredSlots > slots {
		return batch.InvalidValue("requiredSlots", spec.RequiredSlots, "The nodes of the job's pool have %d task slots each", slots)
	}
	return checkTaskSize(spec)
}

// checkTaskSize bounds what a task makes the server and its nodes keep.
func checkTaskSize(spec *batch.TaskSpecification) error {
	files := 0
	for _, f := range spec.ResourceFiles {
		files += len(f.HTTPURL) + len(f.StorageContainerURL) + len(f.BlobPrefix) + len(f.FilePath) + len(f.FileMode)
	}
	size := files + len(spec.DisplayName) + len(spec.CommandLine)
	for _, e := range spec.EnvironmentSettings {
		size += len(e.Name) + len(e.Value)
	}
	for _, f := range spec.OutputFiles {
		c := f.Destination.Container
		size += len(f.FilePattern) + len(c.Path) + len(c.ContainerURL)
		for _, h := range c.UploadHeaders {
			size += len(h.Name) + len(h.Value)
		}
	}
	if files <= maxFilesSize && size <= maxTaskSize {
		return nil
	}
	return &batch.Error{
		Code:    batch.CodeRequestBodyTooLarge,
		Message: "The task is too large: put long lists of files into a container and settings into a file.",
		Details: []batch.Detail{{Key: "MaxLimit", Value: "64 KiB of resource files, 256 KiB in all"}},
	}
}

// Task returns a task; TaskNotFound if there is none.
func (s *Service) Task(ctx context.Context, account batch.AccountName, job batch.JobID, id batch.TaskID) (batch.Task, error) {
	var t batch.Task
	err := s.db.View(ctx, func(tx *store.Tx) (err error) {
		t, err = findTask(tx, account, job, id)
		return err
	})
	return t, err
}

// UpdateTask changes the constraints of a task.
func (s *Service) UpdateTask(ctx context.Context, account batch.AccountName, job batch.JobID, id batch.TaskID, u batch.TaskUpdate, c batch.Conditions) (batch.Stamp, error) {
	return s.changeTask(ctx, account, job, id, c, func(l *Ledger, t *batch.Task) error {
		parent, err := findJob(l.tx, account, job)
		if err != nil {
			return err
		}
		if err := t.Update(u, &parent.JobSpecification, l.tx.Now()); err != nil {
			return err
		}
		return l.tx.UpdateTask(t)
	})
}

// TerminateTask ends a task. If it runs, its node is told at once; the task is
// completed without waiting for the node.
func (s *Service) TerminateTask(ctx context.Context, account batch.AccountName, job batch.JobID, id batch.TaskID, c batch.Conditions) (batch.Stamp, error) {
	return s.changeTask(ctx, account, job, id, c, func(l *Ledger, t *batch.Task) error {
		return l.Change(t, func() error { return t.End("The task was terminated by a user.", l.tx.Now()) })
	})
}

// ReactivateTask queues a failed task again.
func (s *Service) ReactivateTask(ctx context.Context, account batch.AccountName, job batch.JobID, id batch.TaskID, c batch.Conditions) (batch.Stamp, error) {
	return s.changeTask(ctx, account, job, id, c, func(l *Ledger, t *batch.Task) error {
		parent, err := findJob(l.tx, account, job)
		if err != nil {
			return err
		}
		if err := parent.AcceptsTasks(); err != nil {
			return err
		}
		if err := l.checkFit(t, &parent); err != nil {
			return err
		}
		return l.Change(t, func() error { return t.Reactivate(l.tx.Now()) })
	})
}

// checkFit refuses a task that the pool of its job has no node large enough for.
func (l *Ledger) checkFit(t *batch.Task, job *batch.Job) error {
	if t.RequiredSlots == 1 {
		return nil
	}
	p, err := l.tx.Pool(job.Account, job.PoolInfo.PoolID)
	if errors.Is(err, store.ErrNotFound) {
		return nil // the job waits for another pool
	}
	if err != nil {
		return err
	}
	return checkFit(&p, "requiredSlots", t.RequiredSlots, t.RequiredSlots)
}

// DeleteTask removes a task, and its directory from the node where it ran.
func (s *Service) DeleteTask(ctx context.Context, account batch.AccountName, job batch.JobID, id batch.TaskID, c batch.Conditions) error {
	_, err := s.changeTask(ctx, account, job, id, c, func(l *Ledger, t *batch.Task) error {
		l.count(t, -1)
		if t.Waits() {
			l.leave(t)
		}
		if err := l.removeFiles(t); err != nil {
			return err
		}
		return l.tx.DeleteTask(account, job, id)
	})
	return err
}

// removeFiles asks the node where a task ran last to remove its directory.
func (l *Ledger) removeFiles(t *batch.Task) error {
	if t.Node == "" || t.FilesRemoved {
		return nil
	}
	l.Touch(t.Node)
	return l.tx.AddRemovals([]store.Removal{
		{Node: t.Node, ID: l.service.take(1, l.tx.Now()), Job: t.Job, Task: t.ID},
	})
}

// changeTask runs a change of one task in a transaction, and closes the ledger.
func (s *Service) changeTask(ctx context.Context, account batch.AccountName, job batch.JobID, id batch.TaskID, c batch.Conditions,
	change func(*Ledger, *batch.Task) error,
) (batch.Stamp, error) {
	var stamp batch.Stamp
	err := s.db.Update(ctx, func(tx *store.Tx) error {
		t, err := findTask(tx, account, job, id)
		if err != nil {
			return err
		}
		if err := c.Check(t.Stamp, false); err != nil {
			return err
		}
		l := s.Ledger(tx, account)
		if err := change(l, &t); err != nil {
			return err
		}
		stamp = t.Stamp
		return l.Close()
	})
	return stamp, err
}

// findTask reads a task that the caller named.
func findTask(tx *store.Tx, account batch.AccountName, job batch.JobID, id batch.TaskID) (batch.Task, error) {
	t, err := tx.Task(account, job, id)
	if !errors.Is(err, store.ErrNotFound) {
		return t, err
	}
	if _, err := findJob(tx, account, job); err != nil {
		return t, err
	}
	return t, batch.NotFound("task", id)
}
