package control_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/control"
	"github.com/batchyard/batchyard/store/storetest"
)

func TestAddingJobs(t *testing.T) {
	t.Parallel()
	y := newYard(t, storetest.SQLite(t))
	y.prepare(0, 1)
	add := func(change func(*batch.JobSpecification)) error {
		spec := jobSpec("more")
		change(&spec)
		_, err := y.AddJob(ctx(t), acct, spec)
		return err
	}
	y.refused(add(func(s *batch.JobSpecification) { s.ID = "JOB" }), batch.CodeJobExists)
	y.check(add(func(s *batch.JobSpecification) { s.OnAllTasksComplete = batch.AllTasksTerminateJob }))
	if job := y.job("more"); job.State != batch.JobCompleted {
		t.Errorf("a job that ends without tasks is %s", job.State)
	}
	_, err := y.AddPool(ctx(t), acct, poolSpec("going", 1, 1))
	y.check(err)
	y.check(y.DeletePool(ctx(t), acct, "going", batch.Conditions{}))
	y.refused(add(func(s *batch.JobSpecification) { s.ID, s.PoolInfo.PoolID = "other", "going" }), batch.CodePoolBeingDeleted)
	y.refused(add(func(s *batch.JobSpecification) { s.ID, s.PoolInfo.PoolID = "other", "no/pool" }), batch.CodeInvalidPropertyValue)
}

// TestJobWaitsForItsPool adds a job to a pool that is not there. Its tasks wait,
// and the job says for what; they run once there is such a pool.
func TestJobWaitsForItsPool(t *testing.T) {
	t.Parallel()
	url := storetest.SQLite(t)
	synctest.Test(t, func(t *testing.T) {
		y := newYard(t, url)
		y.loops()
		_, err := y.AddJob(ctx(t), acct, jobSpec("job"))
		y.check(err)
		if got := y.job("job").SchedulingError; got != nil {
			t.Errorf("a job without tasks waits: %+v", got)
		}
		y.addTasks("job", "t", 3, need(2))
		y.restart()
		waits := func() *batch.FailureInfo {
			page, err := y.Jobs(ctx(t), acct, control.Query{})
			y.check(err)
			if diff := cmp.Diff(y.job("job").SchedulingError, page.Items[0].SchedulingError); diff != "" {
				t.Errorf("alone and in the list a job says different things:\n%s", diff)
			}
			return page.Items[0].SchedulingError
		}
		if got := waits(); got == nil || got.Category != batch.UserError || got.Code != "PoolNotFound" {
			t.Errorf("the job says %+v", got)
		}
		if task := y.task("job", "t-000"); task.State != batch.TaskActive || task.ExecutionInfo.FailureInfo != nil {
			t.Errorf("a task that waits is %s, %+v", task.State, task.ExecutionInfo)
		}
		_, err = y.AddPool(ctx(t), acct, poolSpec("Pool", 1, 2))
		y.check(err)
		y.wanted(1)
		y.robots(2, seconds(1))
		time.Sleep(5 * time.Second)
		if job := y.job("job"); job.Counts.Succeeded != 3 || waits() != nil {
			t.Errorf("once there is a pool the job has %+v and says %+v", job.Counts, job.SchedulingError)
		}
	})
}

func TestConditions(t *testing.T) {
	t.Parallel()
	y := newYard(t, storetest.SQLite(t))
	y.prepare(0, 1)
	before := y.job("job")
	priority := 7
	patch := batch.JobPatch{Priority: &priority}
	_, err := y.PatchJob(ctx(t), acct, "job", patch, batch.Conditions{IfMatch: "0x8DFF"})
	y.refused(err, batch.CodeConditionNotMet)
	stamp, err := y.PatchJob(ctx(t), acct, "job", patch, batch.Conditions{IfMatch: before.Stamp.ETag()})
	y.check(err)
	if after := y.job("job"); after.Priority != 7 || after.Stamp != stamp || stamp <= before.Stamp {
		t.Errorf("priority %d, stamp %d after %d, answered %d", after.Priority, after.Stamp, before.Stamp, stamp)
	}
}

// running brings up a node with t-000 and t-001 running and t-002 held.
func running(t *testing.T) (*yard, *script) {
	t.Helper()
	y := newYard(t, storetest.SQLite(t))
	y.prepare(0, 2)
	y.addTasks("job", "t", 4)
	node := y.handNode()
	y.assign(node, "t-000", "t-001", "t-002")
	node.sync()
	node.start("t-000")
	node.start("t-001")
	node.sync()
	return y, node
}

func TestDisablingJobs(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		option        batch.DisableTasks
		asked         []batch.Release // of t-000 and t-002 at the node; "-" when it is not to hold it
		counts, after batch.TaskCounts
	}{
		{
			batch.DisableTasksRequeue, []batch.Release{batch.ReleaseAlways, batch.ReleaseAlways},
			batch.TaskCounts{Active: 2, Running: 2}, batch.TaskCounts{Active: 4},
		},
		{
			batch.DisableTasksTerminate, []batch.Release{"-", batch.ReleaseAlways},
			batch.TaskCounts{Active: 2, Failed: 2}, batch.TaskCounts{Active: 2, Failed: 2},
		},
		{
			batch.DisableTasksWait, []batch.Release{"", batch.ReleaseUnstarted},
			batch.TaskCounts{Active: 2, Running: 2}, batch.TaskCounts{Active: 2, Succeeded: 2},
		},
	} {
		t.Run(string(c.option), func(t *testing.T) {
			t.Parallel()
			y, node := running(t)
			_, err := y.DisableJob(ctx(t), acct, "job", c.option, batch.Conditions{})
			y.check(err)
			if job := y.job("job"); job.State != batch.JobDisabling {
				t.Errorf("job is %s", job.State)
			}
			if diff := cmp.Diff(c.counts, unslotted(y.job("job").Counts)); diff != "" {
				t.Errorf("at once: %s", diff)
			}
			node.sync()
			for i, id := range []batch.TaskID{"t-000", "t-002"} {
				got := batch.Release("-")
				if a := node.held[nameOf("job", id)]; a != nil {
					got = a.release
				}
				if got != c.asked[i] {
					t.Errorf("%s is asked back as %q, want %q", id, got, c.asked[i])
				}
			}
			for _, a := range node.held {
				if a.release == batch.ReleaseAlways || a.Phase == batch.PhaseHeld {
					a.Phase = batch.PhaseReleased
				} else {
					node.end(a.Task, 0)
				}
			}
			node.sync()
			if diff := cmp.Diff(c.after, unslotted(y.job("job").Counts)); diff != "" {
				t.Errorf("in the end: %s", diff)
			}
			if job := y.job("job"); job.State != batch.JobDisabled || job.Bound != 0 {
				t.Errorf("job is %s with %d bound", job.State, job.Bound)
			}
			if n := y.assign(node, "t-003"); n != 0 {
				t.Error("a task of a disabled job was bound")
			}
			_, err = y.EnableJob(ctx(t), acct, "job", batch.Conditions{})
			y.check(err)
			if n := y.assign(node, "t-003"); n != 1 {
				t.Error("a task of an enabled job was not bound")
			}
		})
	}
}

// unslotted leaves out the slots, which are the same numbers here.
func unslotted(c batch.TaskCounts) batch.TaskCounts {
	return batch.TaskCounts{Active: c.Active, Running: c.Running, Succeeded: c.Succeeded, Failed: c.Failed}
}

func TestEndingTasksAndJobs(t *testing.T) {
	t.Parallel()

	t.Run("a terminated task is completed before its node knows", func(t *testing.T) {
		t.Parallel()
		y, node := running(t)
		revision := node.orders.Revision
		_, err := y.TerminateTask(ctx(t), acct, "job", "t-000", batch.Conditions{})
		y.check(err)
		task := y.task("job", "t-000")
		if task.State != batch.TaskCompleted || task.ExecutionInfo.FailureInfo.Code != batch.FailureTaskEnded || task.ExecutionInfo.ExitCode != nil {
			t.Errorf("task is %s, %+v", task.State, task.ExecutionInfo)
		}
		node.end("t-000", 0) // its command was faster
		orders := node.sync()
		if orders.Revision <= revision || node.held[nameOf("job", "t-000")] != nil {
			t.Errorf("revision %d after %d, orders %+v", orders.Revision, revision, orders.Tasks)
		}
		if got := y.task("job", "t-000"); got.Stamp != task.Stamp {
			t.Errorf("the late result changed the task: %+v", got.ExecutionInfo)
		}
		_, err = y.TerminateTask(ctx(t), acct, "job", "t-000", batch.Conditions{})
		y.refused(err, batch.CodeTaskCompleted)
	})

	t.Run("a terminated job takes its tasks along", func(t *testing.T) {
		t.Parallel()
		y, node := running(t)
		_, err := y.TerminateJob(ctx(t), acct, "job", "enough", batch.Conditions{})
		y.check(err)
		job := y.job("job")
		if job.State != batch.JobCompleted || job.TerminateReason != "enough" || job.Counts.Failed != 4 || job.Bound != 0 {
			t.Errorf("job is %s for %q, %+v", job.State, job.TerminateReason, job.Counts)
		}
		if orders := node.sync(); len(orders.Tasks) != 0 {
			t.Errorf("its node holds %+v", orders.Tasks)
		}
		_, err = y.TerminateJob(ctx(t), acct, "job", "", batch.Conditions{})
		y.refused(err, batch.CodeJobCompleted)
	})

	t.Run("a deleted job leaves nothing on nodes", func(t *testing.T) {
		t.Parallel()
		y, node := running(t)
		y.check(y.DeleteJob(ctx(t), acct, "job", batch.Conditions{}))
		orders := node.sync()
		if len(orders.Tasks) != 0 || len(orders.Removals) != 1 || orders.Removals[0].Job != "job" || orders.Removals[0].Task != "" {
			t.Errorf("orders are %+v, removals %+v", orders.Tasks, orders.Removals)
		}
		_, err := y.Task(ctx(t), acct, "job", "t-000")
		y.refused(err, batch.CodeJobNotFound)
		n, err := y.Node(ctx(t), acct, "pool", node.id)
		y.check(err)
		if n.State != batch.NodeIdle || n.BoundTasks != 0 || n.RunningSlots != 0 {
			t.Errorf("node is %s, holds %d", n.State, n.BoundTasks)
		}
	})

	t.Run("a deleted job may be added again at once", func(t *testing.T) {
		t.Parallel()
		y, node := running(t)
		late := node.report()
		y.check(y.DeleteJob(ctx(t), acct, "job", batch.Conditions{}))
		_, err := y.AddJob(ctx(t), acct, jobSpec("Job"))
		y.check(err)
		y.addTasks("job", "t", 1)
		y.assign(node, "t-000")
		_, err = y.Sync(ctx(t), node.id, node.token, late)
		y.check(err)
		if task := y.task("job", "t-000"); task.State != batch.TaskActive {
			t.Errorf("task of the new job is %s", task.State)
		}
	})

	t.Run("the last task ends the job", func(t *testing.T) {
		t.Parallel()
		y, node := running(t)
		onAll := batch.AllTasksTerminateJob
		_, err := y.PatchJob(ctx(t), acct, "job", batch.JobPatch{OnAllTasksComplete: &onAll}, batch.Conditions{})
		y.check(err)
		y.check(y.DeleteTask(ctx(t), acct, "job", "t-003", batch.Conditions{}))
		for _, id := range []batch.TaskID{"t-000", "t-001", "t-002"} {
			if job := y.job("job"); job.State != batch.JobActive {
				t.Errorf("job is %s before %s ended", job.State, id)
			}
			node.end(id, 0)
			node.sync()
		}
		if job := y.job("job"); job.State != batch.JobCompleted || job.TerminateReason != batch.ReasonAllTasksCompleted {
			t.Errorf("job is %s for %q", job.State, job.TerminateReason)
		}
	})

	t.Run("a completed task acts on its job by its exit conditions", func(t *testing.T) {
		t.Parallel()
		for code, want := range map[int]batch.JobState{0: batch.JobTerminating, 2: batch.JobTerminating, 3: batch.JobDisabling, 4: batch.JobActive} {
			y := newYard(t, storetest.SQLite(t))
			y.prepare(0, 2)
			spec := jobSpec("acting")
			spec.OnTaskFailure = batch.TaskFailurePerform
			_, err := y.AddJob(ctx(t), acct, spec)
			y.check(err)
			y.addTasks("acting", "t", 2, func(s *batch.TaskSpecification) {
				s.ExitConditions = &batch.ExitConditions{ExitCodes: []batch.ExitCodeMapping{
					{Code: 0, ExitOptions: batch.ExitOptions{JobAction: batch.JobActionTerminate}},
					{Code: 2, ExitOptions: batch.ExitOptions{JobAction: batch.JobActionTerminate}},
					{Code: 3, ExitOptions: batch.ExitOptions{JobAction: batch.JobActionDisable}},
				}}
			})
			node := y.handNode()
			y.assignOf("acting", node, "t-000", "t-001")
			node.sync()
			a := node.held["acting/t-000"]
			now := batch.At(time.Now())
			a.Phase, a.Start, a.Outcome = batch.PhaseEnded, &now, outcome(code, now)
			node.sync()
			if job := y.job("acting"); job.State != want {
				t.Errorf("exit code %d: job is %s, want %s", code, job.State, want)
			}
			for range 2 {
				_, err = y.EndJob(ctx(t), acct, "acting")
				y.check(err)
			}
			if job := y.job("acting"); want == batch.JobTerminating && (job.State != batch.JobCompleted || job.TerminateReason != batch.ReasonTaskFailed) {
				t.Errorf("then it is %s for %q", job.State, job.TerminateReason)
			}
		}
	})
}
