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

// seconds is work of a fixed length that succeeds.
func seconds(n int) func(batch.TaskOrder) (time.Duration, int) {
	return func(batch.TaskOrder) (time.Duration, int) { return time.Duration(n) * time.Second, 0 }
}

func TestLifeOfPoolJobAndTasks(t *testing.T) {
	t.Parallel()
	url := storetest.SQLite(t)
	synctest.Test(t, func(t *testing.T) {
		y := newYard(t, url)
		y.loops()
		y.prepare(3, 2)
		y.wanted(3)
		pool, err := y.Pool(ctx(t), acct, "POOL")
		y.check(err)
		if pool.AllocationState != batch.AllocationResizing {
			t.Errorf("pool is %s before its nodes are there", pool.AllocationState)
		}
		y.robots(2, seconds(10))
		synctest.Wait()
		if pool, err = y.Pool(ctx(t), acct, "pool"); err != nil || pool.AllocationState != batch.AllocationSteady || pool.CurrentDedicatedNodes != 3 {
			t.Errorf("pool is %s with %d nodes (%v)", pool.AllocationState, pool.CurrentDedicatedNodes, err)
		}
		y.addTasks("job", "t", 60)
		time.Sleep(100*time.Second + time.Second) // 60 tasks, 6 slots, 10 s each
		counts, err := y.TaskCounts(ctx(t), acct, "job")
		y.check(err)
		if diff := cmp.Diff(batch.TaskCounts{Succeeded: 60, SucceededSlots: 60}, counts); diff != "" {
			t.Errorf("counts after all have run:\n%s", diff)
		}
		for _, task := range y.tasks("job") {
			if task.State != batch.TaskCompleted || task.ExecutionInfo.Result != batch.ResultSuccess || *task.ExecutionInfo.ExitCode != 0 {
				t.Errorf("%s is %s, %+v", task.ID, task.State, task.ExecutionInfo)
			}
		}
		onAll := batch.AllTasksTerminateJob
		_, err = y.PatchJob(ctx(t), acct, "job", batch.JobPatch{OnAllTasksComplete: &onAll}, batch.Conditions{})
		y.check(err)
		if job := y.job("job"); job.State != batch.JobCompleted || job.TerminateReason != batch.ReasonAllTasksCompleted || job.EndTime.IsZero() {
			t.Errorf("job is %s for %q", job.State, job.TerminateReason)
		}
		y.check(y.DeleteJob(ctx(t), acct, "job", batch.Conditions{}))
		_, err = y.Job(ctx(t), acct, "job")
		y.refused(err, batch.CodeJobNotFound)
		y.check(y.DeletePool(ctx(t), acct, "pool", batch.Conditions{}))
		time.Sleep(time.Second)
		_, err = y.Pool(ctx(t), acct, "pool")
		y.refused(err, batch.CodePoolNotFound)
		y.wanted(0)
	})
}

func TestRetries(t *testing.T) {
	t.Parallel()
	url := storetest.SQLite(t)
	synctest.Test(t, func(t *testing.T) {
		y := newYard(t, url)
		y.loops()
		y.prepare(1, 1)
		y.wanted(1)
		y.robots(1, func(batch.TaskOrder) (time.Duration, int) { return time.Second, 3 })
		retries := 2
		y.addTasks("job", "t", 1, func(s *batch.TaskSpecification) {
			s.Constraints = &batch.TaskConstraints{MaxTaskRetryCount: &retries}
		})
		time.Sleep(10 * time.Second)
		task := y.task("job", "t-000")
		info := task.ExecutionInfo
		if task.State != batch.TaskCompleted || info.RetryCount != 2 || info.RequeueCount != 0 || *info.ExitCode != 3 ||
			info.Result != batch.ResultFailure || info.FailureInfo.Code != batch.FailureExitCode {
			t.Errorf("task is %s, %+v", task.State, info)
		}
		node, err := y.Node(ctx(t), acct, "pool", task.Node)
		y.check(err)
		if node.TotalTasksRun != 3 || node.TotalTasksSucceeded != 0 || len(node.Recent) != 1 || node.Recent[0].State != batch.TaskCompleted {
			t.Errorf("node ran %d, of which %d well; recent %+v", node.TotalTasksRun, node.TotalTasksSucceeded, node.Recent)
		}
		_, err = y.ReactivateTask(ctx(t), acct, "job", "t-000", batch.Conditions{})
		y.check(err)
		if got := y.task("job", "t-000"); got.State != batch.TaskActive || got.ExecutionInfo.RetryCount != 0 {
			t.Errorf("reactivated task is %s with %d retries", got.State, got.ExecutionInfo.RetryCount)
		}
	})
}

func TestLostNode(t *testing.T) {
	t.Parallel()
	url := storetest.SQLite(t)
	synctest.Test(t, func(t *testing.T) {
		y := newYard(t, url)
		y.loops()
		y.prepare(2, 1)
		y.wanted(2)
		robots := y.robots(1, seconds(600))
		y.addTasks("job", "t", 2)
		time.Sleep(time.Minute)
		task := y.task("job", "t-000")
		robots[task.Node].sever(true)
		time.Sleep(2 * time.Minute)
		node, err := y.Node(ctx(t), acct, "pool", task.Node)
		y.check(err)
		if node.State != batch.NodeUnknown || node.BoundTasks != 0 {
			t.Errorf("silent node is %s and holds %d", node.State, node.BoundTasks)
		}
		if got := y.task("job", "t-000"); got.State != batch.TaskActive || got.ExecutionInfo.RequeueCount != 1 || got.ExecutionInfo.RetryCount != 0 {
			t.Errorf("its task is %s, %+v", got.State, got.ExecutionInfo)
		}
		robots[task.Node].sever(false)
		time.Sleep(30 * time.Minute)
		counts := y.job("job").Counts
		if diff := cmp.Diff(batch.TaskCounts{Succeeded: 2, SucceededSlots: 2}, counts); diff != "" {
			t.Errorf("counts in the end:\n%s", diff)
		}
		if got := y.task("job", "t-000").ExecutionInfo.RequeueCount; got != 1 {
			t.Errorf("requeued %d times", got)
		}
	})
}

// TestLostNodeIsRebooted has a node that is gone for good be rebooted, before
// anybody knew that and after. It is not waited for for ever.
func TestLostNodeIsRebooted(t *testing.T) {
	t.Parallel()
	for name, when := range map[string]time.Duration{"before it is given up": time.Second, "after it is given up": 5 * time.Minute} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := storetest.SQLite(t)
			synctest.Test(t, func(t *testing.T) {
				y := newYard(t, url)
				y.loops()
				y.prepare(2, 1)
				y.wanted(2)
				robots := y.robots(1, seconds(600))
				y.addTasks("job", "t", 1)
				time.Sleep(time.Minute)
				gone := y.task("job", "t-000").Node
				robots[gone].sever(true)
				time.Sleep(when)
				y.check(y.RebootNode(ctx(t), acct, "pool", gone, batch.RebootTaskCompletion))
				time.Sleep(5 * time.Minute)
				if n, err := y.Node(ctx(t), acct, "pool", gone); err != nil || n.State != batch.NodeUnknown {
					t.Errorf("the node is %s, %v", n.State, err)
				}
				_, err := y.RemoveNodes(ctx(t), acct, "pool", batch.NodeRemoval{NodeList: []batch.NodeID{gone}}, batch.Conditions{})
				y.check(err)
				time.Sleep(time.Minute)
				if nodes := y.nodesOf("pool"); len(nodes) != 1 || nodes[0] == gone {
					t.Errorf("the pool has %v", nodes)
				}
				time.Sleep(20 * time.Minute)
				if task := y.task("job", "t-000"); task.State != batch.TaskCompleted {
					t.Errorf("its task is %s", task.State)
				}
			})
		})
	}
}

func TestRestartOfTheServer(t *testing.T) {
	t.Parallel()
	url := storetest.SQLite(t)
	synctest.Test(t, func(t *testing.T) {
		y := newYard(t, url)
		y.loops()
		y.prepare(4, 2)
		y.wanted(4)
		robots := y.robots(2, seconds(30))
		y.addTasks("job", "t", 80)
		for range 5 {
			time.Sleep(37 * time.Second)
			y.restart()
		}
		time.Sleep(10 * time.Minute)
		if diff := cmp.Diff(batch.TaskCounts{Succeeded: 80, SucceededSlots: 80}, y.job("job").Counts); diff != "" {
			t.Errorf("counts:\n%s", diff)
		}
		begun := map[string]int{}
		for _, r := range robots {
			for name, n := range r.runs {
				begun[name] += n
			}
		}
		for name, n := range begun {
			if n != 1 {
				t.Errorf("%s was begun %d times", name, n)
			}
		}
	})
}

func TestDeletionGoesOnAfterARestart(t *testing.T) {
	t.Parallel()
	url := storetest.SQLite(t)
	synctest.Test(t, func(t *testing.T) {
		y := newYard(t, url)
		y.prepare(0, 1)
		y.addTasks("job", "t", 1300)
		y.check(y.DeleteJob(ctx(t), acct, "job", batch.Conditions{}))
		if job := y.job("job"); job.State != batch.JobDeleting {
			t.Errorf("job is %s", job.State)
		}
		_, err := y.AddJob(ctx(t), acct, jobSpec("JOB"))
		y.refused(err, batch.CodeJobBeingDeleted)
		y.restart()
		synctest.Wait()
		_, err = y.Job(ctx(t), acct, "job")
		y.refused(err, batch.CodeJobNotFound)
		if page, err := y.Jobs(ctx(t), acct, control.Query{}); err != nil || len(page.Items) != 0 {
			t.Errorf("jobs left: %d (%v)", len(page.Items), err)
		}
	})
}

func TestJobWallClock(t *testing.T) {
	t.Parallel()
	url := storetest.SQLite(t)
	synctest.Test(t, func(t *testing.T) {
		y := newYard(t, url)
		y.loops()
		y.prepare(1, 1)
		y.wanted(1)
		y.robots(1, seconds(3600))
		spec := jobSpec("timed")
		limit := batch.DurationOf(5 * time.Minute)
		spec.Constraints = &batch.JobConstraints{MaxWallClockTime: &limit}
		_, err := y.AddJob(ctx(t), acct, spec)
		y.check(err)
		y.addTasks("timed", "t", 3)
		time.Sleep(5*time.Minute - time.Second)
		if job := y.job("timed"); job.State != batch.JobActive || job.Counts.Running != 1 {
			t.Errorf("before its time the job is %s with %d running", job.State, job.Counts.Running)
		}
		time.Sleep(2 * time.Second)
		job := y.job("timed")
		if job.State != batch.JobCompleted || job.TerminateReason != batch.ReasonMaxWallClock || job.Counts.Failed != 3 {
			t.Errorf("after it the job is %s for %q with %d failed", job.State, job.TerminateReason, job.Counts.Failed)
		}
		if node, err := y.Nodes(ctx(t), acct, "pool", control.Query{}); err != nil || node.Items[0].State != batch.NodeIdle {
			t.Errorf("its node is %s (%v)", node.Items[0].State, err)
		}
	})
}

func TestLifeOnEachDatabase(t *testing.T) {
	t.Parallel()
	storetest.Each(t, func(t *testing.T, url string) {
		y := newYard(t, url)
		y.prepare(0, 2)
		for range 2 {
			y.check(y.StepPool(ctx(t), acct, "pool", func(*batch.Pool, []batch.Node, time.Time) control.PoolStep {
				return control.PoolStep{AddDedicated: 1}
			}))
		}
		y.loops()
		y.robots(2, func(batch.TaskOrder) (time.Duration, int) { return time.Millisecond, 0 })
		y.addTasks("job", "t", 250)
		onAll := batch.AllTasksTerminateJob
		_, err := y.PatchJob(ctx(t), acct, "job", batch.JobPatch{OnAllTasksComplete: &onAll}, batch.Conditions{})
		y.check(err)
		watch := y.db.Watch(control.ReadyTopic(acct, "pool")) // announced with each task that ends
		defer watch.Close()
		timeout := time.After(time.Minute)
		for y.job("job").State != batch.JobCompleted {
			select {
			case <-watch.C:
			case <-timeout:
				t.Fatalf("after a minute: %+v", y.job("job").Counts)
			}
		}
		if diff := cmp.Diff(batch.TaskCounts{Succeeded: 250, SucceededSlots: 250}, y.job("job").Counts); diff != "" {
			t.Error(diff)
		}
	})
}

func TestPrioritiesAndLimitsOfJobs(t *testing.T) {
	t.Parallel()
	url := storetest.SQLite(t)
	synctest.Test(t, func(t *testing.T) {
		y := newYard(t, url)
		y.loops()
		y.prepare(1, 3)
		y.wanted(1)
		one := 1
		for id, priority := range map[batch.JobID]int{"urgent": 10, "limited": 20} {
			spec := jobSpec(id)
			spec.Priority = priority
			if id == "limited" {
				spec.MaxParallelTasks = &one
			}
			_, err := y.AddJob(ctx(t), acct, spec)
			y.check(err)
		}
		for _, id := range []batch.JobID{"job", "urgent", "limited"} {
			y.addTasks(id, "t", 4)
		}
		y.robots(3, seconds(10))
		running := func() (n [3]int64) {
			synctest.Wait()
			for i, id := range []batch.JobID{"limited", "urgent", "job"} {
				n[i] = y.job(id).Counts.Running
			}
			return n
		}
		var got [][3]int64
		time.Sleep(5 * time.Second)
		for range 4 {
			got = append(got, running())
			time.Sleep(10 * time.Second)
		}
		want := [][3]int64{{1, 2, 0}, {1, 2, 0}, {1, 0, 2}, {1, 0, 2}}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("running of limited, urgent and other tasks, every ten seconds:\n%s", diff)
		}
	})
}
