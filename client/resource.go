package client

import (
	"context"
	"io"
	"net/http"
	"net/url"

	"github.com/batchyard/batchyard/batch"
)

// Pool is a pool as the service answers it, in part.
type Pool struct {
	ID                      batch.PoolID          `json:"id"`
	State                   batch.PoolState       `json:"state"`
	AllocationState         batch.AllocationState `json:"allocationState"`
	CurrentDedicatedNodes   int                   `json:"currentDedicatedNodes"`
	CurrentLowPriorityNodes int                   `json:"currentLowPriorityNodes"`
	ResizeErrors            []batch.ResizeError   `json:"resizeErrors"`
}

// Node is a compute node as the service answers it, in part.
type Node struct {
	ID                  batch.NodeID         `json:"id"`
	State               batch.NodeState      `json:"state"`
	RunningTasks        int                  `json:"runningTasksCount"`
	TotalTasksRun       int                  `json:"totalTasksRun"`
	TotalTasksSucceeded int                  `json:"totalTasksSucceeded"`
	StartTaskInfo       *batch.StartTaskInfo `json:"startTaskInfo"`
	Errors              []batch.NodeError    `json:"errors"`
}

// Job is a job as the service answers it, in part.
type Job struct {
	ID    batch.JobID    `json:"id"`
	State batch.JobState `json:"state"`
}

// Task is a task as the service answers it, in part.
type Task struct {
	ID            batch.TaskID        `json:"id"`
	State         batch.TaskState     `json:"state"`
	CreationTime  batch.Time          `json:"creationTime"`
	ExecutionInfo batch.ExecutionInfo `json:"executionInfo"`
	NodeInfo      struct {
		Node batch.NodeID `json:"nodeId"`
	} `json:"nodeInfo"`
}

// Counts are the tasks of a job by state.
type Counts struct {
	Active    int64 `json:"active"`
	Running   int64 `json:"running"`
	Completed int64 `json:"completed"`
	Succeeded int64 `json:"succeeded"`
	Failed    int64 `json:"failed"`
}

// AddStatus is what became of one task of a collection.
type AddStatus struct {
	Status string       `json:"status"`
	TaskID batch.TaskID `json:"taskId"`
	Error  *struct {
		Code batch.Code `json:"code"`
	} `json:"error"`
}

func pathOf(parts ...string) string {
	path := ""
	for _, part := range parts {
		path += "/" + url.PathEscape(part)
	}
	return path
}

func poolPath(id batch.PoolID) string { return pathOf("pools", string(id)) }
func jobPath(id batch.JobID) string   { return pathOf("jobs", string(id)) }

func taskPath(job batch.JobID, task batch.TaskID) string {
	return pathOf("jobs", string(job), "tasks", string(task))
}

// AddPool adds a pool. The body is sent as given, so that a server sees what
// any client might send.
func (c *Client) AddPool(ctx context.Context, spec map[string]any) error {
	_, err := c.Call(ctx, http.MethodPost, "/pools", nil, spec, nil)
	return err
}

// Pool gets a pool.
func (c *Client) Pool(ctx context.Context, id batch.PoolID) (Pool, error) {
	var p Pool
	_, err := c.Call(ctx, http.MethodGet, poolPath(id), nil, nil, &p)
	return p, err
}

// DeletePool begins to delete a pool.
func (c *Client) DeletePool(ctx context.Context, id batch.PoolID) error {
	_, err := c.Call(ctx, http.MethodDelete, poolPath(id), nil, nil, nil)
	return err
}

// Nodes lists the nodes of a pool.
func (c *Client) Nodes(ctx context.Context, id batch.PoolID) ([]Node, error) {
	return all[Node](ctx, c, poolPath(id)+"/nodes", nil)
}

// AddJob adds a job to a pool.
func (c *Client) AddJob(ctx context.Context, id batch.JobID, pool batch.PoolID) error {
	body := map[string]any{"id": id, "poolInfo": map[string]any{"poolId": pool}}
	_, err := c.Call(ctx, http.MethodPost, "/jobs", nil, body, nil)
	return err
}

// Job gets a job.
func (c *Client) Job(ctx context.Context, id batch.JobID) (Job, error) {
	var j Job
	_, err := c.Call(ctx, http.MethodGet, jobPath(id), nil, nil, &j)
	return j, err
}

// DeleteJob begins to delete a job and its tasks.
func (c *Client) DeleteJob(ctx context.Context, id batch.JobID) error {
	_, err := c.Call(ctx, http.MethodDelete, jobPath(id), nil, nil, nil)
	return err
}

// TaskCounts gets the counts of a job.
func (c *Client) TaskCounts(ctx context.Context, job batch.JobID) (Counts, error) {
	var answer struct {
		TaskCounts Counts `json:"taskCounts"`
	}
	_, err := c.Call(ctx, http.MethodGet, jobPath(job)+"/taskcounts", nil, nil, &answer)
	return answer.TaskCounts, err
}

// AddTask adds a task.
func (c *Client) AddTask(ctx context.Context, job batch.JobID, task map[string]any) error {
	_, err := c.Call(ctx, http.MethodPost, jobPath(job)+"/tasks", nil, task, nil)
	return err
}

// AddTasks adds up to a hundred tasks in one call.
func (c *Client) AddTasks(ctx context.Context, job batch.JobID, tasks []map[string]any) ([]AddStatus, error) {
	var answer page[AddStatus]
	_, err := c.Call(ctx, http.MethodPost, jobPath(job)+"/addtaskcollection", nil, map[string]any{"value": tasks}, &answer)
	return answer.Value, err
}

// Task gets a task.
func (c *Client) Task(ctx context.Context, job batch.JobID, task batch.TaskID) (Task, error) {
	var t Task
	_, err := c.Call(ctx, http.MethodGet, taskPath(job, task), nil, nil, &t)
	return t, err
}

// Tasks lists the tasks of a job; filter may be empty.
func (c *Client) Tasks(ctx context.Context, job batch.JobID, filter string) ([]Task, error) {
	query := url.Values{}
	if filter != "" {
		query.Set("$filter", filter)
	}
	return all[Task](ctx, c, jobPath(job)+"/tasks", query)
}

// TaskFile reads a file of a task.
func (c *Client) TaskFile(ctx context.Context, job batch.JobID, task batch.TaskID, name string) ([]byte, error) {
	body, err := c.Stream(ctx, taskPath(job, task)+"/files/"+url.PathEscape(name), 0)
	if err != nil {
		return nil, err
	}
	defer drain(body)
	return io.ReadAll(body)
}
