package control_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/control"
	"github.com/batchyard/batchyard/store/storetest"
)

// TestNoTaskWaitsBesideAFreeSlot fires random verbs at a yard whose nodes work,
// and looks after each, when all is quiet, for tasks that wait although a node
// has room: nobody was told to look, for only one node may be set aside.
func TestNoTaskWaitsBesideAFreeSlot(t *testing.T) {
	t.Parallel()
	seeds, steps := uint64(6), 300
	if raced {
		seeds, steps = 1, 120
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			url := storetest.SQLite(t)
			synctest.Test(t, func(t *testing.T) {
				h := newHaste(t, url, seed)
				for step := range steps {
					what := "a while"
					if step%2 == 0 {
						what = h.act()
					} else {
						time.Sleep(time.Duration(h.IntN(2500)) * time.Millisecond)
					}
					synctest.Wait()
					if fault := h.idle(); fault != "" {
						t.Fatalf("step %d, after %s: %s", step, what, fault)
					}
				}
			})
		})
	}
}

// haste is a yard with two pools and some jobs, to which anything happens.
type haste struct {
	*yard
	*rand.Rand
	pools map[batch.PoolID]int // slots of a node
	jobs  []batch.JobID
	added int
}

func newHaste(t *testing.T, url string, seed uint64) *haste {
	t.Helper()
	h := &haste{yard: newYard(t, url), Rand: rand.New(rand.NewPCG(seed, 0)), pools: map[batch.PoolID]int{"pool": 6, "pack": 4}}
	h.loops()
	for _, spec := range []batch.PoolSpecification{poolSpec("pool", 2, 6), poolSpec("pack", 2, 4)} {
		if spec.ID == "pack" {
			spec.TaskSchedulingPolicy = &batch.TaskSchedulingPolicy{NodeFillType: batch.FillPack}
		}
		_, err := h.AddPool(ctx(t), acct, spec)
		h.check(err)
	}
	h.wanted(4)
	lengths := rand.New(rand.NewPCG(seed, 1))
	length := func(batch.TaskOrder) (time.Duration, int) {
		return time.Duration(1+lengths.IntN(20)) * time.Second, lengths.IntN(2)
	}
	for pool, slots := range h.pools {
		for _, id := range h.nodesOf(pool) {
			h.robot(id, slots, length)
		}
	}
	for i := range 4 {
		h.jobs = append(h.jobs, batch.JobID(fmt.Sprintf("job%d", i)))
		h.addJob(h.jobs[i])
	}
	time.Sleep(time.Minute)
	return h
}

func (h *haste) pool() batch.PoolID {
	if h.IntN(2) == 0 {
		return "pool"
	}
	return "pack"
}

func (h *haste) addJob(id batch.JobID) {
	spec := jobSpec(id)
	spec.PoolInfo.PoolID, spec.Priority = h.pool(), h.IntN(3)
	if h.IntN(3) == 0 {
		spec.MaxParallelTasks = new(1 + h.IntN(3))
	}
	_, _ = h.AddJob(ctx(h.t), acct, spec)
}

// some is a task of a job, mostly the largest that waits: a node may be set aside for it.
func (h *haste) some(job batch.JobID) batch.TaskID {
	if _, err := h.Job(ctx(h.t), acct, job); err != nil {
		return "none"
	}
	all := h.tasks(job)
	waiting := slices.DeleteFunc(slices.Clone(all), func(t batch.Task) bool { return !t.Waits() })
	if len(waiting) > 0 && h.IntN(4) > 0 {
		slices.SortFunc(waiting, func(a, b batch.Task) int { return b.RequiredSlots - a.RequiredSlots })
		return waiting[0].ID
	}
	if len(all) == 0 {
		return "none"
	}
	return all[h.IntN(len(all))].ID
}

// act does something, which may be refused, and says what.
func (h *haste) act() string {
	c, none := ctx(h.t), batch.Conditions{}
	job := h.jobs[h.IntN(len(h.jobs))]
	task := h.some(job)
	options := []batch.DisableTasks{batch.DisableTasksRequeue, batch.DisableTasksTerminate, batch.DisableTasksWait}
	var err error
	var what string
	switch n := h.IntN(24); {
	case n < 8:
		what = "add tasks"
		var specs []batch.TaskSpecification
		for range 1 + h.IntN(10) {
			s := taskSpec(batch.TaskID(fmt.Sprintf("t%03d", h.added)))
			s.RequiredSlots = []int{1, 1, 2, 3, 4, 6}[h.IntN(6)]
			h.added++
			specs = append(specs, s)
		}
		_, err = h.AddTasks(c, acct, job, specs)
	case n < 10:
		what = "terminate"
		_, err = h.TerminateTask(c, acct, job, task, none)
	case n < 12:
		what = "delete"
		err = h.DeleteTask(c, acct, job, task, none)
	case n < 13:
		what = "reactivate"
		_, err = h.ReactivateTask(c, acct, job, task, none)
	case n < 14:
		what = "disable"
		_, err = h.DisableJob(c, acct, job, options[h.IntN(3)], none)
	case n < 17:
		what = "enable"
		_, err = h.EnableJob(c, acct, job, none)
	case n < 18:
		what = "priority"
		_, err = h.PatchJob(c, acct, job, batch.JobPatch{Priority: new(h.IntN(3))}, none)
	case n < 19:
		what = "limit"
		_, err = h.PatchJob(c, acct, job, batch.JobPatch{MaxParallelTasks: new([]int{-1, 1, 2, 2, 3}[h.IntN(5)])}, none)
	case n < 21:
		what = "move"
		_, err = h.PatchJob(c, acct, job, batch.JobPatch{PoolInfo: &batch.PoolInfo{PoolID: h.pool()}}, none)
	case n < 22:
		what = "delete job"
		if h.IntN(4) == 0 {
			err = h.DeleteJob(c, acct, job, none)
		} else {
			h.addJob(job)
		}
	case n < 23:
		pool := h.pool()
		nodes := h.nodesOf(pool)
		what = "disable node"
		how := []batch.DisableSchedulingOption{"requeue", "terminate", "taskcompletion"}
		err = h.DisableScheduling(c, acct, pool, nodes[h.IntN(len(nodes))], how[h.IntN(3)])
	default:
		what = "enable node"
		for pool := range h.pools {
			for _, id := range h.nodesOf(pool) {
				_ = h.EnableScheduling(c, acct, pool, id)
			}
		}
	}
	if err != nil && batch.CodeOf(err) == "" {
		h.t.Fatal(err)
	}
	return fmt.Sprintf("%s %s %s (%v)", what, job, task, err)
}

// idle tells of nodes that have room for what waits.
func (h *haste) idle() string {
	waiting := map[batch.PoolID][]string{}
	sizes := map[batch.PoolID][]int{}
	for _, id := range h.jobs {
		j, err := h.Job(ctx(h.t), acct, id)
		if err != nil || !j.MayStart() {
			continue
		}
		for _, t := range h.tasks(id) {
			if t.Waits() {
				p := j.PoolInfo.PoolID
				waiting[p] = append(waiting[p], fmt.Sprintf("%s/%s(%d)", id, t.ID, t.RequiredSlots))
				sizes[p] = append(sizes[p], t.RequiredSlots)
			}
		}
	}
	for pool, slots := range h.pools {
		page, err := h.Nodes(ctx(h.t), acct, pool, control.Query{})
		h.check(err)
		var idle []int
		for i := range page.Items {
			n := &page.Items[i]
			free := n.Slots - n.BoundSlots
			if n.TakesTasks() && slices.ContainsFunc(sizes[pool], func(s int) bool { return s <= free }) {
				idle = append(idle, free)
			}
		}
		aside := len(idle) == 1 && slices.ContainsFunc(sizes[pool], func(s int) bool { return s > idle[0] && s <= slots })
		if len(idle) > 0 && !aside {
			return fmt.Sprintf("nodes of %s with %v free, waiting %v", pool, idle, waiting[pool])
		}
	}
	return ""
}
