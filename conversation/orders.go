package conversation

import (
	"cmp"
	"slices"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/store"
)

// maxRemovals bounds the removals that one answer asks for. The others follow
// when some of these are done.
const maxRemovals = 500

// answer is the node's orders, or nil if it has them already and the call can
// be held.
func (h *hearing) answer(must bool) (*batch.NodeOrders, error) {
	n, r, room := &h.node, h.report, h.room
	if h.left {
		return &batch.NodeOrders{Revision: n.Revision + 1, Lease: batch.DurationOf(room.lease), Boot: n.Boot, Image: n.Image, Leave: true}, nil
	}
	if must || r.NoWait || r.Revision != n.Revision || r.Settings != n.Settings || room.files.fresh(n.ID, room.now()) {
		return h.orders()
	}
	return nil, nil
}

// orders is the whole of what the node should be doing.
func (h *hearing) orders() (*batch.NodeOrders, error) {
	n := &h.node
	o := &batch.NodeOrders{
		Revision: n.Revision, Lease: batch.DurationOf(h.room.lease),
		Boot: n.Boot, Image: n.Image, Leave: h.leaves(),
	}
	var err error
	if h.report.Settings != n.Settings {
		if o.Settings, err = h.settings(); err != nil {
			return nil, err
		}
	}
	if o.Tasks, err = h.taskOrders(); err != nil {
		return nil, err
	}
	if o.Removals, err = h.tx.Removals(n.ID, 0, maxRemovals); err != nil {
		return nil, err
	}
	o.Files = h.room.files.tell(n.ID, h.room.now())
	return o, nil
}

func (h *hearing) settings() (*batch.NodeSettings, error) {
	n := &h.node
	p, err := h.tx.Pool(n.Account, n.Pool)
	if err != nil {
		return nil, err
	}
	size, err := batch.SizeOf(n.VMSize)
	if err != nil {
		return nil, err
	}
	return &batch.NodeSettings{
		Version: n.Settings, Account: n.Account, AccountURL: h.room.accountURL(n.Account), Pool: p.ID, Node: n.ID,
		Dedicated: n.Dedicated, TaskSlots: p.TaskSlotsPerNode, Size: size, StartTask: n.StartTask,
		UserAccounts: p.UserAccounts, AllowHosts: h.room.allowHosts,
	}, nil
}

// taskOrders names every attempt the node should hold, the oldest task first.
// How to run it comes with those that the report does not name.
func (h *hearing) taskOrders() ([]batch.TaskOrder, error) {
	if len(h.holds) == 0 {
		return nil, nil
	}
	slices.SortFunc(h.holds, func(a, b store.HeldTask) int { return cmp.Compare(a.Sequence, b.Sequence) })
	type attempt struct {
		taskKey
		number int
	}
	named := make(map[attempt]bool, len(h.report.Tasks))
	for i := range h.report.Tasks {
		r := &h.report.Tasks[i]
		named[attempt{keyOf(r.Job, r.Task), r.Attempt}] = true
	}
	orders := make([]batch.TaskOrder, len(h.holds))
	var unnamed []store.TaskRef
	for i := range h.holds {
		t := &h.holds[i]
		orders[i] = batch.TaskOrder{
			Job: t.Job, Task: t.Task, Attempt: t.Attempt, Release: t.Release, Started: t.State == batch.TaskRunning,
		}
		if !named[attempt{keyOf(t.Job, t.Task), t.Attempt}] {
			unnamed = append(unnamed, t.TaskRef)
		}
	}
	runs, err := h.taskRuns(unnamed)
	if err != nil {
		return nil, err
	}
	for i := range orders {
		orders[i].Run = runs[keyOf(orders[i].Job, orders[i].Task)]
	}
	return orders, nil
}

// taskRuns reads how to run tasks, with their jobs' common settings.
func (h *hearing) taskRuns(refs []store.TaskRef) (map[taskKey]*batch.TaskRun, error) {
	if len(refs) == 0 {
		return nil, nil
	}
	tasks, err := h.tx.SpecificationsByRef(h.node.Account, refs)
	if err != nil {
		return nil, err
	}
	jobs := make(map[batch.JobID]*batch.JobSpecification)
	runs := make(map[taskKey]*batch.TaskRun, len(tasks))
	for i := range tasks {
		t := &tasks[i]
		if jobs[t.Job] == nil {
			job, err := h.tx.Job(h.node.Account, t.Job)
			if err != nil {
				return nil, err
			}
			jobs[t.Job] = &job.JobSpecification
		}
		runs[keyOf(t.Job, t.Task.ID)] = t.Task.Run(jobs[t.Job])
	}
	return runs, nil
}
