package control_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/control"
	"github.com/batchyard/batchyard/store/storetest"
)

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

	t.Run("a node keeps files without a limit until somebody removes them", func(t *testing.T) {
		t.Parallel()
		url := storetest.SQLite(t)
		synctest.Test(t, func(t *testing.T) {
			y := newYard(t, url)
			y.prepare(0, 1)
			unlimited := batch.Unlimited
			y.addTasks("job", "t", 2, func(s *batch.TaskSpecification) { s.Constraints = &batch.TaskConstraints{RetentionTime: &unlimited} })
			first, second := y.handNode(), y.handNode()
			for id, node := range map[batch.TaskID]*script{"t-000": first, "t-001": second} {
				y.assign(node, id)
				node.sync()
				node.end(id, 0)
				node.sync()
			}
			removal := batch.NodeRemoval{NodeList: []batch.NodeID{first.id, second.id}, NodeDeallocationOption: batch.DeallocateRetainedData}
			_, err := y.RemoveNodes(ctx(t), acct, "pool", removal, batch.Conditions{})
			y.check(err)
			for range 3 {
				if first.sync().Leave || second.sync().Leave {
					t.Fatal("a node is to leave with files that are kept")
				}
				time.Sleep(24 * time.Hour)
			}
			n, err := y.Node(ctx(t), acct, "pool", first.id)
			y.check(err)
			if troubles := n.Troubles(); len(troubles) != 1 || troubles[0].Code != batch.NoticeRetained {
				t.Errorf("the node does not say why it stays: %+v", troubles)
			}
			y.check(y.DeleteTask(ctx(t), acct, "job", "t-000", batch.Conditions{}))
			time.Sleep(2 * time.Minute)
			first.sync()
			if !first.sync().Leave || second.sync().Leave {
				t.Errorf("after its task was deleted the first is to leave: %v, the second: %v", first.orders.Leave, second.orders.Leave)
			}
			_, err = y.StopResize(ctx(t), acct, "pool", batch.Conditions{})
			y.check(err)
			y.check(y.StepPool(ctx(t), acct, "pool", func(*batch.Pool, []batch.Node, time.Time) control.PoolStep {
				return control.PoolStep{Settle: true}
			}))
			removal.NodeDeallocationOption = batch.DeallocateRequeue
			_, err = y.RemoveNodes(ctx(t), acct, "pool", removal, batch.Conditions{})
			y.check(err)
			if !second.sync().Leave {
				t.Error("the second is not to leave although it was removed by hand")
			}
		})
	})

	t.Run("it says that it is unfit", func(t *testing.T) {
		t.Parallel()
		y, node := running(t)
		show := func() batch.Node {
			n, err := y.Node(ctx(t), acct, "pool", node.id)
			y.check(err)
			return n
		}
		full := batch.NodeError{Code: "DiskFull", Message: strings.Repeat("é", 2000)}
		node.errors, node.unfit = []batch.NodeError{full}, true
		node.of("t-002").Phase = batch.PhaseReleased
		node.end("t-000", 0)
		node.sync()
		n := show()
		if n.State != batch.NodeUnusable || len(n.Errors) != 1 || n.Errors[0].Code != full.Code || n.RunningTasks != 1 {
			t.Errorf("node is %s with %d running and %+v", n.State, n.RunningTasks, n.Errors)
		}
		if text := n.Errors[0].Message; len(text) != 1024 || !utf8.ValidString(text) {
			t.Errorf("its message has %d bytes", len(text))
		}
		if n := y.assign(node, "t-002", "t-003"); n != 0 {
			t.Error("the node still takes tasks")
		}
		node.end("t-001", 0)
		node.sync()
		if n := show(); n.State != batch.NodeUnusable {
			t.Errorf("without tasks the node is %s", n.State)
		}

		node.unfit = false
		node.sync()
		if n := show(); n.State != batch.NodeIdle || len(n.Errors) != 1 {
			t.Errorf("fit again the node is %s with %d errors", n.State, len(n.Errors))
		}
		if n := y.assign(node, "t-002"); n != 1 {
			t.Error("fit again the node takes no tasks")
		}
		node.errors = nil
		node.sync()
		if n := show(); len(n.Errors) != 0 {
			t.Errorf("errors stay: %+v", n.Errors)
		}
	})

	t.Run("it is unfit and then silent", func(t *testing.T) {
		t.Parallel()
		url := storetest.SQLite(t)
		synctest.Test(t, func(t *testing.T) {
			y := newYard(t, url)
			y.prepare(0, 1)
			node := y.handNode()
			node.unfit = true
			node.sync()
			if got := state(y, node); got != batch.NodeUnusable {
				t.Fatalf("node is %s", got)
			}
			y.loops()
			time.Sleep(2 * time.Minute)
			if got := state(y, node); got != batch.NodeUnknown {
				t.Errorf("without contact the node is %s", got)
			}
			node.unfit = false
			node.sync()
			if got := state(y, node); got != batch.NodeIdle {
				t.Errorf("heard again the node is %s", got)
			}
			node.unfit = true
			node.sync()
			y.check(y.NodeGone(ctx(t), node.id))
			if n := y.assign(node, "t-000"); n != 0 {
				t.Error("a node that is gone takes tasks")
			}
			_, err := y.OpenFile(ctx(t), control.FileTarget{Account: acct, Pool: "pool", Node: node.id}, batch.FileRequest{Op: batch.FileList})
			y.refused(err, batch.CodeNodeNotReady)
		})
	})

	t.Run("its provider says why it does not come up", func(t *testing.T) {
		t.Parallel()
		y := newYard(t, storetest.SQLite(t))
		y.prepare(0, 1)
		y.check(y.StepPool(ctx(t), acct, "pool", func(*batch.Pool, []batch.Node, time.Time) control.PoolStep {
			return control.PoolStep{AddDedicated: 1}
		}))
		id := y.nodesOf("pool")[0]
		for _, word := range []string{"certificate \xff unknown", "no route to host"} {
			noted, err := y.NodeNotHeard(ctx(t), id, word)
			y.check(err)
			n, err := y.Node(ctx(t), acct, "pool", id)
			y.check(err)
			if troubles := n.Troubles(); !noted || len(troubles) != 1 || troubles[0].Code != batch.NoticeNotHeard ||
				!strings.Contains(troubles[0].Message, batch.Printable(word, 100)) {
				t.Errorf("the node shows %+v", troubles)
			}
		}
		node := y.script(id)
		node.sync()
		n, err := y.Node(ctx(t), acct, "pool", id)
		y.check(err)
		if troubles := n.Troubles(); len(troubles) != 0 {
			t.Errorf("heard, the node shows %+v", troubles)
		}
		if noted, err := y.NodeNotHeard(ctx(t), id, "late"); err != nil || noted {
			t.Errorf("it is noted of a node that was heard (%v)", err)
		}
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
