package control_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/store"
	"github.com/batchyard/batchyard/store/storetest"
)

// never has the database refuse a change of a row.
func (y *yard) never(table, row, change string) {
	y.t.Helper()
	y.check(y.db.Update(ctx(y.t), func(tx *store.Tx) error {
		_, err := tx.Exec(`CREATE TRIGGER never_` + table + ` BEFORE UPDATE ON ` + table + `
			WHEN ` + row + ` AND ` + change + `
			BEGIN SELECT RAISE(ABORT, 'this row is broken'); END`)
		return err
	}))
}

func TestDutiesGoOnPastAnItemThatFails(t *testing.T) {
	t.Parallel()
	bubble := func(name string, test func(t *testing.T, y *yard)) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := storetest.SQLite(t)
			synctest.Test(t, func(t *testing.T) {
				y := newYard(t, url)
				y.prepare(0, 1)
				test(t, y)
			})
		})
	}
	bubble("jobs whose time is over", func(t *testing.T, y *yard) {
		for i := range 5 {
			spec := jobSpec(batch.JobID(fmt.Sprintf("limited-%d", i)))
			spec.Constraints = &batch.JobConstraints{MaxWallClockTime: new(batch.Minute)}
			_, err := y.AddJob(ctx(t), acct, spec)
			y.check(err)
		}
		y.never("job", "NEW.id = 'limited-2'", "NEW.state <> 'active'")
		y.loops()
		time.Sleep(5 * time.Minute)
		for i := range 5 {
			id := batch.JobID(fmt.Sprintf("limited-%d", i))
			if got := y.job(id).State == batch.JobCompleted; got != (i != 2) {
				t.Errorf("%s is completed: %v", id, got)
			}
		}
	})
	bubble("jobs that end", func(t *testing.T, y *yard) {
		for i := range 5 {
			id := batch.JobID(fmt.Sprintf("ending-%d", i))
			_, err := y.AddJob(ctx(t), acct, jobSpec(id))
			y.check(err)
			y.addTasks(id, "t", 600) // more than the verb ends itself
		}
		y.never("task", "NEW.job = 'ending-1' AND NEW.id = 't-599'", "NEW.state = 'completed'")
		for i := range 5 {
			_, err := y.TerminateJob(ctx(t), acct, batch.JobID(fmt.Sprintf("ending-%d", i)), "", batch.Conditions{})
			y.check(err)
		}
		y.loops()
		time.Sleep(5 * time.Minute)
		for i := range 5 {
			id := batch.JobID(fmt.Sprintf("ending-%d", i))
			if got := y.job(id).State == batch.JobCompleted; got != (i != 1) {
				t.Errorf("%s is completed: %v", id, got)
			}
		}
	})
	bubble("pools that grow", func(t *testing.T, y *yard) {
		for i := range 3 {
			_, err := y.AddPool(ctx(t), acct, poolSpec(batch.PoolID(fmt.Sprintf("grows-%d", i)), 1, 1))
			y.check(err)
		}
		y.never("pool", "NEW.id = 'grows-0'", "TRUE")
		y.loops()
		synctest.Wait()
		for i := range 3 {
			id := batch.PoolID(fmt.Sprintf("grows-%d", i))
			if got := len(y.nodesOf(id)); got != min(i, 1) {
				t.Errorf("%s has %d nodes", id, got)
			}
		}
	})
	bubble("files whose retention is over", func(t *testing.T, y *yard) {
		minute := batch.Minute
		y.addTasks("job", "t", 3, func(s *batch.TaskSpecification) { s.Constraints = &batch.TaskConstraints{RetentionTime: &minute} })
		node := y.handNode()
		for i := range 3 {
			id := batch.TaskID(fmt.Sprintf("t-%03d", i))
			y.assign(node, id)
			node.sync()
			node.end(id, 0)
			node.sync()
		}
		y.never("task", "NEW.id = 't-000'", "NEW.expires = 0")
		time.Sleep(2 * time.Minute)
		if _, err := y.RemoveExpiredFiles(ctx(t)); err == nil {
			t.Error("nobody hears of the task whose files are not removed")
		}
		for i := range 3 {
			id := batch.TaskID(fmt.Sprintf("t-%03d", i))
			if got := y.task("job", id).FilesRemoved; got != (i != 0) {
				t.Errorf("files of %s are removed: %v", id, got)
			}
		}
	})
	bubble("nodes that are silent", func(t *testing.T, y *yard) {
		nodes := []*script{y.handNode(), y.handNode(), y.handNode()}
		y.never("node", "NEW.id = '"+batch.Key(string(nodes[1].id))+"'", "NEW.state = 'unknown'")
		y.loops()
		time.Sleep(3 * time.Minute)
		for i, node := range nodes {
			n, err := y.Node(ctx(t), acct, "pool", node.id)
			y.check(err)
			if got := n.State == batch.NodeUnknown; got != (i != 1) {
				t.Errorf("node %d is given up: %v", i, got)
			}
		}
	})
}

func TestADeadNodeLeavesAPoolThatIsDeleted(t *testing.T) {
	t.Parallel()
	url := storetest.SQLite(t)
	synctest.Test(t, func(t *testing.T) {
		y := newYard(t, url)
		y.prepare(0, 1)
		node := y.handNode()
		y.check(y.NodeGone(ctx(t), node.id))
		y.loops()
		time.Sleep(5 * time.Minute)
		y.check(y.NodeGone(ctx(t), node.id)) // said again: it is unusable already
		y.check(y.DeleteJob(ctx(t), acct, "job", batch.Conditions{}))
		y.check(y.DeletePool(ctx(t), acct, "pool", batch.Conditions{}))
		time.Sleep(5 * time.Minute)
		_, err := y.Pool(ctx(t), acct, "pool")
		y.refused(err, batch.CodePoolNotFound)
	})
}
