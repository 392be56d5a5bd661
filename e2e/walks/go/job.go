package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
	"github.com/Azure/azure-sdk-for-go/services/batch/2020-09-01.12.0/batch"
)

func (w *walk) createJob(ctx context.Context) error {
	job := batch.JobAddParameter{
		ID:                        &w.job,
		Priority:                  new(int32(100)),
		PoolInfo:                  &batch.PoolInformation{PoolID: &w.pool},
		Constraints:               &batch.JobConstraints{MaxWallClockTime: new("PT1H"), MaxTaskRetryCount: new(int32(0))},
		CommonEnvironmentSettings: &[]batch.EnvironmentSetting{{Name: new("GREETING"), Value: new("hello")}},
		Metadata:                  &[]batch.MetadataItem{{Name: new("client"), Value: new("go")}},
	}
	if _, err := w.jobs.Add(ctx, job, nil, nil, nil, nil); err != nil {
		return err
	}
	_, again := w.jobs.Add(ctx, job, nil, nil, nil, nil)
	made, err := w.getJob(ctx)
	if err != nil {
		return err
	}
	return errors.Join(
		fails(again, "JobExists", http.StatusConflict),
		equal("state", made.State, batch.JobStateActive),
		equal("priority", *made.Priority, 100),
		equal("limit", *made.Constraints.MaxWallClockTime, "PT1H"),
		equal("at the end", made.OnAllTasksComplete, batch.NoAction),
	)
}

func (w *walk) getJob(ctx context.Context) (batch.CloudJob, error) {
	return w.jobs.Get(ctx, w.job, "", "", nil, nil, nil, nil, "", "", nil, nil)
}

func (w *walk) changeJob(ctx context.Context) error {
	before, err := w.getJob(ctx)
	if err != nil {
		return err
	}
	if _, err := w.jobs.Patch(ctx, w.job, batch.JobPatchParameter{Priority: new(int32(-5))}, nil, nil, nil, nil, "", "", nil, nil); err != nil {
		return err
	}
	update := batch.JobUpdateParameter{PoolInfo: before.PoolInfo, Priority: new(int32(7))}
	_, stale := w.jobs.Update(ctx, w.job, update, nil, nil, nil, nil, *before.ETag, "", nil, nil)
	if _, err := w.jobs.Update(ctx, w.job, update, nil, nil, nil, nil, "", "", nil, nil); err != nil {
		return err
	}
	after, err := w.getJob(ctx)
	if err != nil {
		return err
	}
	disable := batch.JobDisableParameter{DisableTasks: batch.DisableJobOptionRequeue}
	if _, err := w.jobs.Disable(ctx, w.job, disable, nil, nil, nil, nil, "", "", nil, nil); err != nil {
		return err
	}
	if err := w.jobIs(ctx, batch.JobStateDisabled); err != nil {
		return err
	}
	if _, err := w.jobs.Enable(ctx, w.job, nil, nil, nil, nil, "", "", nil, nil); err != nil {
		return err
	}
	return errors.Join(
		w.jobIs(ctx, batch.JobStateActive),
		fails(stale, "ConditionNotMet", http.StatusPreconditionFailed),
		equal("priority", *after.Priority, 7),
		equal("limit", *after.Constraints.MaxWallClockTime, "P10675199DT2H48M5.4775807S"),
	)
}

func (w *walk) jobIs(ctx context.Context, state batch.JobState) error {
	return waitFor("job that is "+string(state), func() (bool, error) {
		job, err := w.getJob(ctx)
		return job.State == state, err
	})
}

func (w *walk) endJob(ctx context.Context) error {
	reason := batch.JobTerminateParameter{TerminateReason: new("the walk is over")}
	if _, err := w.jobs.Terminate(ctx, w.job, &reason, nil, nil, nil, nil, "", "", nil, nil); err != nil {
		return err
	}
	if err := w.jobIs(ctx, batch.JobStateCompleted); err != nil {
		return err
	}
	job, err := w.getJob(ctx)
	if err != nil {
		return err
	}
	late := batch.TaskAddParameter{ID: new("late"), CommandLine: new("/bin/true")}
	_, err = w.tasks.Add(ctx, w.job, late, nil, nil, nil, nil)
	return errors.Join(
		equal("reason", *job.ExecutionInfo.TerminateReason, "the walk is over"),
		fails(err, "JobCompleted", http.StatusConflict),
	)
}

func (w *walk) deleteEverything(ctx context.Context) error {
	if _, err := w.tasks.Delete(ctx, w.job, "task-000", nil, nil, nil, nil, "", "", nil, nil); err != nil {
		return err
	}
	_, err := w.getTask(ctx, "task-000")
	if err := fails(err, "TaskNotFound", http.StatusNotFound); err != nil {
		return err
	}
	if _, err := w.jobs.Delete(ctx, w.job, nil, nil, nil, nil, "", "", nil, nil); err != nil {
		return err
	}
	err = waitFor("end of the job", func() (bool, error) {
		_, err := w.getJob(ctx)
		return gone(err)
	})
	if err != nil {
		return err
	}
	if _, err := w.pools.Delete(ctx, w.pool, nil, nil, nil, nil, "", "", nil, nil); err != nil {
		return err
	}
	err = waitFor("end of the pool", func() (bool, error) {
		_, err := w.getPool(ctx, w.pool)
		return gone(err)
	})
	if err != nil {
		return err
	}
	for _, name := range []string{w.inputs, w.outputs} {
		if _, err := w.storage.DeleteContainer(ctx, name, nil); err != nil {
			return err
		}
		_, err := w.storage.ServiceClient().NewContainerClient(name).GetProperties(ctx, nil)
		if !bloberror.HasCode(err, bloberror.ContainerNotFound, "404 Not Found") {
			return fmt.Errorf("container %s is still there: %w", name, err)
		}
	}
	return w.poolExists(ctx, false)
}
