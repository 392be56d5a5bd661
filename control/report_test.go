package control_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/store"
	"github.com/batchyard/batchyard/store/storetest"
)

// reporting is a yard whose node runs t-000 to t-002, on each database.
func reporting(t *testing.T, test func(t *testing.T, y *yard, node *script)) {
	t.Helper()
	storetest.Each(t, func(t *testing.T, url string) {
		y := newYard(t, url)
		y.prepare(0, 3)
		node := y.handNode()
		y.addTasks("job", "t", 3)
		y.assign(node, "t-000", "t-001", "t-002")
		node.sync()
		for i := range 3 {
			node.end(batch.TaskID(fmt.Sprintf("t-%03d", i)), 0)
		}
		test(t, y, node)
	})
}

func TestTextsOfNodesCanBeKept(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("é", 3000)
	reporting(t, func(t *testing.T, y *yard, node *script) {
		bad := node.of("t-001")
		bad.Outcome.Failure = &batch.FailureInfo{
			Category: batch.UserError, Code: batch.FailureProgramNotFound, Message: "nul \x00 and \xff",
			Details: []batch.NameValue{{Name: "CommandLine", Value: "nosuchprogram1 " + long}, {Name: "\x00", Value: "\xc3"}},
		}
		bad.Outcome.End = batch.At(time.Date(12026, 1, 1, 0, 0, 0, 0, time.UTC))
		report := node.report()
		report.Agent = &batch.AgentInfo{Version: "x" + long, IPAddress: "\x00\xff"}
		report.Errors = []batch.NodeError{{Code: "\x00", Message: "x" + long, ErrorDetails: []batch.NameValue{{Name: "\xff", Value: long}}}}
		report.Boot, report.Booting = 0, true
		report.StartTask = &batch.StartTaskInfo{
			State: batch.StartTaskCompleted, Result: "\x00",
			FailureInfo: &batch.FailureInfo{Category: batch.UserError, Message: "\x00" + long},
		}
		_, err := y.Sync(ctx(t), node.id, node.token, report)
		y.check(err)
		for _, id := range []batch.TaskID{"t-000", "t-001", "t-002"} {
			if task := y.task("job", id); task.State != batch.TaskCompleted {
				t.Errorf("%s is %s", id, task.State)
			}
		}
		info := y.task("job", "t-001").ExecutionInfo
		value := info.FailureInfo.Details[0].Value
		if !utf8.ValidString(value) || len(value) < 4090 || len(value) > 4096 || info.EndTime.Year() > 9999 {
			t.Errorf("%d bytes are kept, valid: %v, end %v", len(value), utf8.ValidString(value), info.EndTime)
		}
		n, err := y.Node(ctx(t), acct, "pool", node.id)
		y.check(err)
		if !utf8.ValidString(n.AgentVersion) || n.StartTaskInfo == nil || len(n.Errors) != 1 {
			t.Errorf("agent %q, start task %v, %d errors", n.AgentVersion, n.StartTaskInfo, len(n.Errors))
		}
	})
}

// refuse has the database refuse to complete a task with an exit code.
func (y *yard) refuse(task batch.TaskID, exitCode string) {
	y.t.Helper()
	y.check(y.db.Update(ctx(y.t), func(tx *store.Tx) error {
		_, err := tx.Exec(`
			CREATE TRIGGER refuse BEFORE UPDATE ON task
			WHEN NEW.id = '` + string(task) + `' AND NEW.state = 'completed' AND NEW.exit_code IS ` + exitCode + `
			BEGIN SELECT RAISE(ABORT, 'this cannot be kept'); END`)
		return err
	}))
}

func TestAnItemThatCannotBeKept(t *testing.T) {
	t.Parallel()
	t.Run("is a failure of its task and of no other", func(t *testing.T) {
		t.Parallel()
		y, node := ended(t)
		y.refuse("t-001", "0")
		if orders := node.sync(); len(orders.Tasks) != 0 {
			t.Errorf("orders still name %+v", orders.Tasks)
		}
		if task := y.task("job", "t-001"); task.State != batch.TaskCompleted || task.ExecutionInfo.FailureInfo.Code != batch.FailureResultUnknown {
			t.Errorf("the task is %s, %+v", task.State, task.ExecutionInfo.FailureInfo)
		}
		want := batch.TaskCounts{Succeeded: 2, SucceededSlots: 2, Failed: 1, FailedSlots: 1}
		if counts := y.job("job").Counts; counts != want {
			t.Errorf("counts are %+v", counts)
		}
	})
	t.Run("in no way at all keeps no other result from being taken", func(t *testing.T) {
		t.Parallel()
		y, node := ended(t)
		y.refuse("t-001", "NEW.exit_code")
		if orders := node.sync(); len(orders.Tasks) != 1 || orders.Tasks[0].Task != "t-001" {
			t.Errorf("orders name %+v", orders.Tasks)
		}
		if counts := y.job("job").Counts; counts.Succeeded != 2 || counts.Running+counts.Active != 1 {
			t.Errorf("counts are %+v", counts)
		}
	})
}

func ended(t *testing.T) (*yard, *script) {
	t.Helper()
	y := newYard(t, storetest.SQLite(t))
	y.prepare(0, 3)
	node := y.handNode()
	y.addTasks("job", "t", 3)
	y.assign(node, "t-000", "t-001", "t-002")
	node.sync()
	for i := range 3 {
		node.end(batch.TaskID(fmt.Sprintf("t-%03d", i)), 0)
	}
	return y, node
}

func TestManyReceipts(t *testing.T) {
	t.Parallel()
	y := newYard(t, storetest.SQLite(t))
	y.prepare(0, 1)
	node := y.handNode()
	const many = 5000
	removals := make([]store.Removal, many)
	for i := range removals {
		removals[i] = store.Removal{Node: node.id, ID: int64(i + 1), Job: "gone", Task: batch.TaskID(fmt.Sprintf("t-%d", i))}
	}
	y.check(y.db.Update(ctx(t), func(tx *store.Tx) error {
		if err := tx.AddRemovals(removals); err != nil {
			return err
		}
		return tx.RaiseRevisions([]batch.NodeID{node.id})
	}))
	done := 0
	for round := 0; done < many; round++ {
		orders := node.sync()
		if len(orders.Removals) > 1000 {
			t.Fatalf("%d removals are asked for at once", len(orders.Removals))
		}
		if round > 20 {
			t.Fatalf("after %d rounds %d are done", round, done)
		}
		done += len(orders.Removals)
	}
	if orders := node.sync(); len(orders.Removals) != 0 {
		t.Errorf("%d removals that are done are asked for again", len(orders.Removals))
	}
	// One who has done more than fits is not turned away, and says the rest later.
	report := node.report()
	for i := range many {
		report.Removed = append(report.Removed, int64(i))
	}
	_, err := y.Sync(ctx(t), node.id, node.token, report)
	y.check(err)
}

// TestNobodyIsLostWhileTheDatabaseDoesNotAnswer has the database busy for longer
// than a node may be silent: nobody can be heard meanwhile.
func TestNobodyIsLostWhileTheDatabaseDoesNotAnswer(t *testing.T) {
	t.Parallel()
	url := storetest.SQLite(t)
	synctest.Test(t, func(t *testing.T) {
		y := newYard(t, url)
		y.prepare(0, 1)
		node := y.handNode()
		y.addTasks("job", "t", 1)
		y.assign(node, "t-000")
		node.sync()
		y.loops()
		time.Sleep(time.Minute)
		y.check(y.db.Update(ctx(t), func(*store.Tx) error { time.Sleep(time.Minute); return nil }))
		synctest.Wait()
		node.end("t-000", 0)
		node.sync()
		n, err := y.Node(ctx(t), acct, "pool", node.id)
		y.check(err)
		if task := y.task("job", "t-000"); task.State != batch.TaskCompleted || task.ExecutionInfo.RequeueCount != 0 || n.State == batch.NodeUnknown {
			t.Errorf("the task is %s, requeued %d times, and the node %s", task.State, task.ExecutionInfo.RequeueCount, n.State)
		}
		time.Sleep(3 * time.Minute)
		if n, err = y.Node(ctx(t), acct, "pool", node.id); err != nil || n.State != batch.NodeUnknown {
			t.Errorf("silent for three minutes the node is %s, %v", n.State, err)
		}
	})
}

func TestAFailedCallIsNoContact(t *testing.T) {
	t.Parallel()
	url := storetest.SQLite(t)
	synctest.Test(t, func(t *testing.T) {
		y := newYard(t, url)
		y.prepare(0, 1)
		node := y.handNode()
		y.addTasks("job", "t", 1)
		y.assign(node, "t-000")
		node.sync()
		y.check(y.db.Update(ctx(t), func(tx *store.Tx) error {
			_, err := tx.Exec(`
				CREATE TRIGGER refuse BEFORE UPDATE ON node WHEN NEW.ip = '10.1.1.1'
				BEGIN SELECT RAISE(ABORT, 'this cannot be kept'); END`)
			return err
		}))
		y.loops()
		for range 12 {
			time.Sleep(10 * time.Second)
			report := node.report()
			report.Agent = &batch.AgentInfo{IPAddress: "10.1.1.1"}
			if _, err := y.Sync(ctx(t), node.id, node.token, report); err == nil {
				t.Fatal("the report was taken")
			}
		}
		synctest.Wait()
		n, err := y.Node(ctx(t), acct, "pool", node.id)
		y.check(err)
		if n.State != batch.NodeUnknown || n.BoundTasks != 0 {
			t.Errorf("after two minutes of failed calls the node is %s and holds %d", n.State, n.BoundTasks)
		}
	})
}
