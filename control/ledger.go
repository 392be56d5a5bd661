package control

import (
	"errors"
	"maps"
	"slices"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/store"
)

// Ledger collects what one transaction does to tasks of an account and writes
// it down at the end: the tasks in one statement, the nodes that held them in
// another, the counts of their jobs in a third, their queues in a fourth. Then it
// lets happen what follows, such as the completion of a job whose last task this was.
//
// Every change of a task's state or binding goes through it, also what nodes
// report of their tasks, see package conversation. It has no memory beyond its
// transaction.
type Ledger struct {
	service *Service
	tx      *store.Tx
	account batch.AccountName

	runs   []batch.Task     // changed, to be saved
	index  map[int64]int    // where in runs a task is, by its sequence
	ended  []store.TaskRef  // completed: exit conditions may act
	jobs   []store.JobDelta // few, so searched one by one
	queues []store.QueueRef // that tasks have joined or left, few too
	left   []batch.JobID    // of which a task has left its queue for no node
	loads  map[batch.NodeID]*load
	held   map[batch.NodeID]*batch.Node
}

// load is what changes about the tasks that a node holds.
type load struct {
	bound, boundSlots, running, runningSlots int
	// orders is set when the node has to do something else than before.
	orders bool
}

// Ledger opens the ledger of a transaction for the tasks of an account.
func (s *Service) Ledger(tx *store.Tx, account batch.AccountName) *Ledger {
	return &Ledger{
		service: s, tx: tx, account: account,
		index: make(map[int64]int), loads: make(map[batch.NodeID]*load), held: make(map[batch.NodeID]*batch.Node),
	}
}

// Hold hands over a node that the caller has read. The ledger changes it
// instead of reading it again, and leaves saving it to the caller.
func (l *Ledger) Hold(n *batch.Node) { l.held[n.ID] = n }

// Change runs a verb of a task and books the difference. A verb that fails
// must have changed nothing.
func (l *Ledger) Change(t *batch.Task, verb func() error) error {
	before, waited := t.State, t.Waits()
	l.count(t, -1)
	err := verb()
	l.count(t, +1)
	if err != nil {
		return err
	}
	l.save(t)
	switch waits := t.Waits(); {
	case waits && !waited:
		l.tend(t.Job, t.RequiredSlots)
	case waited && !waits:
		l.leave(t)
	}
	if t.State == batch.TaskCompleted && before != batch.TaskCompleted {
		l.ended = append(l.ended, store.TaskRef{Job: t.Job, Task: t.ID})
	}
	return nil
}

// release asks the node of a bound task to give it back. Asking for more than
// before is a change, asking for less is not.
func (l *Ledger) release(t *batch.Task, how batch.Release) {
	if !t.Bound || t.Release == how || t.Release == batch.ReleaseAlways {
		return
	}
	t.Release = how
	l.Touch(t.Node)
	l.save(t)
}

// save notes the task to be written, once however often it changes.
func (l *Ledger) save(t *batch.Task) {
	if i, ok := l.index[t.Sequence]; ok {
		l.runs[i] = *t
	} else {
		l.index[t.Sequence] = len(l.runs)
		l.runs = append(l.runs, *t)
	}
}

// count books a task as it is, once more (+1) or no longer (-1).
func (l *Ledger) count(t *batch.Task, sign int) {
	d := l.job(t.Job)
	n, slots := int64(sign), int64(sign*t.RequiredSlots)
	running := false
	switch c := &d.Counts; {
	case t.State == batch.TaskCompleted && t.ExecutionInfo.Result == batch.ResultSuccess:
		c.Succeeded, c.SucceededSlots = c.Succeeded+n, c.SucceededSlots+slots
	case t.State == batch.TaskCompleted:
		c.Failed, c.FailedSlots = c.Failed+n, c.FailedSlots+slots
	case t.State == batch.TaskActive:
		c.Active, c.ActiveSlots = c.Active+n, c.ActiveSlots+slots
	default:
		c.Running, c.RunningSlots = c.Running+n, c.RunningSlots+slots
		running = true
	}
	if !t.Bound {
		return
	}
	d.Bound += n
	load := l.load(t.Node)
	load.bound, load.boundSlots = load.bound+sign, load.boundSlots+int(slots)
	if running {
		load.running, load.runningSlots = load.running+sign, load.runningSlots+int(slots)
	}
}

func (l *Ledger) job(id batch.JobID) *store.JobDelta {
	key := batch.Key(id)
	for i := range l.jobs {
		if batch.Key(l.jobs[i].Job) == key {
			return &l.jobs[i]
		}
	}
	l.jobs = append(l.jobs, store.JobDelta{Job: id})
	return &l.jobs[len(l.jobs)-1]
}

// tend books that a task has joined a queue or left it.
func (l *Ledger) tend(job batch.JobID, slots int) {
	key := batch.Key(job)
	for _, q := range l.queues {
		if q.Slots == slots && batch.Key(q.Job) == key {
			return
		}
	}
	l.queues = append(l.queues, store.QueueRef{Job: job, Slots: slots})
}

// leave books that a task waits no longer and goes to no node. A node may be
// reserved for it if it needs more than one slot, which is the others' now.
func (l *Ledger) leave(t *batch.Task) {
	l.tend(t.Job, t.RequiredSlots)
	if t.RequiredSlots > 1 && !l.hasLeft(t.Job) {
		l.left = append(l.left, t.Job)
	}
}

// Touch books that the orders of a node change although it holds what it held.
func (l *Ledger) Touch(node batch.NodeID) { l.load(node).orders = true }

// load finds the entry of a node.
func (l *Ledger) load(node batch.NodeID) *load {
	entry := l.loads[node]
	if entry == nil {
		entry = &load{}
		l.loads[node] = entry
	}
	return entry
}

// Pending tells whether there are changes of tasks to write down.
func (l *Ledger) Pending() bool { return len(l.runs) > 0 }

// Close writes everything down. The ledger is empty afterwards.
func (l *Ledger) Close() error {
	if len(l.runs) > 0 {
		if err := l.tx.SaveRuns(l.runs); err != nil {
			return err
		}
	}
	if err := l.closeNodes(); err != nil {
		return err
	}
	err := l.closeJobs()
	if err == nil {
		err = l.tx.TendQueues(l.account, l.queues)
	}
	l.runs, l.ended, l.jobs, l.queues, l.left = nil, nil, nil, nil, nil
	clear(l.loads)
	clear(l.index)
	return err
}

// closeNodes changes the nodes that hold or held the tasks, and wakes them.
func (l *Ledger) closeNodes() error {
	var others []batch.NodeID
	for _, id := range slices.Sorted(maps.Keys(l.loads)) {
		if n := l.held[id]; n != nil {
			l.carry(n)
		} else {
			others = append(others, id)
		}
	}
	if len(others) == 0 {
		return nil
	}
	nodes, err := l.tx.NodesByID(others)
	if err != nil {
		return err
	}
	for i := range nodes {
		n := &nodes[i]
		l.carry(n)
		changed, err := l.Proceed(n)
		if err == nil && changed {
			err = l.tx.UpdateNode(n)
		}
		if err != nil {
			return err
		}
	}
	return l.tx.SaveNodes(nodes)
}

// carry applies a node's entry to it, and tells the node if it has to do
// something else now. That it began what it was told to is nothing new to it.
func (l *Ledger) carry(n *batch.Node) {
	d := l.loads[n.ID]
	n.BoundTasks, n.BoundSlots = n.BoundTasks+d.bound, n.BoundSlots+d.boundSlots
	n.RunningTasks, n.RunningSlots = n.RunningTasks+d.running, n.RunningSlots+d.runningSlots
	if n.InContact() {
		n.Move(n.Settled(), l.tx.Now())
	}
	if d.orders || d.bound != 0 {
		n.Revision++
		l.tx.Changed(store.NodeTopic(n.ID))
	}
	if d.bound < 0 && hungry(n, l.tx.Now()) {
		l.tx.Changed(ReadyTopic(n.Account, n.Pool))
	}
}

// Proceed takes the next step of a node that waits for its tasks, or for the
// retention of their files, before it leaves or boots. One that is not in
// contact boots when it is heard again. It tells whether it changed the node.
func (l *Ledger) Proceed(n *batch.Node) (bool, error) {
	changed := false
	if n.HoldIsDue(l.tx.Now()) {
		until, kept, err := l.tx.RetainedUntil(n.ID)
		if err != nil {
			return false, err
		}
		n.Hold(until, kept, l.tx.Now())
		changed = true
	}
	if n.PendingReboot == "" || !n.InContact() || !n.Vacant(l.tx.Now()) {
		return changed, nil
	}
	p, err := l.tx.Pool(n.Account, n.Pool)
	if err != nil {
		return false, err
	}
	n.Reboot(&p, n.PendingReimage, l.service.take(1, l.tx.Now()), l.tx.Now())
	return true, nil
}

// closeJobs adds up the jobs' counts and lets follow what follows.
func (l *Ledger) closeJobs() error {
	l.jobs = slices.DeleteFunc(l.jobs, func(d store.JobDelta) bool { return d == store.JobDelta{Job: d.Job} })
	if len(l.jobs) == 0 {
		return nil
	}
	standings, err := l.tx.AddJobCounts(l.account, l.jobs)
	if err != nil {
		return err
	}
	if err := l.openOrClose(standings); err != nil {
		return err
	}
	for _, standing := range standings {
		if l.mayStart(standing) || l.hasLeft(standing.Job) {
			l.tx.Changed(ReadyTopic(l.account, standing.Pool))
		}
		if err := l.settle(standing); err != nil {
			return err
		}
	}
	return nil
}

func (l *Ledger) hasLeft(job batch.JobID) bool {
	return slices.ContainsFunc(l.left, func(id batch.JobID) bool { return batch.Key(id) == batch.Key(job) })
}

// openOrClose closes the queues of jobs of which as many tasks are on nodes as
// may be, and opens those of jobs of which that was so.
func (l *Ledger) openOrClose(standings []store.JobStanding) error {
	var open, full []batch.JobID
	for _, standing := range standings {
		limit, bound := int64(standing.MaxParallel), standing.Bound
		before := bound - l.job(standing.Job).Bound
		switch {
		case limit < 0 || standing.State != batch.JobActive:
		case before < limit && bound >= limit:
			full = append(full, standing.Job)
		case before >= limit && bound < limit:
			open = append(open, standing.Job)
		}
	}
	if err := l.tx.OpenOrClose(l.account, full, false); err != nil {
		return err
	}
	return l.tx.OpenOrClose(l.account, open, true)
}

// mayStart tells whether a job may start a task that it might not start before:
// one became ready, or one of as many as may run at once is over.
func (l *Ledger) mayStart(standing store.JobStanding) bool {
	if standing.State != batch.JobActive || standing.Active+standing.Running == standing.Bound {
		return false
	}
	d := l.job(standing.Job)
	return d.Counts.Active+d.Counts.Running > d.Bound || standing.MaxParallel >= 0 && d.Bound < 0
}

// settle reads and writes the job only if its standing says that it may move.
func (l *Ledger) settle(standing store.JobStanding) error {
	ended := l.endedOf(standing)
	idle := standing.Active+standing.Running == 0 && standing.OnAll == batch.AllTasksTerminateJob
	if !idle && len(ended) == 0 && standing.State != batch.JobDisabling && standing.State != batch.JobTerminating {
		return nil
	}
	job, err := l.tx.Job(l.account, standing.Job)
	if err != nil {
		return err
	}
	acted, err := l.act(&job, ended)
	if err != nil {
		return err
	}
	if settled := job.Settle(l.tx.Now()); acted || settled {
		return saveJob(l.tx, &job)
	}
	return nil
}

// endedOf are the completed tasks whose exit conditions may act on their job.
func (l *Ledger) endedOf(standing store.JobStanding) []store.TaskRef {
	if standing.OnFailure != batch.TaskFailurePerform {
		return nil
	}
	var refs []store.TaskRef
	for _, ref := range l.ended {
		if batch.Key(ref.Job) == batch.Key(standing.Job) {
			refs = append(refs, ref)
		}
	}
	return refs
}

// act lets the exit conditions of completed tasks act on their job. A job that
// ends already is left alone.
func (l *Ledger) act(job *batch.Job, ended []store.TaskRef) (bool, error) {
	if len(ended) == 0 {
		return false, nil
	}
	tasks, err := l.tx.TasksByRef(l.account, ended)
	if err != nil {
		return false, err
	}
	var refused *batch.Error
	before := job.State
	for i := range tasks {
		switch tasks[i].JobAction() {
		case batch.JobActionTerminate:
			err = job.BeginTerminate(batch.ReasonTaskFailed, l.tx.Now())
		case batch.JobActionDisable:
			err = job.BeginDisable(batch.DisableTasksRequeue, l.tx.Now())
		}
		if err != nil && !errors.As(err, &refused) {
			return false, err
		}
	}
	if job.State == before {
		return false, nil
	}
	l.tx.Changed(TopicEndings)
	return true, nil
}
