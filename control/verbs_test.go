package control_test

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/control"
	"github.com/batchyard/batchyard/store/storetest"
)

func TestAddingTasks(t *testing.T) {
	t.Parallel()
	y := newYard(t, storetest.SQLite(t))
	y.prepare(0, 2)
	add := func(job batch.JobID, specs ...batch.TaskSpecification) ([]control.AddResult, error) {
		return y.AddTasks(ctx(t), acct, job, specs)
	}

	t.Run("what is wrong with one keeps no other out", func(t *testing.T) {
		y.addTasks("job", "there", 1)
		large := taskSpec("large")
		large.RequiredSlots = 3
		results, err := add("job", taskSpec("a"), taskSpec("THERE-000"), taskSpec("bad id"), large, taskSpec("b"), taskSpec("B"))
		y.check(err)
		var codes []batch.Code
		for _, r := range results {
			codes = append(codes, batch.CodeOf(r.Err))
		}
		want := []batch.Code{"", batch.CodeTaskExists, batch.CodeInvalidPropertyValue, batch.CodeInvalidPropertyValue, "", batch.CodeTaskExists}
		if diff := cmp.Diff(want, codes); diff != "" {
			t.Error(diff)
		}
		if got := y.job("job").Counts.Active; got != 3 {
			t.Errorf("%d tasks are active", got)
		}
	})
	t.Run("at most a hundred at once", func(t *testing.T) {
		_, err := add("job", make([]batch.TaskSpecification, 101)...)
		y.refused(err, batch.CodeInvalidPropertyValue)
	})
	t.Run("not too large", func(t *testing.T) {
		spec := taskSpec("files")
		for i := range 200 {
			spec.ResourceFiles = append(spec.ResourceFiles, batch.ResourceFile{
				HTTPURL: "http://example.org/" + strings.Repeat("x", 500), FilePath: fmt.Sprint(i),
			})
		}
		_, err := y.AddTask(ctx(t), acct, "job", spec)
		y.refused(err, batch.CodeRequestBodyTooLarge)
	})
	t.Run("not to jobs that are no more", func(t *testing.T) {
		_, err := add("none", taskSpec("a"))
		y.refused(err, batch.CodeJobNotFound)
		_, err = y.AddJob(ctx(t), acct, jobSpec("done"))
		y.check(err)
		_, err = y.TerminateJob(ctx(t), acct, "done", "", batch.Conditions{})
		y.check(err)
		_, err = add("done", taskSpec("a"))
		y.refused(err, batch.CodeJobCompleted)
	})
}

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
	y.refused(add(func(s *batch.JobSpecification) { s.PoolInfo.PoolID = "none" }), batch.CodeResourceNotFound)
	y.check(add(func(s *batch.JobSpecification) { s.OnAllTasksComplete = batch.AllTasksTerminateJob }))
	if job := y.job("more"); job.State != batch.JobCompleted {
		t.Errorf("a job that ends without tasks is %s", job.State)
	}
	_, err := y.AddPool(ctx(t), acct, poolSpec("going", 1, 1))
	y.check(err)
	y.check(y.DeletePool(ctx(t), acct, "going", batch.Conditions{}))
	y.refused(add(func(s *batch.JobSpecification) { s.ID, s.PoolInfo.PoolID = "other", "going" }), batch.CodePoolBeingDeleted)
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

	t.Run("a failed task acts on its job by its exit conditions", func(t *testing.T) {
		t.Parallel()
		for code, want := range map[int]batch.JobState{2: batch.JobTerminating, 3: batch.JobDisabling, 4: batch.JobActive} {
			y := newYard(t, storetest.SQLite(t))
			y.prepare(0, 2)
			spec := jobSpec("acting")
			spec.OnTaskFailure = batch.TaskFailurePerform
			_, err := y.AddJob(ctx(t), acct, spec)
			y.check(err)
			y.addTasks("acting", "t", 2, func(s *batch.TaskSpecification) {
				s.ExitConditions = &batch.ExitConditions{ExitCodes: []batch.ExitCodeMapping{
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

func TestNodesAreTakenOutOfService(t *testing.T) {
	t.Parallel()
	state := func(y *yard, node *script) batch.NodeState {
		n, err := y.Node(ctx(y.t), acct, "pool", node.id)
		y.check(err)
		return n.State
	}

	t.Run("scheduling is disabled and enabled", func(t *testing.T) {
		t.Parallel()
		y, node := running(t)
		y.check(y.DisableScheduling(ctx(t), acct, "pool", node.id, batch.DisableTaskCompletion))
		y.refused(y.DisableScheduling(ctx(t), acct, "pool", node.id, ""), batch.CodeSchedulingAlreadyEnabled)
		if n := y.assign(node, "t-003"); n != 0 {
			t.Error("the node still takes tasks")
		}
		node.sync()
		node.of("t-002").Phase = batch.PhaseReleased
		node.end("t-000", 0)
		node.sync()
		if got := state(y, node); got != batch.NodeRunning {
			t.Errorf("with one task left the node is %s", got)
		}
		node.end("t-001", 0)
		node.sync()
		if got := state(y, node); got != batch.NodeOffline {
			t.Errorf("without tasks the node is %s", got)
		}
		y.check(y.EnableScheduling(ctx(t), acct, "pool", node.id))
		if got := state(y, node); got != batch.NodeIdle {
			t.Errorf("enabled again the node is %s", got)
		}
	})

	t.Run("a reboot gives tasks back and starts over", func(t *testing.T) {
		t.Parallel()
		y, node := running(t)
		y.check(y.RebootNode(ctx(t), acct, "pool", node.id, ""))
		y.refused(y.RebootNode(ctx(t), acct, "pool", node.id, ""), batch.CodeNodeBeingRebooted)
		orders := node.sync()
		if orders.Boot != 2 || state(y, node) != batch.NodeRebooting {
			t.Errorf("boot %d, node %s", orders.Boot, state(y, node))
		}
		for _, a := range node.held {
			if a.release != batch.ReleaseAlways {
				t.Errorf("%s is asked back as %q", a.Task, a.release)
			}
			a.Phase = batch.PhaseReleased
		}
		node.sync()
		if counts := y.job("job").Counts; counts.Active != 4 {
			t.Errorf("counts are %+v", counts)
		}
		node.boot = 2
		node.sync()
		if got := state(y, node); got != batch.NodeIdle {
			t.Errorf("node is %s", got)
		}
		if info := y.task("job", "t-000").ExecutionInfo; info.RequeueCount != 1 {
			t.Errorf("requeued %d times", info.RequeueCount)
		}
	})

	t.Run("a reimage may wait for tasks", func(t *testing.T) {
		t.Parallel()
		y, node := running(t)
		y.check(y.ReimageNode(ctx(t), acct, "pool", node.id, batch.RebootTaskCompletion))
		orders := node.sync()
		if orders.Boot != 1 || orders.Image != 0 || state(y, node) != batch.NodeRunning {
			t.Errorf("at once: boot %d, image %d, node %s", orders.Boot, orders.Image, state(y, node))
		}
		node.of("t-002").Phase = batch.PhaseReleased
		node.end("t-000", 0)
		node.end("t-001", 0)
		orders = node.sync()
		if orders.Boot != 2 || orders.Image != 1 || state(y, node) != batch.NodeReimaging {
			t.Errorf("then: boot %d, image %d, node %s", orders.Boot, orders.Image, state(y, node))
		}
	})

	t.Run("a node leaves when it holds nothing more", func(t *testing.T) {
		t.Parallel()
		y, node := running(t)
		removal := batch.NodeRemoval{NodeList: []batch.NodeID{node.id, "tvmps_unknown"}, NodeDeallocationOption: "TaskCompletion"}
		_, err := y.RemoveNodes(ctx(t), acct, "pool", removal, batch.Conditions{})
		y.check(err)
		if orders := node.sync(); orders.Leave {
			t.Error("it is to leave while tasks run")
		}
		node.of("t-002").Phase = batch.PhaseReleased
		node.end("t-000", 0)
		node.end("t-001", 0)
		if orders := node.sync(); !orders.Leave {
			t.Error("it is not to leave although it holds nothing")
		}
		if orders := node.sync(); !orders.Leave {
			t.Error("having left it is to come back")
		}
		_, err = y.Sync(ctx(t), node.id, node.token, node.report())
		y.refused(err, batch.CodeNodeNotFound)
		if p, err := y.Pool(ctx(t), acct, "pool"); err != nil || p.CurrentDedicatedNodes != 0 {
			t.Errorf("the pool has %d nodes (%v)", p.CurrentDedicatedNodes, err)
		}
		_, err = y.OpenFile(ctx(t), control.FileTarget{Account: acct, Job: "job", Task: "t-000"}, batch.FileRequest{Op: batch.FileList})
		y.refused(err, batch.CodeTaskFilesUnavailable)
	})

	t.Run("a node may keep its files until nobody wants them", func(t *testing.T) {
		t.Parallel()
		url := storetest.SQLite(t)
		synctest.Test(t, func(t *testing.T) {
			y := newYard(t, url)
			y.prepare(0, 1)
			hour := batch.Hour
			y.addTasks("job", "t", 2, func(s *batch.TaskSpecification) { s.Constraints = &batch.TaskConstraints{RetentionTime: &hour} })
			leaves, boots := y.handNode(), y.handNode()
			for id, node := range map[batch.TaskID]*script{"t-000": leaves, "t-001": boots} {
				y.assign(node, id)
				node.sync()
				node.end(id, 1)
				node.sync()
			}
			removal := batch.NodeRemoval{NodeList: []batch.NodeID{leaves.id}, NodeDeallocationOption: batch.DeallocateRetainedData}
			_, err := y.RemoveNodes(ctx(t), acct, "pool", removal, batch.Conditions{})
			y.check(err)
			y.check(y.RebootNode(ctx(t), acct, "pool", boots.id, batch.RebootRetainedData))
			for _, c := range []struct {
				after time.Duration
				over  bool
			}{{0, false}, {59 * time.Minute, false}, {2 * time.Minute, true}} {
				time.Sleep(c.after)
				if got := leaves.sync().Leave; got != c.over {
					t.Errorf("%v later: leave %v", c.after, got)
				}
				if got := boots.sync().Boot == 2; got != c.over {
					t.Errorf("%v later: boot %v", c.after, got)
				}
			}
		})
	})

	t.Run("its provider says that it is gone", func(t *testing.T) {
		t.Parallel()
		y, node := running(t)
		y.check(y.NodeGone(ctx(t), node.id))
		if got := state(y, node); got != batch.NodeUnusable {
			t.Errorf("node is %s", got)
		}
		if task := y.task("job", "t-000"); task.State != batch.TaskRunning {
			t.Errorf("within its lease its task is %s", task.State)
		}
	})
}

func TestResizing(t *testing.T) {
	t.Parallel()
	url := storetest.SQLite(t)
	synctest.Test(t, func(t *testing.T) {
		y := newYard(t, url)
		y.loops()
		y.prepare(4, 1)
		y.wanted(4)
		y.robots(1, seconds(60))
		y.addTasks("job", "t", 2)
		time.Sleep(time.Second)
		pool := func() batch.Pool {
			p, err := y.Pool(ctx(t), acct, "pool")
			y.check(err)
			return p
		}
		resize := func(n int) error {
			_, err := y.ResizePool(ctx(t), acct, "pool", batch.PoolResize{TargetDedicatedNodes: &n}, batch.Conditions{})
			return err
		}
		y.check(resize(2))
		time.Sleep(time.Second)
		if p := pool(); p.AllocationState != batch.AllocationSteady || p.CurrentDedicatedNodes != 2 {
			t.Errorf("shrunk pool is %s with %d nodes", p.AllocationState, p.CurrentDedicatedNodes)
		}
		if counts := y.job("job").Counts; counts.Running != 2 {
			t.Errorf("nodes with tasks went before idle ones: %+v", counts)
		}
		y.check(resize(5))
		y.refused(resize(6), batch.CodePoolBeingResized)
		time.Sleep(16 * time.Minute) // nobody makes the new nodes
		p := pool()
		if p.AllocationState != batch.AllocationSteady || p.CurrentDedicatedNodes != 2 || len(p.ResizeErrors) != 1 || p.ResizeErrors[0].Code != batch.ResizeTimedOut {
			t.Errorf("after its timeout the pool is %s with %d nodes, %+v", p.AllocationState, p.CurrentDedicatedNodes, p.ResizeErrors)
		}
		y.check(resize(5))
		time.Sleep(time.Second)
		_, err := y.StopResize(ctx(t), acct, "pool", batch.Conditions{})
		y.check(err)
		time.Sleep(time.Second)
		if p := pool(); p.AllocationState != batch.AllocationSteady || p.ResizeErrors[0].Code != batch.ResizeStopped {
			t.Errorf("stopped pool is %s, %+v", p.AllocationState, p.ResizeErrors)
		}
	})
}

func TestFiles(t *testing.T) {
	t.Parallel()
	target := control.FileTarget{Account: acct, Job: "job", Task: "t-000"}
	type opened struct {
		stream *control.FileStream
		err    error
	}
	open := func(y *yard, request batch.FileRequest) <-chan opened {
		result := make(chan opened, 1)
		go func() {
			stream, err := y.OpenFile(ctx(y.t), target, request)
			result <- opened{stream, err}
		}()
		return result
	}
	bubble := func(name string, test func(t *testing.T, y *yard, node *script)) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := storetest.SQLite(t)
			synctest.Test(t, func(t *testing.T) {
				y := newYard(t, url)
				y.prepare(0, 2)
				y.addTasks("job", "t", 1)
				node := y.handNode()
				y.assign(node, "t-000")
				node.sync()
				node.start("t-000")
				node.sync()
				test(t, y, node)
			})
		})
	}
	bubble("a request wakes the node and its answer reaches the caller", func(t *testing.T, y *yard, node *script) {
		call := node.call(t.Context())
		time.Sleep(time.Second)
		result := open(y, batch.FileRequest{Op: batch.FileRead, Path: "stdout.txt", Length: -1})
		got := <-call
		if got.err != nil || got.after != time.Second || len(got.orders.Files) != 1 {
			t.Fatalf("after %v: %+v (%v)", got.after, got.orders.Files, got.err)
		}
		request := got.orders.Files[0]
		if request.Job != "job" || request.Task != "t-000" || request.Path != "stdout.txt" {
			t.Errorf("request is %+v", request)
		}
		again := node.call(t.Context())
		synctest.Wait()
		y.refused(y.AnswerFile(ctx(t), node.id, "byt_wrong", request.ID, batch.FileAnswer{}, nil), batch.CodeAuthenticationFailed)
		answer := make(chan error, 1)
		go func() {
			answer <- y.AnswerFile(ctx(t), node.id, node.token, request.ID, batch.FileAnswer{File: &batch.File{Name: "stdout.txt"}}, strings.NewReader("hello"))
		}()
		o := <-result
		y.check(o.err)
		body, err := io.ReadAll(o.stream.Body)
		o.stream.Body.Close()
		if string(body) != "hello" || err != nil || o.stream.Answer.File.Name != "stdout.txt" {
			t.Errorf("got %q (%v)", body, err)
		}
		y.check(<-answer)
		y.refused(y.AnswerFile(ctx(t), node.id, node.token, request.ID, batch.FileAnswer{}, nil), batch.CodeResourceNotFound)
		<-again
	})
	bubble("a node that says nothing is told again, and given up", func(t *testing.T, y *yard, node *script) {
		began := time.Now()
		result := open(y, batch.FileRequest{Op: batch.FileStat, Path: "x"})
		synctest.Wait()
		node.sync()
		if got := <-node.call(t.Context()); got.after != 2*time.Second || len(got.orders.Files) != 1 {
			t.Errorf("after %v: %+v", got.after, got.orders.Files)
		}
		y.refused((<-result).err, batch.CodeOperationTimedOut)
		if after := time.Since(began); after != 30*time.Second {
			t.Errorf("given up after %v", after)
		}
		if orders := node.sync(); len(orders.Files) != 0 {
			t.Errorf("the node is still asked: %+v", orders.Files)
		}
	})
	bubble("a caller who has read enough lets the node go", func(t *testing.T, y *yard, node *script) {
		result := open(y, batch.FileRequest{Op: batch.FileRead, Path: "stdout.txt"})
		synctest.Wait()
		request := node.sync().Files[0]
		answer := make(chan error, 1)
		go func() {
			answer <- y.AnswerFile(ctx(t), node.id, node.token, request.ID, batch.FileAnswer{}, strings.NewReader(strings.Repeat("x", 1<<20)))
		}()
		(<-result).stream.Body.Close()
		y.check(<-answer)
	})
	bubble("a task that has not run has none", func(t *testing.T, y *yard, _ *script) {
		y.addTasks("job", "new", 1)
		_, err := y.OpenFile(ctx(t), control.FileTarget{Account: acct, Job: "job", Task: "new-000"}, batch.FileRequest{Op: batch.FileList})
		y.refused(err, batch.CodeTaskFilesUnavailable)
	})
}

func TestLists(t *testing.T) {
	t.Parallel()
	y, node := running(t)
	node.end("t-000", 5)
	node.sync()
	ids := func(filter string, size int) (ids []batch.TaskID) {
		q := control.Query{Filter: filter, Max: size}
		for {
			page, err := y.Tasks(ctx(t), acct, "job", q)
			y.check(err)
			for _, task := range page.Items {
				ids = append(ids, task.ID)
			}
			if q.Token = page.Next; q.Token == "" {
				return ids
			}
		}
	}
	for filter, want := range map[string][]batch.TaskID{
		"":                            {"t-000", "t-001", "t-002", "t-003"},
		"state eq 'Running'":          {"t-001"},
		"state eq 'active'":           {"t-002", "t-003"},
		"executionInfo/exitCode eq 5": {"t-000"},
		"startswith(id,'T-00') and id ge 't-002'":                                       {"t-002", "t-003"},
		"executionInfo/failureInfo/code eq 'FailureExitCode'":                           {"t-000"},
		"not (state eq 'completed') and creationTime gt DateTime'2000-01-01T00:00:00Z'": {"t-001", "t-002", "t-003"},
	} {
		for _, size := range []int{0, 1, 3} {
			if diff := cmp.Diff(want, ids(filter, size)); diff != "" {
				t.Errorf("%q in pages of %d:\n%s", filter, size, diff)
			}
		}
	}
	for name, q := range map[string]control.Query{
		"a filter on what is no field":  {Filter: "colour eq 'red'"},
		"a filter that is none":         {Filter: "state eq"},
		"a state that there is not":     {Filter: "state eq 'asleep'"},
		"a page of less than one item":  {Max: -1},
		"a page of more than there may": {Max: 1001},
		"a token that nobody gave":      {Token: "?"},
	} {
		_, err := y.Tasks(ctx(t), acct, "job", q)
		if batch.CodeOf(err) != batch.CodeInvalidQueryParameterValue {
			t.Errorf("%s: %v", name, err)
		}
	}
	every := map[string]func(control.Query) (int, error){
		"pools": func(q control.Query) (int, error) { p, err := y.Pools(ctx(t), acct, q); return len(p.Items), err },
		"nodes": func(q control.Query) (int, error) {
			p, err := y.Nodes(ctx(t), acct, "pool", q)
			return len(p.Items), err
		},
		"jobs": func(q control.Query) (int, error) { p, err := y.Jobs(ctx(t), acct, q); return len(p.Items), err },
		"counts": func(q control.Query) (int, error) {
			p, err := y.PoolNodeCounts(ctx(t), acct, q)
			return len(p.Items), err
		},
	}
	for name, list := range every {
		if n, err := list(control.Query{}); n != 1 || err != nil {
			t.Errorf("%s: %d (%v)", name, n, err)
		}
	}
	counts, err := y.PoolNodeCounts(ctx(t), acct, control.Query{Filter: "poolId eq 'pool'"})
	y.check(err)
	if got := counts.Items[0].Dedicated[batch.NodeRunning]; got != 1 {
		t.Errorf("%d nodes run", got)
	}
	_, err = y.Nodes(ctx(t), acct, "none", control.Query{})
	y.refused(err, batch.CodeResourceNotFound)
}

func TestAccountsSeeNothingOfEachOther(t *testing.T) {
	t.Parallel()
	y, node := running(t)
	y.check(y.AddAccount(ctx(t), batch.Account{Name: "other", Keys: [2][]byte{{3}, {4}}}))
	_, err := y.Job(ctx(t), "other", "job")
	y.refused(err, batch.CodeJobNotFound)
	_, err = y.AddPool(ctx(t), "other", poolSpec("pool", 0, 1))
	y.check(err)
	_, err = y.Node(ctx(t), "other", "pool", node.id)
	y.refused(err, batch.CodeNodeNotFound)
	y.refused(y.RebootNode(ctx(t), "other", "pool", node.id, ""), batch.CodeNodeNotFound)
	_, err = y.AddJob(ctx(t), "other", jobSpec("job"))
	y.check(err)

	y.check(y.AddAccount(ctx(t), batch.Account{Name: "other", Keys: [2][]byte{{5}, {6}}}))
	got, err := y.Account(ctx(t), "OTHER")
	y.check(err)
	if diff := cmp.Diff([2][]byte{{5}, {6}}, got.Keys); diff != "" {
		t.Errorf("keys after they were replaced:\n%s", diff)
	}
	_, err = y.Account(ctx(t), "nobody")
	y.refused(err, batch.CodeAccountNotFound)
}
