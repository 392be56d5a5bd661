package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/sas"
	"github.com/Azure/azure-sdk-for-go/services/batch/2020-09-01.12.0/batch"
)

func (w *walk) addTasks(ctx context.Context) error {
	outputs, err := w.containerURL(w.outputs, sas.ContainerPermissions{Write: true})
	if err != nil {
		return err
	}
	var tasks []batch.TaskAddParameter
	for k := range taskCount {
		input, err := w.blobURL(inputName(k % 4))
		if err != nil {
			return err
		}
		tasks = append(tasks, workTask(k, input, outputs))
	}
	for chunk := range slices.Chunk(tasks, 100) {
		added, err := w.tasks.AddCollection(ctx, w.job, batch.TaskAddCollectionParameter{Value: &chunk}, nil, nil, nil, nil)
		if err != nil {
			return err
		}
		for i, result := range *added.Value {
			if !strings.EqualFold(string(result.Status), string(batch.TaskAddStatusSuccess)) {
				return fmt.Errorf("result %d is %s for task %s", i, result.Status, *result.TaskID)
			}
		}
	}
	again := tasks[:1]
	result, err := w.tasks.AddCollection(ctx, w.job, batch.TaskAddCollectionParameter{Value: &again}, nil, nil, nil, nil)
	if err != nil {
		return err
	}
	_, single := w.tasks.Add(ctx, w.job, tasks[0], nil, nil, nil, nil)
	return errors.Join(
		equal("error in the collection", *(*result.Value)[0].Error.Code, "TaskExists"),
		fails(single, "TaskExists", http.StatusConflict),
	)
}

func workTask(k int, input, outputs string) batch.TaskAddParameter {
	id := taskID(k)
	files := []batch.OutputFile{
		upload("highest.txt", outputs, id+"/highest.txt", batch.OutputFileUploadConditionTaskSuccess),
	}
	if k%50 == 0 {
		files = append(files, upload("../std*.txt", outputs, id+"/logs", batch.OutputFileUploadConditionTaskCompletion))
	}
	return batch.TaskAddParameter{
		ID:                  &id,
		CommandLine:         new("/bin/sh -c 'echo $GREETING from $AZ_BATCH_TASK_ID, $ROLE; sort -n measures.txt | tail -n 1 > highest.txt'"),
		ResourceFiles:       &[]batch.ResourceFile{{HTTPURL: &input, FilePath: new("measures.txt")}},
		EnvironmentSettings: &[]batch.EnvironmentSetting{{Name: new("ROLE"), Value: new(fmt.Sprint("worker ", k))}},
		OutputFiles:         &files,
		Constraints: &batch.TaskConstraints{
			MaxWallClockTime: new("PT5M"), RetentionTime: new("PT1H"), MaxTaskRetryCount: new(int32(1)),
		},
	}
}

func upload(pattern, container, path string, condition batch.OutputFileUploadCondition) batch.OutputFile {
	return batch.OutputFile{
		FilePattern: &pattern,
		Destination: &batch.OutputFileDestination{
			Container: &batch.OutputFileBlobContainerDestination{ContainerURL: &container, Path: &path},
		},
		UploadOptions: &batch.OutputFileUploadOptions{UploadCondition: condition},
	}
}

func (w *walk) waitForTasks(ctx context.Context) error {
	err := waitFor("all tasks", func() (bool, error) {
		done, err := w.completed(ctx)
		return len(done) == taskCount, err
	})
	if err != nil {
		return err
	}
	done, err := w.completed(ctx)
	if err != nil {
		return err
	}
	for _, task := range done {
		if task.ExecutionInfo.Result != batch.Success {
			return fmt.Errorf("task %s ended with %s", *task.ID, task.ExecutionInfo.Result)
		}
	}
	counts, err := w.jobs.GetTaskCounts(ctx, w.job, nil, nil, nil, nil)
	if err != nil {
		return err
	}
	task, err := w.getTask(ctx, "task-007")
	if err != nil {
		return err
	}
	return errors.Join(
		equal("completed", *counts.TaskCounts.Completed, taskCount),
		equal("succeeded", *counts.TaskCounts.Succeeded, taskCount),
		equal("slots", *counts.TaskSlotCounts.Completed, taskCount),
		equal("exit code", *task.ExecutionInfo.ExitCode, 0),
		equal("setting", *(*task.EnvironmentSettings)[0].Value, "worker 7"),
		equal("retries", *task.Constraints.MaxTaskRetryCount, 1),
	)
}

func (w *walk) completed(ctx context.Context) ([]batch.CloudTask, error) {
	var done []batch.CloudTask
	tasks, err := w.tasks.ListComplete(
		ctx, w.job, "state eq 'completed'", "id,state,executionInfo", "", new(int32(80)), nil, nil, nil, nil)
	for ; err == nil && tasks.NotDone(); err = tasks.NextWithContext(ctx) {
		done = append(done, tasks.Value())
	}
	return done, err
}

func (w *walk) getTask(ctx context.Context, id string) (batch.CloudTask, error) {
	return w.tasks.Get(ctx, w.job, id, "", "", nil, nil, nil, nil, "", "", nil, nil)
}

func (w *walk) readTaskFiles(ctx context.Context) error {
	for _, k := range []int{0, 7, 199} {
		text, err := w.readTaskFile(ctx, taskID(k), "stdout.txt", "")
		if err != nil {
			return err
		}
		if err := equal("output", text, fmt.Sprintf("hello from %s, worker %d\n", taskID(k), k)); err != nil {
			return err
		}
	}
	part, err := w.readTaskFile(ctx, "task-007", "stdout.txt", "bytes=6-9")
	if err != nil {
		return err
	}
	head, err := w.files.GetPropertiesFromTask(ctx, w.job, "task-007", "wd/highest.txt", nil, nil, nil, nil, nil, nil)
	if err != nil {
		return err
	}
	names, err := w.fileNames(w.files.ListFromTaskPreparer(ctx, w.job, "task-007", "", new(true), nil, nil, nil, nil, nil))
	if err != nil {
		return err
	}
	_, missing := w.readTaskFile(ctx, "task-007", "wd/missing.txt", "")
	return errors.Join(
		equal("range", part, "from"),
		equal("length", head.ContentLength, 4),
		equal("kind", head.Header.Get("ocp-batch-file-isdirectory"), "False"),
		equal("result listed", slices.Contains(names, "wd/highest.txt"), true),
		equal("errors listed", slices.Contains(names, "stderr.txt"), true),
		fails(missing, "FileNotFound", http.StatusNotFound),
	)
}

func (w *walk) readTaskFile(ctx context.Context, task, path, byteRange string) (string, error) {
	file, err := w.files.GetFromTask(ctx, w.job, task, path, nil, nil, nil, nil, byteRange, nil, nil)
	return content(file, err)
}

func (w *walk) followTroubledTasks(ctx context.Context) error {
	inputs, err := w.containerURL(w.inputs, sas.ContainerPermissions{Read: true, List: true})
	if err != nil {
		return err
	}
	everything := batch.ResourceFile{StorageContainerURL: &inputs, BlobPrefix: new("measure-"), FilePath: new("all")}
	for _, task := range []batch.TaskAddParameter{
		{ID: new("summary"), CommandLine: new("/bin/sh -c 'cat all/measure-*.txt | wc -l'"), ResourceFiles: &[]batch.ResourceFile{everything}},
		{ID: new("failing"), CommandLine: new("/bin/sh -c 'echo no >&2; exit 3'")},
		{ID: new("sleeper"), CommandLine: new("/bin/sleep 600")},
	} {
		if _, err := w.tasks.Add(ctx, w.job, task, nil, nil, nil, nil); err != nil {
			return err
		}
	}
	if err := w.taskIs(ctx, "summary", batch.TaskStateCompleted); err != nil {
		return err
	}
	lines, err := w.readTaskFile(ctx, "summary", "stdout.txt", "")
	if err != nil {
		return err
	}
	if err := w.taskIs(ctx, "failing", batch.TaskStateCompleted); err != nil {
		return err
	}
	failed, err := w.getTask(ctx, "failing")
	if err != nil {
		return err
	}
	return errors.Join(
		equal("lines", strings.TrimSpace(lines), "40"),
		equal("exit code", *failed.ExecutionInfo.ExitCode, 3),
		equal("result", failed.ExecutionInfo.Result, batch.Failure),
		equal("failure", *failed.ExecutionInfo.FailureInfo.Code, "FailureExitCode"),
		w.wakeSleeper(ctx),
	)
}

// wakeSleeper ends a task that would run for long, lets it run again, and deletes it.
func (w *walk) wakeSleeper(ctx context.Context) error {
	if err := w.taskIs(ctx, "sleeper", batch.TaskStateRunning); err != nil {
		return err
	}
	update := batch.TaskUpdateParameter{Constraints: &batch.TaskConstraints{MaxTaskRetryCount: new(int32(2))}}
	if _, err := w.tasks.Update(ctx, w.job, "sleeper", update, nil, nil, nil, nil, "", "", nil, nil); err != nil {
		return err
	}
	if _, err := w.tasks.Terminate(ctx, w.job, "sleeper", nil, nil, nil, nil, "", "", nil, nil); err != nil {
		return err
	}
	ended, err := w.getTask(ctx, "sleeper")
	if err != nil {
		return err
	}
	_, twice := w.tasks.Terminate(ctx, w.job, "sleeper", nil, nil, nil, nil, "", "", nil, nil)
	if _, err := w.tasks.Reactivate(ctx, w.job, "sleeper", nil, nil, nil, nil, "", "", nil, nil); err != nil {
		return err
	}
	if err := w.taskIs(ctx, "sleeper", batch.TaskStateRunning); err != nil {
		return err
	}
	if _, err := w.tasks.Delete(ctx, w.job, "sleeper", nil, nil, nil, nil, "", "", nil, nil); err != nil {
		return err
	}
	_, gone := w.getTask(ctx, "sleeper")
	return errors.Join(
		equal("retries", *ended.Constraints.MaxTaskRetryCount, 2),
		equal("state", ended.State, batch.TaskStateCompleted),
		equal("failure", *ended.ExecutionInfo.FailureInfo.Code, "TaskEnded"),
		fails(twice, "TaskCompleted", http.StatusConflict),
		fails(gone, "TaskNotFound", http.StatusNotFound),
	)
}

func (w *walk) taskIs(ctx context.Context, id string, state batch.TaskState) error {
	return waitFor(fmt.Sprintf("task %s that is %s", id, state), func() (bool, error) {
		task, err := w.getTask(ctx, id)
		return task.State == state, err
	})
}

func taskID(k int) string { return fmt.Sprintf("task-%03d", k) }
