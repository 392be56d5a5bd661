// Go runs a whole job with services/batch/2020-09-01.12.0 of azure-sdk-for-go v68, the newest Go
// client of the Batch service, and azblob.
//
// It finds the highest of some measured values, in 200 small tasks on two nodes, and on the way
// uses what the service offers around pools, jobs, tasks and files. The environment names the
// services; WALK_PREFIX keeps its names apart from those of other programs.
package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/sas"
	"github.com/Azure/azure-sdk-for-go/services/batch/2020-09-01.12.0/batch"
	"github.com/Azure/go-autorest/autorest"
)

const taskCount = 200

func main() {
	w, err := newWalk()
	if err == nil {
		err = w.run(context.Background())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// walk holds a client for each part of the service.
type walk struct {
	pools    batch.PoolClient
	nodes    batch.ComputeNodeClient
	jobs     batch.JobClient
	tasks    batch.TaskClient
	files    batch.FileClient
	accounts batch.AccountClient
	storage  *azblob.Client

	pool, job, inputs, outputs string
}

func newWalk() (*walk, error) {
	endpoint, prefix := os.Getenv("AZURE_BATCH_ENDPOINT"), os.Getenv("WALK_PREFIX")
	key, err := base64.StdEncoding.DecodeString(os.Getenv("AZURE_BATCH_ACCESS_KEY"))
	if err != nil {
		return nil, fmt.Errorf("read the account's key: %w", err)
	}
	storage, err := azblob.NewClientFromConnectionString(os.Getenv("AZURE_STORAGE_CONNECTION_STRING"), nil)
	if err != nil {
		return nil, fmt.Errorf("open storage: %w", err)
	}
	w := &walk{
		pools:    batch.NewPoolClient(endpoint),
		nodes:    batch.NewComputeNodeClient(endpoint),
		jobs:     batch.NewJobClient(endpoint),
		tasks:    batch.NewTaskClient(endpoint),
		files:    batch.NewFileClient(endpoint),
		accounts: batch.NewAccountClient(endpoint),
		storage:  storage,
		pool:     prefix + "-pool", job: prefix + "-job", inputs: prefix + "-in", outputs: prefix + "-out",
	}
	for _, c := range []*autorest.Client{
		&w.pools.Client, &w.nodes.Client, &w.jobs.Client, &w.tasks.Client, &w.files.Client, &w.accounts.Client,
	} {
		c.Authorizer = sharedKey{os.Getenv("AZURE_BATCH_ACCOUNT"), key}
	}
	return w, nil
}

func (w *walk) run(ctx context.Context) error {
	for _, step := range []struct {
		what string
		do   func(context.Context) error
	}{
		{"upload inputs", w.uploadInputs},
		{"create a pool", w.createPool},
		{"wait for its nodes", w.waitForNodes},
		{"read a node's files", w.readNodeFiles},
		{"change the pool", w.changePool},
		{"create a job", w.createJob},
		{"add tasks", w.addTasks},
		{"wait for the tasks", w.waitForTasks},
		{"read the tasks' files", w.readTaskFiles},
		{"follow tasks that do not succeed", w.followTroubledTasks},
		{"remove a node", w.removeNode},
		{"change the job", w.changeJob},
		{"resize the pool", w.resizePool},
		{"end the job", w.endJob},
		{"download outputs", w.downloadOutputs},
		{"delete everything", w.deleteEverything},
	} {
		begin := time.Now()
		if err := step.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.what, err)
		}
		fmt.Printf("%s: %.1f s\n", step.what, time.Since(begin).Seconds())
	}
	return nil
}

func (w *walk) uploadInputs(ctx context.Context) error {
	for _, name := range []string{w.inputs, w.outputs} {
		if _, err := w.storage.CreateContainer(ctx, name, nil); err != nil {
			return err
		}
	}
	for n := range 4 {
		var values bytes.Buffer
		for k := range 10 {
			fmt.Fprintln(&values, 100*(n+1)+7*k%10) // the highest is 100 * (n + 1) + 9
		}
		if _, err := w.storage.UploadBuffer(ctx, w.inputs, inputName(n), values.Bytes(), nil); err != nil {
			return err
		}
	}
	return nil
}

// blobURL is a URL with which anybody may read one blob for an hour.
func (w *walk) blobURL(name string) (string, error) {
	blob := w.storage.ServiceClient().NewContainerClient(w.inputs).NewBlobClient(name)
	return blob.GetSASURL(sas.BlobPermissions{Read: true}, time.Now().Add(time.Hour), nil)
}

// containerURL is a URL with these permissions for a whole container, for an hour.
func (w *walk) containerURL(name string, permissions sas.ContainerPermissions) (string, error) {
	return w.storage.ServiceClient().NewContainerClient(name).GetSASURL(permissions, time.Now().Add(time.Hour), nil)
}

func (w *walk) createPool(ctx context.Context) error {
	image, err := w.image(ctx)
	if err != nil {
		return err
	}
	pool := batch.PoolAddParameter{
		ID:          &w.pool,
		DisplayName: new("measures"),
		VMSize:      new("STANDARD_D2_V3"),
		VirtualMachineConfiguration: &batch.VirtualMachineConfiguration{
			ImageReference: image.ImageReference,
			NodeAgentSKUID: image.NodeAgentSKUID,
		},
		TargetDedicatedNodes: new(int32(2)),
		TaskSlotsPerNode:     new(int32(4)),
		ResizeTimeout:        new("PT10M"),
		StartTask: &batch.StartTask{
			CommandLine:         new("/bin/sh -c 'echo ready: $AZ_BATCH_NODE_ID; echo $TOOL > $AZ_BATCH_NODE_SHARED_DIR/tool.txt'"),
			EnvironmentSettings: &[]batch.EnvironmentSetting{{Name: new("TOOL"), Value: new("sort")}},
			WaitForSuccess:      new(true),
		},
		Metadata: &[]batch.MetadataItem{{Name: new("client"), Value: new("go")}},
	}
	if err := w.poolExists(ctx, false); err != nil {
		return err
	}
	if _, err := w.pools.Add(ctx, pool, nil, nil, nil, nil); err != nil {
		return err
	}
	if err := w.poolExists(ctx, true); err != nil {
		return err
	}
	_, err = w.pools.Add(ctx, pool, nil, nil, nil, nil)
	if err := fails(err, "PoolExists", http.StatusConflict); err != nil {
		return err
	}
	_, err = w.getPool(ctx, w.pool+"-other")
	return fails(err, "PoolNotFound", http.StatusNotFound)
}

func (w *walk) image(ctx context.Context) (batch.ImageInformation, error) {
	images, err := w.accounts.ListSupportedImagesComplete(ctx, "", nil, nil, nil, nil, nil)
	for ; err == nil && images.NotDone(); err = images.NextWithContext(ctx) {
		if image := images.Value(); *image.NodeAgentSKUID == "batch.node.ubuntu 22.04" {
			return image, nil
		}
	}
	return batch.ImageInformation{}, errors.Join(err, errors.New("no image of Ubuntu 22.04"))
}

func (w *walk) poolExists(ctx context.Context, want bool) error {
	answer, err := w.pools.Exists(ctx, w.pool, nil, nil, nil, nil, "", "", nil, nil)
	if err != nil {
		return err
	}
	return equal("pool exists", !answer.HasHTTPStatus(http.StatusNotFound), want)
}

func (w *walk) getPool(ctx context.Context, id string) (batch.CloudPool, error) {
	return w.pools.Get(ctx, id, "", "", nil, nil, nil, nil, "", "", nil, nil)
}

func (w *walk) waitForNodes(ctx context.Context) error {
	if err := waitFor("two idle nodes", w.idle(ctx, 2)); err != nil {
		return err
	}
	pool, err := w.getPool(ctx, w.pool)
	if err != nil {
		return err
	}
	nodes, err := w.listNodes(ctx)
	if err != nil {
		return err
	}
	node, err := w.nodes.Get(ctx, w.pool, *nodes[0].ID, "", nil, nil, nil, nil)
	if err != nil {
		return err
	}
	return errors.Join(
		equal("allocation state", pool.AllocationState, batch.Steady),
		equal("nodes", *pool.CurrentDedicatedNodes, *pool.TargetDedicatedNodes),
		equal("slots", *pool.TaskSlotsPerNode, 4),
		equal("resize timeout", *pool.ResizeTimeout, "PT10M"),
		equal("node", *node.ID, *nodes[0].ID),
		equal("node state", node.State, batch.Idle),
		equal("exit code of the start task", *node.StartTaskInfo.ExitCode, 0),
	)
}

// idle tells whether so many nodes of the pool are idle.
func (w *walk) idle(ctx context.Context, want int32) func() (bool, error) {
	return func() (bool, error) {
		counts, err := w.accounts.ListPoolNodeCounts(ctx, fmt.Sprintf("poolId eq '%s'", w.pool), nil, nil, nil, nil, nil)
		if err != nil || len(counts.Values()) == 0 {
			return false, err
		}
		return *counts.Values()[0].Dedicated.Idle == want, nil
	}
}

func (w *walk) listNodes(ctx context.Context) ([]batch.ComputeNode, error) {
	page, err := w.nodes.List(ctx, w.pool, "", "", nil, nil, nil, nil, nil)
	return page.Values(), err
}

func (w *walk) readNodeFiles(ctx context.Context) error {
	nodes, err := w.listNodes(ctx)
	if err != nil {
		return err
	}
	node := *nodes[0].ID
	page, err := w.files.ListFromComputeNode(ctx, w.pool, node, "", new(true), nil, nil, nil, nil, nil)
	if err != nil {
		return err
	}
	names := fileNames(page.Values())
	text, err := w.readNodeFile(ctx, node, "startup/stdout.txt")
	if err != nil {
		return err
	}
	head, err := w.files.GetPropertiesFromComputeNode(ctx, w.pool, node, "shared/tool.txt", nil, nil, nil, nil, nil, nil)
	if err != nil {
		return err
	}
	if _, err := w.files.DeleteFromComputeNode(ctx, w.pool, node, "shared/tool.txt", nil, nil, nil, nil, nil); err != nil {
		return err
	}
	_, err = w.readNodeFile(ctx, node, "shared/tool.txt")
	return errors.Join(
		equal("start task's output listed", slices.Contains(names, "startup/stdout.txt"), true),
		equal("shared file listed", slices.Contains(names, "shared/tool.txt"), true),
		equal("output of the start task", text, "ready: "+node+"\n"),
		equal("length", head.ContentLength, 5),
		fails(err, "FileNotFound", http.StatusNotFound),
	)
}

func (w *walk) readNodeFile(ctx context.Context, node, path string) (string, error) {
	file, err := w.files.GetFromComputeNode(ctx, w.pool, node, path, nil, nil, nil, nil, "", nil, nil)
	return content(file, err)
}

func (w *walk) changePool(ctx context.Context) error {
	before, err := w.getPool(ctx, w.pool)
	if err != nil {
		return err
	}
	if err := w.patchPool(ctx, "patched", ""); err != nil {
		return err
	}
	after, err := w.getPool(ctx, w.pool)
	if err != nil {
		return err
	}
	stale := w.patchPool(ctx, "stale", *before.ETag)
	if err := w.patchPool(ctx, "fresh", *after.ETag); err != nil {
		return err
	}
	_, err = w.pools.UpdateProperties(ctx, w.pool, batch.PoolUpdatePropertiesParameter{
		StartTask:                    before.StartTask,
		CertificateReferences:        &[]batch.CertificateReference{},
		ApplicationPackageReferences: &[]batch.ApplicationPackageReference{},
		Metadata:                     &[]batch.MetadataItem{{Name: new("stage"), Value: new("replaced")}},
	}, nil, nil, nil, nil)
	if err != nil {
		return err
	}
	filter := fmt.Sprintf("startswith(id,'%s')", w.pool)
	pools, err := w.pools.List(ctx, filter, "id,state,metadata", "", nil, nil, nil, nil, nil)
	if err != nil {
		return err
	}
	return errors.Join(
		equal("metadata", *(*after.Metadata)[0].Value, "patched"),
		equal("start task", *after.StartTask.CommandLine, *before.StartTask.CommandLine),
		fails(stale, "ConditionNotMet", http.StatusPreconditionFailed),
		equal("pools", len(pools.Values()), 1),
		equal("metadata in the list", *(*pools.Values()[0].Metadata)[0].Value, "replaced"),
	)
}

func (w *walk) patchPool(ctx context.Context, stage, ifMatch string) error {
	patch := batch.PoolPatchParameter{Metadata: &[]batch.MetadataItem{{Name: new("stage"), Value: &stage}}}
	_, err := w.pools.Patch(ctx, w.pool, patch, nil, nil, nil, nil, ifMatch, "", nil, nil)
	return err
}

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
	page, err := w.files.ListFromTask(ctx, w.job, "task-007", "", new(true), nil, nil, nil, nil, nil)
	if err != nil {
		return err
	}
	names := fileNames(page.Values())
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

func (w *walk) removeNode(ctx context.Context) error {
	nodes, err := w.listNodes(ctx)
	if err != nil {
		return err
	}
	removal := batch.NodeRemoveParameter{NodeList: &[]string{*nodes[0].ID}, NodeDeallocationOption: batch.Requeue}
	if _, err := w.pools.RemoveNodes(ctx, w.pool, removal, nil, nil, nil, nil, "", "", nil, nil); err != nil {
		return err
	}
	if err := w.steadyWith(ctx, 1); err != nil {
		return err
	}
	_, gone := w.nodes.Get(ctx, w.pool, *nodes[0].ID, "", nil, nil, nil, nil)
	return fails(gone, "NodeNotFound", http.StatusNotFound)
}

func (w *walk) steadyWith(ctx context.Context, nodes int32) error {
	return waitFor(fmt.Sprintf("pool with %d idle nodes", nodes), func() (bool, error) {
		pool, err := w.getPool(ctx, w.pool)
		if err != nil || pool.AllocationState != batch.Steady || *pool.CurrentDedicatedNodes != nodes {
			return false, err
		}
		return w.idle(ctx, nodes)()
	})
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

func (w *walk) resizePool(ctx context.Context) error {
	for _, nodes := range []int32{2, 1} {
		resize := batch.PoolResizeParameter{TargetDedicatedNodes: &nodes, TargetLowPriorityNodes: new(int32(0))}
		if _, err := w.pools.Resize(ctx, w.pool, resize, nil, nil, nil, nil, "", "", nil, nil); err != nil {
			return err
		}
		if err := w.steadyWith(ctx, nodes); err != nil {
			return err
		}
	}
	return nil
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

func (w *walk) downloadOutputs(ctx context.Context) error {
	var names, want []string
	pages := w.storage.NewListBlobsFlatPager(w.outputs, nil)
	for pages.More() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return err
		}
		for _, blob := range page.Segment.BlobItems {
			names = append(names, *blob.Name)
		}
	}
	for k := range taskCount {
		want = append(want, taskID(k)+"/highest.txt")
		if k%50 == 0 {
			want = append(want, taskID(k)+"/logs/stderr.txt", taskID(k)+"/logs/stdout.txt")
		}
	}
	if err := equal("blobs", names, want); err != nil {
		return err
	}
	for k := 0; k < taskCount; k += 9 {
		text, err := w.download(ctx, taskID(k)+"/highest.txt")
		if err != nil {
			return err
		}
		if err := equal("highest", text, fmt.Sprintln(100*(k%4+1)+9)); err != nil {
			return err
		}
	}
	text, err := w.download(ctx, "task-050/logs/stdout.txt")
	if err != nil {
		return err
	}
	return equal("log", text, "hello from task-050, worker 50\n")
}

func (w *walk) download(ctx context.Context, name string) (string, error) {
	answer, err := w.storage.DownloadStream(ctx, w.outputs, name, nil)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	return string(text), err
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

func inputName(n int) string { return fmt.Sprintf("measure-%d.txt", n) }

func taskID(k int) string { return fmt.Sprintf("task-%03d", k) }

func fileNames(files []batch.NodeFile) []string {
	var names []string
	for _, f := range files {
		names = append(names, *f.Name)
	}
	return names
}

func content(file batch.ReadCloser, err error) (string, error) {
	if err != nil {
		return "", err
	}
	defer (*file.Value).Close()
	text, err := io.ReadAll(*file.Value)
	return string(text), err
}

// waitFor asks again and again until done, for two minutes at most.
func waitFor(what string, done func() (bool, error)) error {
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(300 * time.Millisecond) {
		if ok, err := done(); ok || err != nil {
			return err
		}
	}
	return fmt.Errorf("no %s in two minutes", what)
}

// errorCode finds the service's word in the client's error. This client cannot decode the message
// of an error, an object with a language, and quotes the body of the answer instead.
var errorCode = regexp.MustCompile(`\\"code\\":\\"(\w+)\\"`)

// fails expects the service to have refused a call with this error.
func fails(err error, code string, status int) error {
	var detailed autorest.DetailedError
	if !errors.As(err, &detailed) {
		return fmt.Errorf("got error %v, want %s", err, code)
	}
	match := errorCode.FindStringSubmatch(detailed.Error())
	if match == nil {
		return fmt.Errorf("no code in error %w", err)
	}
	return errors.Join(equal("status", detailed.StatusCode, status), equal("error", match[1], code))
}

// gone tells a 404 from other errors.
func gone(err error) (bool, error) {
	var detailed autorest.DetailedError
	if errors.As(err, &detailed) && detailed.StatusCode == http.StatusNotFound {
		return true, nil
	}
	return false, err
}

func equal(what string, got, want any) error {
	g, w := reflect.ValueOf(got), reflect.ValueOf(want)
	if g.CanInt() && w.CanInt() && g.Int() == w.Int() || reflect.DeepEqual(got, want) {
		return nil
	}
	return fmt.Errorf("%s: got %v, want %v", what, got, want)
}
