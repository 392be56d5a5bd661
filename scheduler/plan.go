package scheduler

import (
	"cmp"
	"slices"
	"time"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/control"
	"github.com/batchyard/batchyard/store"
)

// Snapshot is what Plan sees of one pool.
type Snapshot struct {
	Pool batch.PoolID
	Fill batch.NodeFillType
	// Nodes are nodes that take tasks. Full ones matter for what is bound
	// ahead of time and for recalls.
	Nodes []store.NodeSlots
	// Jobs are those that the tasks are of.
	Jobs []Job
	// Tasks wait for a node. Of each number of slots there are as many as could
	// be bound if no others were, or all there are, and at least the first.
	Tasks []store.ReadyTask
	// Held are tasks that nodes hold and have not begun. They are looked at
	// only if no task that waits can be bound.
	Held []HeldTask
	// Slow are those of nodes that have completed nothing lately, while no node
	// takes more and tasks wait for one.
	Slow []HeldTask
}

// Job is what Plan has to know of a job.
type Job struct {
	Job         batch.JobID
	Priority    int
	MaxParallel int   // tasks that nodes may hold at a time, -1 for no limit
	Bound       int64 // tasks that they hold
}

// HeldTask is a task that a node holds and has not begun.
type HeldTask struct {
	store.TaskRef
	Node     batch.NodeID
	Sequence int64
	Slots    int
	// Recalled tells that it is asked back already.
	Recalled bool
}

// Plan decides for one pool. See the package comment for the rules.
func Plan(s Snapshot, now time.Time) control.Decision {
	p := newPlanner(s, now)
	rest := p.place(p.inOrder(s.Tasks))
	for p.asideInVain() {
		p.giveBack()
		rest = p.place(rest)
	}
	if p.full() {
		p.placeAhead(rest)
	}
	d := control.Decision{Pool: s.Pool, Assign: p.assigned}
	if len(d.Assign) == 0 {
		d.Recall = append(p.recall(s.Held), p.callAllBack(s.Slow)...)
	}
	return d
}

// planner is the state of one Plan.
type planner struct {
	fill  batch.NodeFillType
	nodes []node
	// byFree has the nodes by how many slots they have free, as indexes into
	// nodes; those without a free slot are in none.
	byFree   [][]int
	byID     map[batch.NodeID]int
	jobs     map[string]*job
	aside    *aside // nil if no node is set aside
	assigned []control.Assignment
}

// aside is a node that is set aside for a task that fits nowhere yet.
type aside struct {
	at, free int // the node, and the slots that it has free
	job      *job
}

type node struct {
	id    batch.NodeID
	slots int
	free  int // negative if tasks wait there
	ahead int // slots worth binding ahead of time
}

type job struct {
	priority int
	left     int64 // tasks that may still be bound; negative for no limit
}

func newPlanner(s Snapshot, now time.Time) *planner {
	p := &planner{fill: s.Fill, byID: make(map[batch.NodeID]int, len(s.Nodes)), jobs: make(map[string]*job, len(s.Jobs))}
	for i, n := range s.Nodes {
		p.nodes = append(p.nodes, node{id: n.Node, slots: n.Slots, free: n.Slots - n.BoundSlots, ahead: control.WorthAhead(n.Ahead, n.AheadTime, now)})
		p.byID[n.Node] = i
		p.list(i)
	}
	for _, j := range s.Jobs {
		left := int64(-1)
		if j.MaxParallel >= 0 {
			left = max(0, int64(j.MaxParallel)-j.Bound)
		}
		p.jobs[batch.Key(j.Job)] = &job{priority: j.Priority, left: left}
	}
	return p
}

// inOrder sorts tasks by priority and then by when they were added.
func (p *planner) inOrder(tasks []store.ReadyTask) []store.ReadyTask {
	ordered := slices.Clone(tasks)
	slices.SortStableFunc(ordered, func(a, b store.ReadyTask) int {
		return cmp.Or(cmp.Compare(p.priority(b), p.priority(a)), cmp.Compare(a.Sequence, b.Sequence))
	})
	return ordered
}

func (p *planner) priority(t store.ReadyTask) int {
	if j := p.jobs[batch.Key(t.Job)]; j != nil {
		return j.priority
	}
	return 0
}

// place gives tasks to nodes with free slots and returns those that are left.
func (p *planner) place(tasks []store.ReadyTask) []store.ReadyTask {
	var rest []store.ReadyTask
	for _, t := range tasks {
		if !p.mayRun(t) {
			continue
		}
		at := p.near(t)
		if at < 0 {
			at = p.choose(t.Slots)
		}
		if at < 0 {
			p.reserve(t)
			rest = append(rest, t)
			continue
		}
		p.assign(t, at)
	}
	return rest
}

// mayRun tells whether the job of the task may run one more.
func (p *planner) mayRun(t store.ReadyTask) bool {
	j := p.jobs[batch.Key(t.Job)]
	return j != nil && j.left != 0
}

// near is the node that the task has an affinity to, if it has room.
func (p *planner) near(t store.ReadyTask) int {
	if t.Affinity == "" {
		return -1
	}
	at, ok := p.byID[batch.NodeID(t.Affinity)]
	if !ok || p.nodes[at].free < t.Slots {
		return -1
	}
	return at
}

// choose is the node to take a task: the one with the most free slots when
// tasks are spread, the one with the fewest that suffice when they are packed.
func (p *planner) choose(slots int) int {
	if p.fill == batch.FillPack {
		for free := slots; free < len(p.byFree); free++ {
			if len(p.byFree[free]) > 0 {
				return p.byFree[free][0]
			}
		}
		return -1
	}
	for free := len(p.byFree) - 1; free >= slots; free-- {
		if len(p.byFree[free]) > 0 {
			return p.byFree[free][0]
		}
	}
	return -1
}

// reserve sets aside the node that is closest to having room for the first
// task that fits nowhere: tasks behind it do not get that node's slots. Of equal
// nodes it is always the same one. So in pass after pass the room on the node
// that is set aside only grows, or another one's is larger still, until the task
// fits. One node is enough for that; with more of them slots would idle for
// tasks whose turn has not come.
func (p *planner) reserve(t store.ReadyTask) {
	if p.aside != nil {
		return
	}
	best := -1
	for free := min(t.Slots, len(p.byFree)) - 1; free > 0 && best < 0; free-- {
		for _, at := range p.byFree[free] {
			if p.nodes[at].slots >= t.Slots && (best < 0 || p.nodes[at].id > p.nodes[best].id) {
				best = at
			}
		}
	}
	if best >= 0 {
		p.unlist(best)
		p.aside = &aside{at: best, free: p.nodes[best].free, job: p.jobs[batch.Key(t.Job)]}
		p.nodes[best].free = 0
	}
}

// asideInVain tells whether the task for which a node is set aside may not run
// any more: tasks of its job behind it found room, as many as may run at once.
func (p *planner) asideInVain() bool { return p.aside != nil && p.aside.job.left == 0 }

// giveBack ends the setting aside of a node.
func (p *planner) giveBack() {
	p.nodes[p.aside.at].free = p.aside.free
	p.list(p.aside.at)
	p.aside = nil
}

func (p *planner) assign(t store.ReadyTask, at int) {
	p.take(at, t.Slots)
	if j := p.jobs[batch.Key(t.Job)]; j.left > 0 {
		j.left--
	}
	p.assigned = append(p.assigned, control.Assignment{TaskRef: t.TaskRef, Node: p.nodes[at].id, Was: t.Was})
}

// take takes slots of a node, more than it has free if the task is to wait.
func (p *planner) take(at, slots int) {
	p.unlist(at)
	p.nodes[at].free -= slots
	p.list(at)
}

// list enters a node by its free slots.
func (p *planner) list(at int) {
	free := p.nodes[at].free
	if free <= 0 {
		return
	}
	for len(p.byFree) <= free {
		p.byFree = append(p.byFree, nil)
	}
	p.byFree[free] = append(p.byFree[free], at)
}

func (p *planner) unlist(at int) {
	free := p.nodes[at].free
	if free <= 0 {
		return
	}
	list := p.byFree[free]
	if i := slices.Index(list, at); i >= 0 {
		p.byFree[free] = slices.Delete(list, i, i+1)
	}
}

// full tells whether no node has a free slot. One that is set aside counts as
// having some: the task it waits for must not go elsewhere.
func (p *planner) full() bool {
	return p.aside == nil && !slices.ContainsFunc(p.byFree, func(list []int) bool { return len(list) > 0 })
}

// placeAhead gives quick nodes tasks to hold. If there are not enough tasks
// every node gets its share.
func (p *planner) placeAhead(tasks []store.ReadyTask) {
	room, total := make([]int, len(p.nodes)), 0
	for i, n := range p.nodes {
		room[i] = control.TopUp(n.ahead, max(0, -n.free))
		total += room[i]
	}
	available := len(tasks)
	for i := range p.nodes {
		share := room[i]
		if total > available {
			share = (room[i]*available + total - 1) / total
		}
		for share > 0 && len(tasks) > 0 {
			t := tasks[0]
			tasks = tasks[1:]
			if p.mayRun(t) && t.Slots <= p.nodes[i].slots {
				p.assign(t, i)
				share -= t.Slots
			}
		}
	}
}

// recall asks for held tasks back, the newest first, as many as free nodes have
// room for. Tasks that are coming back already have their room.
func (p *planner) recall(held []HeldTask) []control.Recall {
	newest := slices.Clone(held)
	slices.SortFunc(newest, func(a, b HeldTask) int { return cmp.Compare(b.Sequence, a.Sequence) })
	for _, t := range newest {
		if t.Recalled {
			p.spare(t)
			p.occupy(t.Slots)
		}
	}
	var recalls []control.Recall
	for _, t := range newest {
		if !t.Recalled && p.choose(t.Slots) >= 0 && p.spare(t) {
			p.occupy(t.Slots)
			recalls = append(recalls, control.Recall{TaskRef: t.TaskRef, Node: t.Node})
		}
	}
	return recalls
}

// callAllBack asks for all tasks back that only wait on their nodes, the newest
// first: what is next in the pool then goes where a slot is free first.
func (p *planner) callAllBack(slow []HeldTask) []control.Recall {
	newest := slices.Clone(slow)
	slices.SortFunc(newest, func(a, b HeldTask) int { return cmp.Compare(b.Sequence, a.Sequence) })
	for _, t := range newest {
		if t.Recalled {
			p.spare(t)
		}
	}
	var recalls []control.Recall
	for _, t := range newest {
		if !t.Recalled && p.spare(t) {
			recalls = append(recalls, control.Recall{TaskRef: t.TaskRef, Node: t.Node})
		}
	}
	return recalls
}

// spare takes a task off its node if it only waits there, and tells whether it
// did: what the node has slots for it is about to begin.
func (p *planner) spare(t HeldTask) bool {
	at, ok := p.byID[t.Node]
	if !ok || p.nodes[at].free >= 0 {
		return false
	}
	p.nodes[at].free = min(0, p.nodes[at].free+t.Slots)
	return true
}

// occupy takes room for one task.
func (p *planner) occupy(slots int) {
	if at := p.choose(slots); at >= 0 {
		p.take(at, slots)
	}
}
