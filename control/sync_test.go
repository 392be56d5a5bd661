package control_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/control"
	"github.com/batchyard/batchyard/store/storetest"
)

func TestReports(t *testing.T) {
	t.Parallel()
	y := newYard(t, storetest.SQLite(t))
	y.prepare(0, 4)
	node := y.handNode()
	y.addTasks("job", "t", 12)
	counts := func() batch.TaskCounts { return y.job("job").Counts }

	t.Run("a bound task is active until its node says that it began", func(t *testing.T) {
		y.assign(node, "t-000")
		orders := node.sync()
		if len(orders.Tasks) != 1 || orders.Tasks[0].Run == nil || orders.Tasks[0].Run.CommandLine != "/bin/true" || orders.Tasks[0].Started {
			t.Fatalf("orders are %+v", orders.Tasks)
		}
		if task := y.task("job", "t-000"); task.State != batch.TaskActive || !task.Bound {
			t.Errorf("task is %s, bound %v", task.State, task.Bound)
		}
		node.start("t-000")
		orders = node.sync()
		if !orders.Tasks[0].Started || orders.Tasks[0].Run != nil {
			t.Errorf("orders are %+v", orders.Tasks[0])
		}
		if task := y.task("job", "t-000"); task.State != batch.TaskRunning || task.ExecutionInfo.StartTime == nil {
			t.Errorf("task is %s", task.State)
		}
	})

	t.Run("a repeated result is taken once", func(t *testing.T) {
		node.end("t-000", 0)
		report := node.report()
		for range 3 {
			orders, err := y.Sync(ctx(t), node.id, node.token, report)
			y.check(err)
			if len(orders.Tasks) != 0 {
				t.Errorf("orders still name %+v", orders.Tasks)
			}
			node.take(orders)
		}
		want := batch.TaskCounts{Active: 11, ActiveSlots: 11, Succeeded: 1, SucceededSlots: 1}
		if diff := cmp.Diff(want, counts()); diff != "" {
			t.Error(diff)
		}
		n, err := y.Node(ctx(t), acct, "pool", node.id)
		y.check(err)
		if n.TotalTasksRun != 1 || n.BoundTasks != 0 || n.RunningTasks != 0 || n.State != batch.NodeIdle {
			t.Errorf("node ran %d, holds %d, runs %d, is %s", n.TotalTasksRun, n.BoundTasks, n.RunningTasks, n.State)
		}
	})

	t.Run("a late result of an old attempt is not believed", func(t *testing.T) {
		y.assign(node, "t-001")
		node.sync()
		node.start("t-001")
		node.sync()
		node.end("t-001", 7)
		late := node.report()
		node.of("t-001").Phase = batch.PhaseReleased
		node.sync()
		y.assign(node, "t-001")
		node.sync()
		_, err := y.Sync(ctx(t), node.id, node.token, late)
		y.check(err)
		task := y.task("job", "t-001")
		if task.State != batch.TaskActive || !task.Bound || task.ExecutionInfo.RequeueCount != 1 {
			t.Errorf("task is %s, %+v", task.State, task.ExecutionInfo)
		}
		node.end("t-001", 0)
		node.sync()
	})

	t.Run("nor that of an earlier task of the same id", func(t *testing.T) {
		y.assign(node, "t-002")
		node.sync()
		node.end("t-002", 0)
		late := node.report()
		y.check(y.DeleteTask(ctx(t), acct, "job", "t-002", batch.Conditions{}))
		_, err := y.AddTask(ctx(t), acct, "job", taskSpec("t-002"))
		y.check(err)
		y.assign(node, "t-002")
		_, err = y.Sync(ctx(t), node.id, node.token, late)
		y.check(err)
		if task := y.task("job", "t-002"); task.State != batch.TaskActive || !task.Bound {
			t.Errorf("task is %s", task.State)
		}
		orders := node.sync()
		if len(orders.Removals) != 1 || orders.Removals[0].Task != "t-002" {
			t.Errorf("removals are %+v", orders.Removals)
		}
		if orders = node.sync(); len(orders.Removals) != 0 {
			t.Errorf("a removal that is done is asked for again: %+v", orders.Removals)
		}
		node.end("t-002", 0)
		node.sync()
	})

	t.Run("a node may not speak of tasks it does not have", func(t *testing.T) {
		other := y.handNode()
		y.assign(other, "t-003")
		other.sync()
		lie := node.report()
		lie.Tasks = append(lie.Tasks, batch.TaskReport{
			Job: "job", Task: "t-003", Attempt: other.of("t-003").Attempt, Phase: batch.PhaseEnded, Outcome: outcome(0, batch.At(time.Now())),
		})
		_, err := y.Sync(ctx(t), node.id, node.token, lie)
		y.check(err)
		if task := y.task("job", "t-003"); task.State != batch.TaskActive || task.Node != other.id {
			t.Errorf("task is %s on %s", task.State, task.Node)
		}
	})

	t.Run("a result without an outcome is a failure", func(t *testing.T) {
		y.assign(node, "t-004")
		node.sync()
		node.of("t-004").Phase = batch.PhaseEnded
		node.sync()
		failure := y.task("job", "t-004").ExecutionInfo.FailureInfo
		if failure == nil || failure.Code != batch.FailureResultUnknown {
			t.Errorf("failure is %+v", failure)
		}
	})

	t.Run("results of many tasks go in at once", func(t *testing.T) {
		before := y.db.Stats().Updates
		y.assign(node, "t-005", "t-006", "t-007", "t-008")
		node.sync()
		for _, id := range []batch.TaskID{"t-005", "t-006", "t-007", "t-008"} {
			node.end(id, 0)
		}
		node.sync()
		if n := y.db.Stats().Updates - before; n > 3 { // to bind them, to tell the node, to take the results
			t.Errorf("it took %d transactions", n)
		}
	})
}

func TestWhoMaySpeakForANode(t *testing.T) {
	t.Parallel()
	y := newYard(t, storetest.SQLite(t))
	y.prepare(0, 1)
	node := y.handNode()

	t.Run("nobody without its token", func(t *testing.T) {
		for _, token := range []string{"", "byt_other", node.token + "x"} {
			_, err := y.Sync(ctx(t), node.id, token, node.report())
			y.refused(err, batch.CodeAuthenticationFailed)
		}
	})
	t.Run("nobody for a node that does not exist", func(t *testing.T) {
		_, err := y.Sync(ctx(t), "tvmps_none", node.token, node.report())
		y.refused(err, batch.CodeNodeNotFound)
	})
	t.Run("a newer agent takes over and the older one is refused", func(t *testing.T) {
		newer := &script{y: y, id: node.id, token: node.token, instance: "second", held: map[string]*attempt{}}
		newer.sync()
		_, err := y.Sync(ctx(t), node.id, node.token, node.report())
		y.refused(err, batch.CodeForbidden)
		newer.sync()
		node.instance, node.boot = "second", 1
		node.sync()
	})
	t.Run("a new token voids the old one", func(t *testing.T) {
		token, err := y.NewNodeToken(ctx(t), node.id)
		y.check(err)
		_, err = y.Sync(ctx(t), node.id, node.token, node.report())
		y.refused(err, batch.CodeAuthenticationFailed)
		node.token = token
		node.sync()
	})
}

func TestOvertakenReport(t *testing.T) {
	t.Parallel()
	y := newYard(t, storetest.SQLite(t))
	y.prepare(0, 2)
	node := y.handNode()
	y.addTasks("job", "t", 1)
	y.assign(node, "t-000")
	node.sync()
	// Two calls overlap: the first report is from before the end of the boot
	// and of the task, and comes after the second.
	late := node.report()
	late.Number, late.Boot, late.Booting = 1, 0, true
	node.end("t-000", 0)
	newer := node.report()
	newer.Number = 2
	for _, report := range []batch.NodeReport{newer, late} {
		orders, err := y.Sync(ctx(t), node.id, node.token, report)
		y.check(err)
		if len(orders.Tasks) != 0 {
			t.Errorf("orders name %+v", orders.Tasks)
		}
	}
	n, err := y.Node(ctx(t), acct, "pool", node.id)
	y.check(err)
	if n.State != batch.NodeIdle || n.BootDone != 1 || n.TotalTasksRun != 1 {
		t.Errorf("node is %s after boot %d and %d tasks", n.State, n.BootDone, n.TotalTasksRun)
	}
}

func TestANewAgentIsToldEverything(t *testing.T) {
	t.Parallel()
	y := newYard(t, storetest.SQLite(t))
	y.prepare(0, 2)
	node := y.handNode()
	y.addTasks("job", "t", 2)
	y.assign(node, "t-000", "t-001")
	node.sync()
	node.start("t-000")
	node.sync()
	newer := &script{y: y, id: node.id, token: node.token, instance: "second", held: map[string]*attempt{}}
	orders := newer.sync()
	if orders.Settings == nil || orders.Settings.TaskSlots != 2 || orders.Settings.Pool != "pool" || len(orders.Tasks) != 2 {
		t.Fatalf("orders are %+v", orders)
	}
	for _, o := range orders.Tasks {
		if o.Run == nil || o.Started != (o.Task == "t-000") {
			t.Errorf("order of %s: run %v, started %v", o.Task, o.Run, o.Started)
		}
	}
}

// answered runs a waiting call and tells when its answer came.
type answered struct {
	orders batch.NodeOrders
	err    error
	after  time.Duration
}

func (n *script) call(ctx context.Context) <-chan answered {
	result, began := make(chan answered, 1), time.Now()
	report := n.report()
	report.NoWait = false
	go func() {
		orders, err := n.y.Sync(ctx, n.id, n.token, report)
		result <- answered{orders, err, time.Since(began)}
	}()
	return result
}

func TestWaiting(t *testing.T) {
	t.Parallel()
	bubble := func(name string, test func(t *testing.T, y *yard, node *script)) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := storetest.SQLite(t)
			synctest.Test(t, func(t *testing.T) {
				y := newYard(t, url)
				y.prepare(0, 2)
				y.addTasks("job", "t", 2)
				node := y.handNode()
				node.sync()
				test(t, y, node)
			})
		})
	}
	bubble("a call without news is held for twenty seconds", func(t *testing.T, _ *yard, node *script) {
		if got := <-node.call(t.Context()); got.err != nil || got.after != 20*time.Second {
			t.Errorf("answered after %v (%v)", got.after, got.err)
		}
	})
	bubble("new orders end the wait", func(t *testing.T, y *yard, node *script) {
		result := node.call(t.Context())
		time.Sleep(3 * time.Second)
		y.assign(node, "t-000")
		if got := <-result; got.err != nil || got.after != 3*time.Second || len(got.orders.Tasks) != 1 {
			t.Errorf("after %v %+v (%v)", got.after, got.orders.Tasks, got.err)
		}
	})
	bubble("that a task began does not", func(t *testing.T, y *yard, node *script) {
		y.assign(node, "t-000")
		node.sync()
		node.start("t-000")
		result := node.call(t.Context())
		synctest.Wait()
		if state := y.task("job", "t-000").State; state != batch.TaskRunning {
			t.Errorf("task is %s while the call waits", state)
		}
		if got := <-result; got.after != 20*time.Second {
			t.Errorf("answered after %v", got.after)
		}
	})
	bubble("a newer call sends the older home", func(t *testing.T, _ *yard, node *script) {
		older := node.call(t.Context())
		time.Sleep(time.Second)
		newer := node.call(t.Context())
		if got := <-older; got.err != nil || got.after != time.Second {
			t.Errorf("older call: after %v (%v)", got.after, got.err)
		}
		if got := <-newer; got.err != nil || got.after != 20*time.Second {
			t.Errorf("newer call: after %v (%v)", got.after, got.err)
		}
	})
	bubble("what was said is kept when the caller hangs up", func(t *testing.T, y *yard, node *script) {
		y.assign(node, "t-000")
		node.sync()
		node.start("t-000")
		calling, hangUp := context.WithCancel(t.Context())
		result := node.call(calling)
		synctest.Wait()
		hangUp()
		if got := <-result; got.err == nil {
			t.Error("the call was answered")
		}
		if state := y.task("job", "t-000").State; state != batch.TaskRunning {
			t.Errorf("task is %s", state)
		}
	})
	bubble("a node that is removed is told so", func(t *testing.T, y *yard, node *script) {
		result := node.call(t.Context())
		_, err := y.RemoveNodes(t.Context(), acct, "pool", batch.NodeRemoval{NodeList: []batch.NodeID{node.id}}, batch.Conditions{})
		y.check(err)
		if got := <-result; got.err != nil || !got.orders.Leave {
			t.Errorf("leave %v (%v)", got.orders.Leave, got.err)
		}
	})
}

func TestQuickNodesHoldTasksAhead(t *testing.T) {
	t.Parallel()
	url := storetest.SQLite(t)
	synctest.Test(t, func(t *testing.T) {
		y := newYard(t, url)
		y.loops()
		y.prepare(2, 1)
		y.wanted(2)
		robots := y.robots(1, func(batch.TaskOrder) (time.Duration, int) { return 5 * time.Millisecond, 0 })
		y.addTasks("job", "t", 300)
		most := 0
		for range 40 {
			time.Sleep(20 * time.Millisecond)
			page, err := y.Nodes(ctx(t), acct, "pool", control.Query{})
			y.check(err)
			for _, n := range page.Items {
				most = max(most, n.BoundTasks)
			}
		}
		if most < 5 || most > 65 {
			t.Errorf("a quick node held %d tasks at most", most)
		}
		time.Sleep(5 * time.Second)
		if counts := y.job("job").Counts; counts.Succeeded != 300 {
			t.Fatalf("counts are %+v", counts)
		}
		for id, r := range robots {
			for name, n := range r.runs {
				if n != 1 {
					t.Errorf("%s ran %s %d times", id, name, n)
				}
			}
		}
	})
}

// TestUrgentTasksPassWhatASlowNodeHolds has a node that was quick, and got much
// ahead of time, come to long tasks.
func TestUrgentTasksPassWhatASlowNodeHolds(t *testing.T) {
	t.Parallel()
	url := storetest.SQLite(t)
	synctest.Test(t, func(t *testing.T) {
		y := newYard(t, url)
		y.loops()
		y.prepare(1, 1)
		y.wanted(1)
		y.robots(1, func(o batch.TaskOrder) (time.Duration, int) {
			if strings.HasPrefix(string(o.Task), "short") {
				return 5 * time.Millisecond, 0
			}
			return 10 * time.Minute, 0
		})
		y.addTasks("job", "short", 60)
		y.addTasks("job", "long", 60)
		time.Sleep(20 * time.Second)
		if n := y.job("job").Bound; n < 2 {
			t.Fatalf("the node holds %d tasks: nothing was given ahead", n)
		}
		spec := jobSpec("urgent")
		spec.Priority = 100
		_, err := y.AddJob(ctx(t), acct, spec)
		y.check(err)
		y.addTasks("urgent", "u", 1)
		time.Sleep(11 * time.Minute)
		if state := y.task("urgent", "u-000").State; state != batch.TaskRunning {
			t.Errorf("after the one long task that ran the urgent one is %s", state)
		}
		time.Sleep(10 * time.Minute)
		if c := y.job("job").Counts; c.Succeeded < 61 || c.Failed != 0 {
			t.Errorf("the others do not go on: %+v", c)
		}
	})
}

func TestHeldTasksAreRecalledForAFreeNode(t *testing.T) {
	t.Parallel()
	url := storetest.SQLite(t)
	synctest.Test(t, func(t *testing.T) {
		y := newYard(t, url)
		y.prepare(0, 1)
		y.addTasks("job", "t", 3)
		busy := y.handNode()
		y.assign(busy, "t-000", "t-001", "t-002") // as if it had been quick
		busy.sync()
		busy.start("t-000")
		busy.sync()
		free := y.handNode()
		y.loops()
		synctest.Wait()
		busy.sync()
		if got := busy.of("t-002").release; got != batch.ReleaseUnstarted {
			t.Fatalf("the newest task is asked back as %q", got)
		}
		if got := busy.of("t-001").release; got != "" {
			t.Errorf("more is asked back than fits: t-001 as %q", got)
		}
		busy.of("t-002").Phase = batch.PhaseReleased
		busy.sync()
		synctest.Wait()
		task := y.task("job", "t-002")
		if task.Node != free.id || !task.Bound || task.ExecutionInfo.RequeueCount != 0 {
			t.Errorf("task is on %s, bound %v, requeued %d times", task.Node, task.Bound, task.ExecutionInfo.RequeueCount)
		}
		if orders := busy.sync(); len(orders.Removals) != 1 || orders.Removals[0].Task != "t-002" {
			t.Errorf("the first node keeps what is left of the task: %+v", orders.Removals)
		}
	})
}

func TestRetention(t *testing.T) {
	t.Parallel()
	url := storetest.SQLite(t)
	synctest.Test(t, func(t *testing.T) {
		y := newYard(t, url)
		y.loops()
		y.prepare(1, 1)
		y.wanted(1)
		y.robots(1, seconds(1))
		hour := batch.Hour
		y.addTasks("job", "t", 1, func(s *batch.TaskSpecification) { s.Constraints = &batch.TaskConstraints{RetentionTime: &hour} })
		time.Sleep(58 * time.Minute)
		if task := y.task("job", "t-000"); task.FilesRemoved {
			t.Error("files were removed too early")
		}
		time.Sleep(5 * time.Minute)
		task := y.task("job", "t-000")
		if !task.FilesRemoved || task.State != batch.TaskCompleted {
			t.Errorf("files removed %v, task %s", task.FilesRemoved, task.State)
		}
		_, err := y.OpenFile(ctx(t), control.FileTarget{Account: acct, Job: "job", Task: "t-000"}, batch.FileRequest{Op: batch.FileList})
		y.refused(err, batch.CodeTaskFilesCleanedup)
	})
}

func TestFilesOfAnotherRun(t *testing.T) {
	t.Parallel()
	url := storetest.SQLite(t)
	synctest.Test(t, func(t *testing.T) {
		y := newYard(t, url)
		y.prepare(0, 1)
		node := y.handNode()
		minute := batch.Minute
		y.addTasks("job", "t", 1, func(s *batch.TaskSpecification) { s.Constraints = &batch.TaskConstraints{RetentionTime: &minute} })
		run := func() {
			y.assign(node, "t-000")
			node.sync()
			node.start("t-000")
			node.sync()
		}
		run()
		node.end("t-000", 1)
		node.sync()
		time.Sleep(2 * time.Minute)
		_, err := y.RemoveExpiredFiles(ctx(t))
		y.check(err)
		node.sync()
		_, err = y.ReactivateTask(ctx(t), acct, "job", "t-000", batch.Conditions{})
		y.check(err)
		run()
		if task := y.task("job", "t-000"); task.FilesRemoved {
			t.Error("the files of a task that runs count as removed")
		}
		var request batch.FileRequest
		if home, err := y.FileHome(ctx(t), control.FileTarget{Account: acct, Job: "job", Task: "t-000"}, &request); err != nil || home != node.id {
			t.Errorf("its files are on %q (%v)", home, err)
		}
		node.end("t-000", 1)
		node.sync()
		time.Sleep(2 * time.Minute)
		_, err = y.RemoveExpiredFiles(ctx(t))
		y.check(err)
		if orders := node.sync(); len(orders.Removals) != 1 {
			t.Errorf("its folder stays: %+v", orders.Removals)
		}
	})
}
