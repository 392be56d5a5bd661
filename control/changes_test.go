package control_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/store"
	"github.com/batchyard/batchyard/store/storetest"
)

// changing is a node whose agent takes orders of changes, driven by hand.
type changing struct {
	*script
	epoch    string
	revision int64
	removals int64
}

// changing makes one of a node that is up.
func (y *yard) changing() *changing {
	y.t.Helper()
	c := &changing{script: y.handNode()}
	c.instance = "changing"
	first := c.say()
	first.Revision = 0
	c.apply(c.send(first))
	return c
}

// say is a report of these attempts only.
func (c *changing) say(tasks ...batch.TaskReport) batch.NodeReport {
	return batch.NodeReport{
		Revision: c.revision, Epoch: c.epoch, Settings: c.settings, Instance: c.instance, Boot: c.boot, Tasks: tasks,
		Changes: true, RemovalsTo: c.removals, RemovalRoom: 10, NoWait: true,
	}
}

func (c *changing) send(r batch.NodeReport) batch.NodeOrders {
	c.y.t.Helper()
	orders, err := c.y.Sync(ctx(c.y.t), c.id, c.token, r)
	c.y.check(err)
	return orders
}

// apply notes how far the node is.
func (c *changing) apply(o batch.NodeOrders) batch.NodeOrders {
	if o.Settings != nil {
		c.settings = o.Settings.Version
	}
	c.epoch, c.revision = o.Epoch, o.Revision
	for _, r := range o.Removals {
		c.removals = max(c.removals, r.ID)
	}
	return o
}

// over is the report that a task that was ordered has ended well.
func over(o batch.TaskOrder) batch.TaskReport {
	now := batch.At(time.Now())
	return batch.TaskReport{Job: o.Job, Task: o.Task, Attempt: o.Attempt, Phase: batch.PhaseEnded, Start: &now, Outcome: outcome(0, now)}
}

// named are the tasks that orders name, with a star for those that they say how
// to run.
func named(o batch.NodeOrders) []string {
	var names []string
	for _, t := range o.Tasks {
		name := string(t.Task)
		if t.Run != nil {
			name += "*"
		}
		names = append(names, name)
	}
	for _, t := range o.Dropped {
		names = append(names, "-"+string(t.Task))
	}
	return names
}

func (c *changing) want(o batch.NodeOrders, whole bool, names ...string) {
	c.y.t.Helper()
	if diff := cmp.Diff(names, named(o)); diff != "" || (o.Since == 0) != whole {
		c.y.t.Errorf("orders since %d:\n%s", o.Since, diff)
	}
}

func TestOrdersOfChanges(t *testing.T) {
	t.Parallel()
	prepared := func(t *testing.T) (*yard, *changing) {
		t.Helper()
		y := newYard(t, storetest.SQLite(t))
		y.prepare(0, 8)
		y.addTasks("job", "t", 6)
		return y, y.changing()
	}

	t.Run("say what is new, and that once", func(t *testing.T) {
		t.Parallel()
		y, node := prepared(t)
		y.assign(node.script, "t-000", "t-001")
		first := node.apply(node.send(node.say()))
		node.want(first, false, "t-000*", "t-001*")
		node.want(node.send(node.say()), false)
		y.assign(node.script, "t-002")
		// What the node itself says is over it is not told.
		node.want(node.apply(node.send(node.say(over(first.Tasks[0])))), false, "t-002*")
		_, err := y.TerminateTask(ctx(t), acct, "job", "t-001", batch.Conditions{})
		y.check(err)
		node.want(node.apply(node.send(node.say())), false, "-t-001")
		if counts := y.job("job").Counts; counts.Succeeded != 1 || counts.Failed != 1 {
			t.Errorf("counts are %+v", counts)
		}
	})

	t.Run("are said again when an answer was lost", func(t *testing.T) {
		t.Parallel()
		y, node := prepared(t)
		y.assign(node.script, "t-000")
		node.send(node.say()) // lost
		y.assign(node.script, "t-001")
		_, err := y.TerminateTask(ctx(t), acct, "job", "t-000", batch.Conditions{})
		y.check(err)
		orders := node.apply(node.send(node.say()))
		node.want(orders, false, "t-001*", "-t-000")
		// A result of which the receipt was lost is taken once.
		for range 3 {
			node.want(node.send(node.say(over(orders.Tasks[0]))), false)
		}
		if n := y.job("job").Counts.Succeeded; n != 1 {
			t.Errorf("%d succeeded", n)
		}
	})

	t.Run("take results also of a report that was overtaken", func(t *testing.T) {
		t.Parallel()
		y, node := prepared(t)
		y.assign(node.script, "t-000", "t-001")
		orders := node.apply(node.send(node.say()))
		earlier, later := node.say(over(orders.Tasks[0])), node.say(over(orders.Tasks[1]))
		earlier.Number, later.Number = 1, 2
		node.send(later)
		node.send(earlier)
		if n := y.job("job").Counts.Succeeded; n != 2 {
			t.Errorf("%d succeeded", n)
		}
	})

	t.Run("are the whole after a start of the server, for a new agent, and when it is asked for", func(t *testing.T) {
		t.Parallel()
		y, node := prepared(t)
		y.assign(node.script, "t-000", "t-001")
		orders := node.apply(node.send(node.say()))
		y.close()
		y.open()
		held := batch.TaskReport{Job: "job", Task: "t-000", Attempt: orders.Tasks[0].Attempt, Phase: batch.PhaseHeld}
		node.want(node.apply(node.send(node.say(held))), true, "t-000", "t-001*")
		whole := node.say(held)
		whole.Whole = true
		node.want(node.send(whole), true, "t-000", "t-001*")
		newer := node.say()
		newer.Instance, newer.Revision, newer.Epoch = "newer", 0, ""
		node.want(node.send(newer), true, "t-000*", "t-001*")
		_, err := y.Sync(ctx(t), node.id, node.token, node.say())
		y.refused(err, batch.CodeForbidden)
	})

	t.Run("go on naming what could not be taken", func(t *testing.T) {
		t.Parallel()
		y, node := prepared(t)
		y.assign(node.script, "t-000", "t-001")
		orders := node.apply(node.send(node.say()))
		y.refuse("t-001", "NEW.exit_code")
		node.want(node.send(node.say(over(orders.Tasks[0]), over(orders.Tasks[1]))), false, "t-001")
	})

	t.Run("ask for no more removals than the node takes", func(t *testing.T) {
		t.Parallel()
		y, node := prepared(t)
		var removals []store.Removal
		for i := range 25 {
			removals = append(removals, store.Removal{Node: node.id, ID: int64(i + 1), Job: "gone", Task: batch.TaskID(fmt.Sprint(i))})
		}
		y.check(y.db.Update(ctx(t), func(tx *store.Tx) error {
			if err := tx.AddRemovals(removals); err != nil {
				return err
			}
			return tx.RaiseRevisions([]batch.NodeID{node.id})
		}))
		for _, want := range []int{10, 10, 5, 0} {
			if got := len(node.apply(node.send(node.say())).Removals); got != want {
				t.Errorf("%d removals are asked for, want %d", got, want)
			}
		}
	})

	t.Run("ask first for removals where new tasks are to begin", func(t *testing.T) {
		t.Parallel()
		y, node := prepared(t)
		removals := []store.Removal{{Node: node.id, ID: 101, Job: "job", Task: "t-000"}, {Node: node.id, ID: 102, Job: "job"}, {Node: node.id, ID: 103, Job: "job", Task: "t-005"}}
		for i := range 25 {
			removals = append(removals, store.Removal{Node: node.id, ID: int64(i + 1), Job: "gone", Task: batch.TaskID(fmt.Sprint(i))})
		}
		y.check(y.db.Update(ctx(t), func(tx *store.Tx) error { return tx.AddRemovals(removals) }))
		want := []batch.Removal{{ID: 101, Job: "job", Task: "t-000"}, {ID: 102, Job: "job"}}
		y.assign(node.script, "t-000", "t-001")
		full := node.say()
		full.RemovalRoom = 0
		for _, report := range []batch.NodeReport{full, node.say()} {
			if diff := cmp.Diff(want, node.send(report).Ahead); diff != "" {
				t.Error(diff)
			}
		}
		whole := node.say()
		whole.Whole = true
		orders := node.send(whole)
		node.want(orders, true, "t-000*", "t-001*")
		if diff := cmp.Diff(want, orders.Ahead); diff != "" || len(orders.Removals) != 10 {
			t.Errorf("%d removals are in turn, ahead are\n%s", len(orders.Removals), diff)
		}
		old := batch.NodeReport{Settings: node.settings, Instance: node.instance, Boot: node.boot, NoWait: true}
		if orders := node.send(old); len(orders.Removals) < 28 || len(orders.Ahead) != 0 {
			t.Errorf("an agent that knows of none ahead is asked for %+v", orders.Removals)
		}
	})

	t.Run("do not end a wait with what the node has said or was told", func(t *testing.T) {
		t.Parallel()
		url := storetest.SQLite(t)
		synctest.Test(t, func(t *testing.T) {
			y := newYard(t, url)
			y.prepare(0, 8)
			y.addTasks("job", "t", 3)
			node := y.changing()
			y.assign(node.script, "t-000")
			orders := node.apply(node.send(node.say()))
			waiting := node.say()
			waiting.NoWait = false
			answers, began := make(chan batch.NodeOrders, 1), time.Now()
			go func() {
				orders, err := y.Sync(t.Context(), node.id, node.token, waiting)
				if err != nil {
					t.Error(err)
				}
				answers <- orders
			}()
			synctest.Wait()
			node.apply(node.send(node.say(over(orders.Tasks[0]))))
			time.Sleep(5 * time.Second)
			select {
			case got := <-answers:
				t.Fatalf("it is answered with %v", named(got))
			default:
			}
			y.assign(node.script, "t-001")
			node.want(<-answers, false, "t-001*")
			if after := time.Since(began); after != 5*time.Second {
				t.Errorf("answered after %v", after)
			}
		})
	})
}
