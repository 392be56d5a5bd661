package storetest_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/store"
)

// noon is when everything in these tests happens.
var noon = time.Date(2026, 11, 1, 12, 0, 0, 123456000, time.UTC)

func must[T any](t *testing.T, v T, err error) T {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// view runs fn in a View and returns what it found.
func view[T any](t *testing.T, db *store.DB, fn func(tx *store.Tx) (T, error)) T {
	t.Helper()
	var v T
	err := db.View(t.Context(), func(tx *store.Tx) (err error) {
		v, err = fn(tx)
		return err
	})
	return must(t, v, err)
}

// changed runs fn in an Update and returns what it found.
func changed[T any](t *testing.T, db *store.DB, fn func(tx *store.Tx) (T, error)) T {
	t.Helper()
	var v T
	err := db.Update(t.Context(), func(tx *store.Tx) (err error) {
		v, err = fn(tx)
		return err
	})
	return must(t, v, err)
}

func diff(t *testing.T, want, got any) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
}

func ptr[T any](v T) *T { return &v }

func newPool(t testing.TB, account batch.AccountName, id batch.PoolID) batch.Pool {
	t.Helper()
	s := batch.PoolSpecification{
		ID: id, VMSize: "Standard_D2s_v3", TaskSlotsPerNode: 4, TargetDedicatedNodes: 3, DisplayName: "shown",
		VirtualMachineConfiguration: &batch.VirtualMachineConfiguration{
			ImageReference: batch.ImageReference{Publisher: "debian", Offer: "debian-12", SKU: "12"},
			NodeAgentSKUID: "batch.node.debian 12", OSDisk: batch.Opaque(`{}`),
		},
		StartTask: &batch.StartTask{CommandLine: "true"},
		Metadata:  []batch.MetadataItem{{Name: "a", Value: "b"}},
	}
	if err := s.Normalize(); err != nil {
		t.Fatal(err)
	}
	return batch.NewPool(account, s, noon)
}

func newJob(t testing.TB, account batch.AccountName, id batch.JobID, pool batch.PoolID) batch.Job {
	t.Helper()
	s := batch.JobSpecification{
		ID: id, PoolInfo: batch.PoolInfo{PoolID: pool}, DisplayName: "shown",
		CommonEnvironmentSettings: []batch.EnvironmentSetting{{Name: "A", Value: "1"}},
	}
	if err := s.Normalize(); err != nil {
		t.Fatal(err)
	}
	return batch.NewJob(account, s, noon)
}

func newTask(t testing.TB, job *batch.Job, id batch.TaskID, sequence int64) batch.Task {
	t.Helper()
	s := batch.TaskSpecification{ID: id, CommandLine: "/bin/true", Constraints: &batch.TaskConstraints{MaxTaskRetryCount: ptr(2)}}
	if err := s.Normalize(&job.JobSpecification); err != nil {
		t.Fatal(err)
	}
	return batch.NewTask(job, s, sequence, noon)
}

func newNode(pool *batch.Pool, n int) batch.Node {
	return batch.Node{
		ID: batch.NodeID(fmt.Sprintf("tvmps_%03d_d", n)), Account: pool.Account, Pool: pool.ID,
		State: batch.NodeIdle, SchedulingState: batch.SchedulingEnabled, StateTransitionTime: noon, AllocationTime: noon,
		VMSize: pool.VMSize, Dedicated: n%2 == 0, Slots: pool.TaskSlotsPerNode, StartTask: pool.StartTask,
	}
}

// yard is a pool with two nodes and a job with tasks.
type yard struct {
	pool  batch.Pool
	nodes []batch.Node
	job   batch.Job
	tasks []batch.Task
}

func newYard(t *testing.T, db *store.DB, tasks int) yard {
	t.Helper()
	y := yard{pool: newPool(t, "acct", "Pool")}
	y.nodes = []batch.Node{newNode(&y.pool, 1), newNode(&y.pool, 2)}
	y.job = newJob(t, "acct", "Job", "Pool")
	for i := range tasks {
		y.tasks = append(y.tasks, newTask(t, &y.job, batch.TaskID(fmt.Sprintf("Task-%04d", i)), int64(1000+i)))
	}
	update(t, db, func(tx *store.Tx) error {
		if err := tx.InsertPool(&y.pool); err != nil {
			return err
		}
		if err := tx.InsertNodes(y.nodes); err != nil {
			return err
		}
		if err := tx.InsertJob(&y.job); err != nil {
			return err
		}
		if len(y.tasks) == 0 {
			return nil
		}
		_, err := tx.InsertTasks(y.tasks)
		return err
	})
	return y
}
