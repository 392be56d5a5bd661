package control_test

import (
	"testing"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/store/storetest"
)

// A task under which one agent after the other dies does not go through all
// nodes there are.
func TestPoisonousTasksAreSetAside(t *testing.T) {
	t.Parallel()
	y := newYard(t, storetest.SQLite(t))
	y.prepare(0, 2)
	retries := -1
	y.addTasks("job", "t", 3, func(s *batch.TaskSpecification) { s.Constraints = &batch.TaskConstraints{MaxTaskRetryCount: &retries} })
	nodes := []*script{y.handNode(), y.handNode(), y.handNode()}
	die := func(node *script, task batch.TaskID, how batch.Death) batch.Task {
		t.Helper()
		if n := y.assign(node, task); n != 1 {
			t.Fatalf("%s is not bound", task)
		}
		node.sync()
		node.start(task)
		node.sync()
		node.of(task).Phase, node.of(task).Died = batch.PhaseReleased, how
		node.sync()
		return y.task("job", task)
	}

	for i, node := range nodes {
		poison := die(node, "t-000", batch.DeathCrash)
		if beside := die(node, "t-001", ""); beside.State != batch.TaskActive || beside.ExecutionInfo.RequeueCount != i+1 {
			t.Errorf("a task that was only given back is %s, requeued %d times", beside.State, beside.ExecutionInfo.RequeueCount)
		}
		if i < 2 {
			if poison.State != batch.TaskActive || poison.ExecutionInfo.RequeueCount != i+1 {
				t.Fatalf("after %d nodes it is %s", i+1, poison.State)
			}
			continue
		}
		f := poison.ExecutionInfo.FailureInfo
		if poison.State != batch.TaskCompleted || f == nil || f.Code != batch.FailureNodeLost || f.Category != batch.ServerError {
			t.Fatalf("after three nodes it is %s, %+v", poison.State, f)
		}
	}
	if job := y.job("job"); job.Counts.Failed != 1 || job.Counts.Active != 2 {
		t.Errorf("counts are %+v", job.Counts)
	}

	_, err := y.ReactivateTask(ctx(t), acct, "job", "t-000", batch.Conditions{})
	y.check(err)
	if again := die(nodes[0], "t-000", batch.DeathCrash); again.State != batch.TaskActive {
		t.Errorf("reactivated it is %s after one death more", again.State)
	}

	// One node may be to blame itself, unless its agent says that it crashed.
	for range 6 {
		if lost := die(nodes[1], "t-002", batch.DeathLost); lost.State != batch.TaskActive {
			t.Fatalf("lost on one node it is %s", lost.State)
		}
	}
	for i := range 5 {
		crashed := die(nodes[1], "t-002", batch.DeathCrash)
		if want := i == 4; (crashed.State == batch.TaskCompleted) != want {
			t.Fatalf("after %d crashes on one node it is %s", i+1, crashed.State)
		}
	}
}
