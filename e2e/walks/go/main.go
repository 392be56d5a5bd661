// Go runs a whole job with services/batch/2020-09-01.12.0 of azure-sdk-for-go v68, the newest Go
// client of the Batch service, and azblob.
//
// It finds the highest of some measured values, in 200 small tasks on two nodes, and on the way
// uses what the service offers around pools, jobs, tasks and files. The environment names the
// services; WALK_PREFIX keeps its names apart from those of other programs.
package main

import (
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob"
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
