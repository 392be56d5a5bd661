package scheduler_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/control"
	"github.com/batchyard/batchyard/scheduler"
	"github.com/batchyard/batchyard/store"
)

func noon() time.Time { return time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC) }

// The helpers write snapshots in a line: node "a" with 4 slots of which 1 is
// taken, job "j" of priority 0 without limits, task "t" of "j".
func node(id string, slots, taken int) store.NodeSlots {
	return store.NodeSlots{Node: batch.NodeID(id), Slots: slots, BoundSlots: taken, Bound: taken}
}

// quick is a node for which it is worth having so many slots of work wait.
func quick(id string, slots, taken int, ahead float64) store.NodeSlots {
	n := node(id, slots, taken)
	n.Ahead, n.AheadTime = ahead, noon()
	return n
}

func job(id string, priority, limit int, bound int64) scheduler.Job {
	return scheduler.Job{Job: batch.JobID(id), Priority: priority, MaxParallel: limit, Bound: bound}
}

// ready is a task; its sequence is the number in its id.
func ready(job, id string, slots int) store.ReadyTask {
	var seq int64
	_, _ = fmt.Sscanf(id, "t%d", &seq)
	return store.ReadyTask{TaskRef: store.TaskRef{Job: batch.JobID(job), Task: batch.TaskID(id)}, Sequence: seq, Slots: slots}
}

func near(t store.ReadyTask, node string) store.ReadyTask {
	t.Affinity = node
	return t
}

func held(node, id string, slots int, recalled bool) scheduler.HeldTask {
	t := ready("j", id, slots)
	return scheduler.HeldTask{TaskRef: t.TaskRef, Node: batch.NodeID(node), Sequence: t.Sequence, Slots: slots, Recalled: recalled}
}

// say writes decisions as "t1→a t2→b" and recalls as "t1←a".
func say(d control.Decision) string {
	var words []string
	for _, a := range d.Assign {
		words = append(words, fmt.Sprintf("%s→%s", a.Task, a.Node))
	}
	for _, r := range d.Recall {
		words = append(words, fmt.Sprintf("%s←%s", r.Task, r.Node))
	}
	return strings.Join(words, " ")
}

func TestPlan(t *testing.T) {
	t.Parallel()
	one := []scheduler.Job{job("j", 0, -1, 0)}
	for name, c := range map[string]struct {
		snapshot scheduler.Snapshot
		want     string
	}{
		"nothing to do": {scheduler.Snapshot{Nodes: []store.NodeSlots{node("a", 1, 0)}}, ""},
		"spread takes the emptiest node": {
			scheduler.Snapshot{
				Nodes: []store.NodeSlots{node("a", 4, 2), node("b", 4, 1)}, Jobs: one,
				Tasks: []store.ReadyTask{ready("j", "t1", 1), ready("j", "t2", 1), ready("j", "t3", 1)},
			}, "t1→b t2→a t3→b",
		},
		"pack takes the fullest that has room": {
			scheduler.Snapshot{
				Fill: batch.FillPack, Nodes: []store.NodeSlots{node("a", 4, 2), node("b", 4, 1)}, Jobs: one,
				Tasks: []store.ReadyTask{ready("j", "t1", 1), ready("j", "t2", 2), ready("j", "t3", 1)},
			}, "t1→a t2→b t3→a",
		},
		"priority goes first, then age": {
			scheduler.Snapshot{
				Nodes: []store.NodeSlots{node("a", 2, 0)}, Jobs: []scheduler.Job{job("low", -5, -1, 0), job("j", 0, -1, 0), job("k", 0, -1, 0)},
				Tasks: []store.ReadyTask{ready("low", "t1", 1), ready("j", "t4", 1), ready("k", "t3", 1), ready("j", "t5", 1)},
			}, "t3→a t4→a",
		},
		"no more of a job than it may run": {
			scheduler.Snapshot{
				Nodes: []store.NodeSlots{node("a", 4, 0)}, Jobs: []scheduler.Job{job("j", 0, 3, 2), job("k", -1, -1, 0)},
				Tasks: []store.ReadyTask{ready("j", "t1", 1), ready("j", "t2", 1), ready("k", "t3", 1)},
			}, "t1→a t3→a",
		},
		"affinity is followed while there is room": {
			scheduler.Snapshot{
				Nodes: []store.NodeSlots{node("a", 1, 0), node("b", 4, 0)}, Jobs: one,
				Tasks: []store.ReadyTask{near(ready("j", "t1", 1), "a"), near(ready("j", "t2", 1), "a"), near(ready("j", "t3", 1), "gone")},
			}, "t1→a t2→b t3→b",
		},
		"a large task reserves a node": {
			scheduler.Snapshot{
				Nodes: []store.NodeSlots{node("a", 4, 1), node("b", 4, 3)}, Jobs: one,
				Tasks: []store.ReadyTask{ready("j", "t1", 4), ready("j", "t2", 1), ready("j", "t3", 1)},
			}, "t2→b",
		},
		"one whose job is full does so no more": {
			scheduler.Snapshot{
				Nodes: []store.NodeSlots{node("a", 4, 1), node("b", 4, 3)}, Jobs: []scheduler.Job{job("j", 0, 1, 0), job("k", 0, -1, 0)},
				Tasks: []store.ReadyTask{ready("j", "t1", 4), ready("k", "t2", 4), ready("j", "t3", 1), ready("k", "t4", 1)},
			}, "t3→b",
		},
		"and others have the node": {
			scheduler.Snapshot{
				Nodes: []store.NodeSlots{node("a", 4, 1), node("b", 4, 3)}, Jobs: []scheduler.Job{job("j", 0, 1, 0), job("k", 0, -1, 0)},
				Tasks: []store.ReadyTask{ready("j", "t1", 4), ready("k", "t2", 2), ready("j", "t3", 1), ready("k", "t4", 1)},
			}, "t3→b t2→a t4→a",
		},
		"one that fits no node at all does not": {
			scheduler.Snapshot{
				Nodes: []store.NodeSlots{node("a", 2, 0)}, Jobs: one,
				Tasks: []store.ReadyTask{ready("j", "t1", 4), ready("j", "t2", 1)},
			}, "t2→a",
		},
		"a full pool of slow nodes gets nothing": {
			scheduler.Snapshot{Nodes: []store.NodeSlots{quick("a", 1, 1, 0.5)}, Jobs: one, Tasks: []store.ReadyTask{ready("j", "t1", 1)}}, "",
		},
		"a quick node holds what is worth it": {
			scheduler.Snapshot{
				Nodes: []store.NodeSlots{quick("a", 1, 1, 3)}, Jobs: one,
				Tasks: []store.ReadyTask{ready("j", "t1", 1), ready("j", "t2", 1), ready("j", "t3", 1), ready("j", "t4", 1)},
			}, "t1→a t2→a t3→a",
		},
		"and is filled up at half": {
			scheduler.Snapshot{
				Nodes: []store.NodeSlots{quick("a", 1, 4, 4), quick("b", 1, 3, 4)}, Jobs: one,
				Tasks: []store.ReadyTask{ready("j", "t1", 1), ready("j", "t2", 1), ready("j", "t3", 1), ready("j", "t4", 1)},
			}, "t1→b t2→b",
		},
		"too few tasks are shared out": {
			scheduler.Snapshot{
				Nodes: []store.NodeSlots{quick("a", 1, 1, 10), quick("b", 1, 1, 10)}, Jobs: one,
				Tasks: []store.ReadyTask{ready("j", "t1", 1), ready("j", "t2", 1), ready("j", "t3", 1), ready("j", "t4", 1)},
			}, "t1→a t2→a t3→b t4→b",
		},
		"held tasks come back for a free node, the newest first": {
			scheduler.Snapshot{
				Nodes: []store.NodeSlots{node("a", 1, 3), node("b", 1, 0)},
				Held:  []scheduler.HeldTask{held("a", "t1", 1, false), held("a", "t2", 1, false), held("a", "t3", 1, false)},
			}, "t3←a",
		},
		"nodes that came to long tasks give back all that only waits there": {
			scheduler.Snapshot{
				Nodes: []store.NodeSlots{node("a", 1, 3), node("b", 2, 3)},
				Slow: []scheduler.HeldTask{
					held("a", "t1", 1, false), held("a", "t2", 1, true), held("a", "t3", 1, false),
					held("b", "t4", 1, false), held("b", "t5", 1, false),
				},
			}, "t5←b t3←a",
		},
		"not those for which their node has slots": {
			scheduler.Snapshot{
				Nodes: []store.NodeSlots{node("a", 2, 3), node("b", 4, 0)},
				Held:  []scheduler.HeldTask{held("a", "t1", 1, false), held("a", "t2", 1, false), held("a", "t3", 1, false)},
			}, "t3←a",
		},
		"not more than what is not coming back already": {
			scheduler.Snapshot{
				Nodes: []store.NodeSlots{node("a", 1, 3), node("b", 1, 0)},
				Held:  []scheduler.HeldTask{held("a", "t2", 1, false), held("a", "t3", 1, true)},
			}, "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(c.want, say(scheduler.Plan(c.snapshot, noon()))); diff != "" {
				t.Error(diff)
			}
		})
	}

	t.Run("what is worth it fades", func(t *testing.T) {
		t.Parallel()
		s := scheduler.Snapshot{Nodes: []store.NodeSlots{quick("a", 1, 1, 3)}, Jobs: one, Tasks: []store.ReadyTask{ready("j", "t1", 1)}}
		if got := say(scheduler.Plan(s, noon().Add(3*time.Second))); got != "" {
			t.Errorf("three seconds later: %s", got)
		}
	})
}

// pools draws any snapshot.
func pools() *rapid.Generator[scheduler.Snapshot] {
	return rapid.Custom(func(t *rapid.T) scheduler.Snapshot {
		s := scheduler.Snapshot{Fill: rapid.SampledFrom([]batch.NodeFillType{batch.FillSpread, batch.FillPack}).Draw(t, "fill")}
		slots := rapid.IntRange(1, 6).Draw(t, "slots")
		for i := range rapid.IntRange(0, 6).Draw(t, "nodes") {
			n := quick(fmt.Sprintf("n%d", i), slots, rapid.IntRange(0, 2*slots).Draw(t, "taken"), float64(rapid.IntRange(0, 90).Draw(t, "ahead")))
			s.Nodes = append(s.Nodes, n)
		}
		jobs := rapid.IntRange(1, 4).Draw(t, "jobs")
		for i := range jobs {
			s.Jobs = append(s.Jobs, job(fmt.Sprintf("j%d", i), rapid.IntRange(-1, 1).Draw(t, "priority"),
				rapid.SampledFrom([]int{-1, 1, 2, 5}).Draw(t, "limit"), int64(rapid.IntRange(0, 5).Draw(t, "bound"))))
		}
		for i := range rapid.IntRange(0, 30).Draw(t, "tasks") {
			task := ready(fmt.Sprintf("j%d", rapid.IntRange(0, jobs-1).Draw(t, "job")), fmt.Sprintf("t%d", i), rapid.IntRange(1, slots).Draw(t, "needs"))
			if rapid.IntRange(0, 3).Draw(t, "near") == 0 {
				task.Affinity = fmt.Sprintf("n%d", rapid.IntRange(0, 7).Draw(t, "which"))
			}
			s.Tasks = append(s.Tasks, task)
		}
		return s
	})
}

func TestPlanKeepsItsRules(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := pools().Draw(t, "pool")
		d := scheduler.Plan(s, noon())
		free, tasks, jobs := map[batch.NodeID]int{}, map[batch.TaskID]store.ReadyTask{}, map[batch.JobID]scheduler.Job{}
		anyFree := false
		for _, n := range s.Nodes {
			free[n.Node] = n.Slots - n.BoundSlots
			anyFree = anyFree || free[n.Node] > 0
		}
		for _, task := range s.Tasks {
			tasks[task.Task] = task
		}
		for _, j := range s.Jobs {
			jobs[j.Job] = j
		}
		taken := map[batch.JobID]int64{}
		given := map[batch.NodeID]int{}
		for _, a := range d.Assign {
			task, waits := tasks[a.Task]
			if !waits {
				t.Fatalf("%s was given away twice or never waited", a.Task)
			}
			delete(tasks, a.Task)
			if _, there := free[a.Node]; !there {
				t.Fatalf("%s was given to %s, which is not there", a.Task, a.Node)
			}
			if left := free[a.Node]; left > 0 && left < task.Slots && anyFree {
				t.Fatalf("%s needs %d slots and %s has %d", a.Task, task.Slots, a.Node, left)
			}
			free[a.Node] -= task.Slots
			given[a.Node] += task.Slots
			taken[a.Job]++
			if j := jobs[a.Job]; j.MaxParallel >= 0 && j.Bound+taken[a.Job] > int64(j.MaxParallel) {
				t.Fatalf("%s is one more than its job may run", a.Task)
			}
		}
		checkAhead(t, s, free, given)
		checkOrder(t, s, d, tasks, jobs, taken)
	})
}

// checkAhead holds the rules of what is bound beyond the slots.
func checkAhead(t *rapid.T, s scheduler.Snapshot, free, given map[batch.NodeID]int) {
	full := true
	for _, n := range s.Nodes {
		full = full && free[n.Node] <= 0
	}
	for _, n := range s.Nodes {
		if free[n.Node] >= 0 || given[n.Node] == 0 {
			continue
		}
		if !full {
			t.Fatalf("%s was given more than it has slots for while another node has some", n.Node)
		}
		if limit := int(n.Ahead) + 6; -free[n.Node] > limit {
			t.Fatalf("%s has %d slots of work waiting of which %v are worth it", n.Node, -free[n.Node], n.Ahead)
		}
	}
}

// checkOrder holds that no task waits while one that is less urgent and needs
// as much got a slot.
func checkOrder(t *rapid.T, s scheduler.Snapshot, d control.Decision, left map[batch.TaskID]store.ReadyTask, jobs map[batch.JobID]scheduler.Job, taken map[batch.JobID]int64) {
	priority := func(job batch.JobID) int { return jobs[job].Priority }
	for _, task := range left {
		if j := jobs[task.Job]; j.MaxParallel >= 0 && j.Bound+taken[task.Job] >= int64(j.MaxParallel) {
			continue
		}
		for _, a := range d.Assign {
			at := slices.IndexFunc(s.Tasks, func(t store.ReadyTask) bool { return t.Task == a.Task })
			got := s.Tasks[at]
			less := priority(got.Job) < priority(task.Job) || priority(got.Job) == priority(task.Job) && got.Sequence > task.Sequence
			if less && got.Slots >= task.Slots && got.Affinity == "" {
				t.Fatalf("%s waits while %s, which is less urgent, got %s", task.Task, a.Task, a.Node)
			}
		}
	}
}
