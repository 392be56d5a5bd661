package conversation

import (
	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/store"
)

// maxRemovals bounds the removals that one answer asks for. The others follow
// when some of these are done.
const maxRemovals = 500

// answer is the node's orders, or nil if it has them already and the call can
// be held.
func (h *hearing) answer(must urgency) (*batch.NodeOrders, error) {
	n, r, room := &h.node, h.report, h.room
	if h.left {
		return &batch.NodeOrders{Revision: n.Revision + 1, Lease: batch.DurationOf(room.lease), Boot: n.Boot, Image: n.Image, Leave: true}, nil
	}
	now := h.account()
	since, fits := h.since(now, must)
	asked := must == mustAnswer || r.NoWait || r.Settings != n.Settings || room.files.fresh(n.ID, room.now())
	if !fits && !asked && r.Revision == n.Revision && r.Epoch == h.epoch() {
		return nil, nil
	}
	o := &batch.NodeOrders{
		Revision: n.Revision, Epoch: h.epoch(), Lease: batch.DurationOf(room.lease), Boot: n.Boot, Image: n.Image, Leave: h.leaves(),
	}
	all, err := h.addRemovals(o)
	switch {
	case err != nil:
	case fits:
		err = h.addChanges(o, now, since)
	default:
		err = h.addTasks(o)
	}
	if err == nil && !all {
		err = h.addAhead(o)
	}
	if err != nil {
		return nil, err
	}
	if fits && !asked && len(o.Tasks)+len(o.Dropped)+len(o.Removals) == 0 && now.levelAt <= since {
		return nil, nil
	}
	if r.Settings != n.Settings {
		if o.Settings, err = h.settings(); err != nil {
			return nil, err
		}
	}
	o.Files = room.files.tell(n.ID, room.now())
	return o, nil
}

// epoch is that of the orders, for agents that know of any.
func (h *hearing) epoch() string {
	if h.report.Changes {
		return h.room.epoch
	}
	return ""
}

// since is the revision that the agent has, if the orders can be what changed
// since then.
func (h *hearing) since(now *account, must urgency) (int64, bool) {
	r := h.report
	if !r.Changes || r.Whole || r.Revision == 0 || r.Epoch != h.room.epoch {
		return 0, false
	}
	since := max(r.Revision, h.confirmed)
	if must == ifUntold {
		since = max(since, h.told)
	}
	return since, now.fits(since)
}

// addRemovals adds what is to be removed, as much as the agent takes, and tells
// whether that is all.
func (h *hearing) addRemovals(o *batch.NodeOrders) (all bool, err error) {
	r, above, room := h.report, int64(0), maxRemovals
	if r.Changes {
		if room = min(room, r.RemovalRoom); room <= 0 {
			return false, nil
		}
		if r.Epoch == h.room.epoch {
			above = max(r.RemovalsTo, h.removals)
		}
	}
	o.Removals, err = h.tx.Removals(h.node.ID, above, room)
	return len(o.Removals) < room, err
}

// addAhead adds removals of directories in which new tasks are to begin, where
// others are before them. After the task they would take its files.
func (h *hearing) addAhead(o *batch.NodeOrders) error {
	var begin []store.TaskRef
	for i := range o.Tasks {
		if t := &o.Tasks[i]; t.Run != nil {
			begin = append(begin, store.TaskRef{Job: t.Job, Task: t.Task})
		}
	}
	if len(begin) == 0 {
		return nil
	}
	ahead, err := h.tx.RemovalsOf(h.node.ID, begin)
	if h.report.Changes {
		o.Ahead = ahead
	} else { // the agent knows of no other list, and none of turns
		o.Removals = append(o.Removals, ahead...)
	}
	return err
}

// addChanges adds what the agent does not have since a revision.
func (h *hearing) addChanges(o *batch.NodeOrders, now *account, since int64) error {
	o.Since = since
	var added []store.TaskRef
	for i := range now.holds {
		t := &now.holds[i]
		if t.changed <= since && !h.untaken[attemptOf(&t.HeldTask)] {
			continue
		}
		if t.added > since {
			added = append(added, t.TaskRef)
		}
		o.Tasks = append(o.Tasks, orderOf(&t.HeldTask))
	}
	for i := range now.gone {
		if g := &now.gone[i]; g.at > since {
			o.Dropped = append(o.Dropped, g.AttemptRef)
		}
	}
	if err := h.addRuns(o, added); err != nil || !o.More {
		return err
	}
	// The rest is asked for: until then the agent stays where it is, and passes
	// over attempts of which it is not told how to run them.
	o.Revision = since
	return nil
}

// attempt names an attempt in memory.
type attempt struct {
	taskKey
	number int
}

func attemptOf(t *store.HeldTask) attempt { return attempt{keyOf(t.Job, t.Task), t.Attempt} }

// reported are the attempts that the report names.
func (h *hearing) reported() map[attempt]bool {
	reported := make(map[attempt]bool, len(h.report.Tasks))
	for i := range h.report.Tasks {
		r := &h.report.Tasks[i]
		reported[attempt{keyOf(r.Job, r.Task), r.Attempt}] = true
	}
	return reported
}

func orderOf(t *store.HeldTask) batch.TaskOrder {
	return batch.TaskOrder{
		Job: t.Job, Task: t.Task, Attempt: t.Attempt, Release: t.Release, Started: t.State == batch.TaskRunning,
	}
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

// addTasks names every attempt the node should hold, the oldest task first. How
// to run it comes with those that the report does not name.
func (h *hearing) addTasks(o *batch.NodeOrders) error {
	if len(h.holds) == 0 {
		return nil
	}
	reported := h.reported()
	var unnamed []store.TaskRef
	for i := range h.holds {
		t := &h.holds[i]
		o.Tasks = append(o.Tasks, orderOf(t))
		if !reported[attemptOf(t)] {
			unnamed = append(unnamed, t.TaskRef)
		}
	}
	return h.addRuns(o, unnamed)
}

// maxRuns bounds what one answer has of specifications, in bytes.
const maxRuns = 16 << 20

// addRuns adds how to run tasks, with their jobs' common settings: as many as
// fit into an answer, and one at least.
func (h *hearing) addRuns(o *batch.NodeOrders, refs []store.TaskRef) error {
	if len(refs) == 0 {
		return nil
	}
	tasks, err := h.tx.SpecificationsByRef(h.node.Account, refs)
	if err != nil {
		return err
	}
	jobs := make(map[batch.JobID]*batch.JobSpecification)
	runs := make(map[taskKey]*batch.TaskRun, len(tasks))
	size := 0
	for i := range tasks {
		t := &tasks[i]
		if size += t.Size; size > maxRuns && i > 0 {
			o.More = true
			break
		}
		if jobs[t.Job] == nil {
			job, err := h.tx.Job(h.node.Account, t.Job)
			if err != nil {
				return err
			}
			jobs[t.Job] = &job.JobSpecification
		}
		runs[keyOf(t.Job, t.Task.ID)] = t.Task.Run(jobs[t.Job])
	}
	for i := range o.Tasks {
		o.Tasks[i].Run = runs[keyOf(o.Tasks[i].Job, o.Tasks[i].Task)]
	}
	return nil
}
