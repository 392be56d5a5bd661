package agent

import (
	"context"
	"slices"
	"strings"
	"sync"

	"github.com/batchyard/batchyard/agent/run"
	"github.com/batchyard/batchyard/batch"
)

// desk is what the node holds: attempts and removals. Its lock is held for
// moments only; attempts run on goroutines of their own.
type desk struct {
	agent    *Agent
	mu       sync.Mutex // guards all below
	revision int64      // of the orders applied last
	epoch    string     // of these
	removals int64      // the highest number of a removal in this epoch
	leave    bool
	empty    bool       // to leave, and nothing is held
	attempts []*attempt // in the order they came, which is the order they start
	living   living     // those of them that have a goroutine
	lined    int        // those that have been lined up and have no slot yet
	stock    stock      // those that wait
	slots    int        // free slots
	slotFree []bool     // by number, for users of task scope
	// orphans are processes of an earlier agent, and when they began, until
	// orders say which of them are still wanted and how to go on with them.
	orphans map[string]run.Started
	// owed is what an earlier agent could not hand over, until orders name its
	// attempts, or name all without them: results, and attempts that it called
	// running before their processes were started.
	owed     map[attemptID]batch.TaskReport
	owing    bool // there may be a file of these
	removing map[int64]batch.Removal
	removed  map[int64]bool
	// lineEnd is closed when the last of the line has entered it.
	lineEnd chan struct{}
}

func newDesk(a *Agent) *desk {
	slots := a.settings.Load().TaskSlots
	return &desk{
		agent: a, slots: slots, slotFree: slices.Repeat([]bool{true}, slots), orphans: map[string]run.Started{},
		removing: map[int64]batch.Removal{}, removed: map[int64]bool{}, lineEnd: closedChannel(), living: newLiving(),
	}
}

// find takes up the processes of an earlier agent.
func (d *desk) find(all []run.Held) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, held := range all {
		if !strings.HasPrefix(held.ID, startPrefix) {
			d.orphans[held.ID] = held.Started
		}
	}
}

// applied is the revision of the orders applied last.
func (d *desk) applied() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.revision
}

// idle tells that no attempt runs or waits to, so that a report held back for
// company would find none. The caller holds the lock.
func (d *desk) idle() bool {
	return !slices.ContainsFunc(d.attempts, func(t *attempt) bool { return !t.final() })
}

// Bounds of one report, and of the removals that are worked on at a time.
const (
	maxReported = 1000
	maxRemoving = 256
)

// saying is what a report said, to know what was taken when it is answered.
type saying struct {
	phases  map[*attempt]batch.TaskPhase
	removed []int64
	cut     bool // there was more to say
}

// report adds what is held: all of it if whole, else what the server is not
// known to have taken.
func (d *desk) report(report *batch.NodeReport, whole bool) saying {
	d.mu.Lock()
	defer d.mu.Unlock()
	report.Revision, report.Epoch, report.Changes = d.revision, d.epoch, true
	report.Whole = whole || d.epoch == ""
	report.RemovalsTo, report.RemovalRoom = d.removals, max(0, maxRemoving-len(d.removing))
	said := saying{phases: map[*attempt]batch.TaskPhase{}}
	for _, t := range d.attempts {
		if !report.Whole && (t.phase == batch.PhaseHeld || t.phase == t.taken) {
			continue
		}
		if said.cut = len(report.Tasks) == maxReported; said.cut {
			break
		}
		report.Tasks = append(report.Tasks, t.report())
		said.phases[t] = t.phase
	}
	for id := range d.removed {
		report.Removed = append(report.Removed, id)
	}
	slices.Sort(report.Removed)
	if len(report.Removed) > maxReported {
		report.Removed, said.cut = report.Removed[:maxReported], true
	}
	said.removed = report.Removed
	report.Left = d.leave && len(d.attempts) == 0 && !report.Booting
	return said
}

// receipt forgets what an answer is the receipt for. Those of a server without
// epochs are none: what its orders no longer name was taken.
func (d *desk) receipt(said saying, orders *batch.NodeOrders) {
	if orders.Epoch == "" {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	untaken := make(map[attemptID]bool)
	for i := range orders.Tasks {
		o := &orders.Tasks[i]
		untaken[attemptID{o.Job, o.Task, o.Attempt}] = true
	}
	var forgotten []string
	d.attempts = slices.DeleteFunc(d.attempts, func(t *attempt) bool {
		phase, ok := said.phases[t]
		if !ok || t.phase != phase || t.final() && untaken[t.id] {
			return false
		}
		t.taken = phase
		if t.final() {
			forgotten = append(forgotten, t.id.String())
		}
		return t.final()
	})
	d.agent.keeper.Forget(forgotten...)
	for _, id := range said.removed {
		delete(d.removed, id)
	}
	d.forgetOwed()
	if said.cut {
		d.agent.note(atOnce)
	}
}

// anotherEpoch tells whether orders are of another epoch than those before.
func (d *desk) anotherEpoch(orders *batch.NodeOrders) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.epoch != "" && orders.Epoch != d.epoch
}

// fits tells whether orders of changes can be applied to what is held.
func (d *desk) fits(orders *batch.NodeOrders) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return orders.Since == 0 || orders.Epoch == d.epoch && orders.Since <= d.revision && d.revision <= orders.Revision
}

// take compares orders with what is held.
func (d *desk) take(orders batch.NodeOrders) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if orders.Epoch != d.epoch {
		d.epoch, d.removals = orders.Epoch, 0
	}
	d.revision, d.leave = orders.Revision, orders.Leave
	wanted := make(map[attemptID]*batch.TaskOrder, len(orders.Tasks))
	for i := range orders.Tasks {
		o := &orders.Tasks[i]
		wanted[attemptID{o.Job, o.Task, o.Attempt}] = o
	}
	dropped := make(map[attemptID]bool, len(orders.Dropped))
	for _, r := range orders.Dropped {
		dropped[attemptID{r.Job, r.Task, r.Attempt}] = true
	}
	var forgotten []string
	d.attempts = slices.DeleteFunc(d.attempts, func(t *attempt) bool {
		order := wanted[t.id]
		delete(wanted, t.id)
		switch {
		case order != nil, orders.Since == 0, dropped[t.id]:
		case t.unwanted:
			return false // it goes once nothing of it runs
		default:
			order = &batch.TaskOrder{} // as before
		}
		forget := d.compare(t, order)
		if forget {
			forgotten = append(forgotten, t.id.String())
		}
		return forget
	})
	d.agent.keeper.Forget(forgotten...)
	for i := range orders.Tasks {
		o := &orders.Tasks[i]
		if id := (attemptID{o.Job, o.Task, o.Attempt}); wanted[id] == o && o.Run != nil {
			delete(wanted, id)
			d.accept(o)
		}
	}
	d.endOrphans(wanted)
	d.forgetOwed()
	if len(orders.Tasks) > 0 {
		d.stock.fill(d.count(), len(d.slotFree))
	}
	d.takeRemovals(orders)
	d.noteEmpty()
}

// noteEmpty tells the server that the node can leave, once. The caller holds the
// lock.
func (d *desk) noteEmpty() {
	empty := d.leave && len(d.attempts) == 0
	if empty && !d.empty {
		d.agent.note(atOnce)
	}
	d.empty = empty
}

// compare settles one attempt that is held with what the orders say of it and
// tells whether it is forgotten.
func (d *desk) compare(t *attempt, order *batch.TaskOrder) bool {
	switch {
	case order == nil && (t.final() || !t.begun):
		return true
	case order == nil:
		// Nobody wants it any more. It goes once nothing of it runs.
		t.unwanted = true
		t.cancel(errUnwanted)
	case t.unwanted:
		t.unwanted = false // it is given back instead: it has been ended
	case t.final():
	case !t.begun && (order.Release != "" || d.leave || !d.agent.health.fit()):
		t.phase = batch.PhaseReleased
		d.agent.note(soon)
	case t.inLine() && order.Release == batch.ReleaseUnstarted:
		t.call(errReleased)
	case t.begun && (order.Release == batch.ReleaseAlways || d.leave):
		t.cancel(errReleased)
	}
	return false
}

// accept takes a new attempt. One that an earlier agent began goes on; one that
// was begun and is not here any more is given back, unless the agent said that
// nothing of it has run.
func (d *desk) accept(o *batch.TaskOrder) {
	id := attemptID{o.Job, o.Task, o.Attempt}
	t := &attempt{agent: d.agent, id: id, run: o.Run, phase: batch.PhaseHeld, slot: -1, finished: make(chan struct{})}
	d.attempts = append(d.attempts, t)
	owed, told := d.owed[id]
	delete(d.owed, id)
	if told && owed.Phase == batch.PhaseEnded {
		delete(d.orphans, id.String())
		t.phase, t.start, t.outcome, t.owed = batch.PhaseEnded, owed.Start, owed.Outcome, true
		d.agent.note(soon)
	} else if d.agent.lives.ended(id) {
		t.phase, t.died = batch.PhaseReleased, batch.DeathCrash
		d.agent.note(soon)
		if _, held := d.orphans[id.String()]; held {
			delete(d.orphans, id.String())
			d.agent.work.Go(func() {
				_ = d.agent.guard("end of "+id.String(), func() error { d.agent.endProcess(id.String()); return nil })
			})
		}
	} else if began, ok := d.orphans[id.String()]; ok {
		delete(d.orphans, id.String())
		t.adopted = true
		t.begin(d.agent.began(began))
		d.start(t, -1)
	} else if o.Started && !told {
		t.phase, t.died = batch.PhaseReleased, batch.DeathLost
		d.agent.note(soon)
	} else {
		t.unbegun = told
	}
	d.compare(t, o)
}

// endOrphans ends what an earlier agent started and the orders do not name.
// Until they have ended they are attempts that nobody wants, so that
// their directories are neither removed nor used again too early. How many slots
// they have nobody knows any more, so all count as taken. Those that are named
// without a word of how to go on with them, since not all fitted into the answer,
// wait for it.
func (d *desk) endOrphans(named map[attemptID]*batch.TaskOrder) {
	for id := range d.owed {
		if named[id] == nil {
			delete(d.owed, id)
		}
	}
	for name := range d.orphans {
		id, ok := parseAttemptID(name)
		if ok && named[id] != nil {
			continue
		}
		delete(d.orphans, name)
		if !ok {
			d.agent.work.Go(func() {
				_ = d.agent.guard("end of "+name, func() error { d.agent.endProcess(name); return nil }) // it has been told
			})
			continue
		}
		t := &attempt{agent: d.agent, id: id, run: &batch.TaskRun{RequiredSlots: len(d.slotFree)}, adopted: true, unwanted: true, finished: make(chan struct{})}
		d.attempts = append(d.attempts, t)
		d.start(t, -1)
		t.cancel(errUnwanted)
	}
}

// endProcess kills a process at the keeper and forgets it.
func (a *Agent) endProcess(id string) {
	process := a.keeper.Process(run.Spec{ID: id})
	err := process.Kill(a.working, 0)
	if err == nil {
		_, err = process.Wait(a.working)
	}
	if err == nil {
		a.keeper.Forget(id)
	} else if a.working.Err() == nil {
		a.Log.Error("process of an earlier agent not ended", "id", id, "err", err)
	}
}

// schedule starts attempts in their order while slots are free.
func (d *desk) schedule() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.startAll()
}

// startAll is schedule for a caller that holds the lock.
func (d *desk) startAll() {
	for t := d.next(); t != nil; t = d.next() {
		d.start(t, -1)
	}
	d.lineUp()
}

// open tells whether attempts may begin: not while some of an earlier agent,
// which have slots, are yet to be taken up. The caller holds the lock.
func (d *desk) open() bool {
	return len(d.orphans) == 0 && d.agent.boots.ready() && !d.leave && d.agent.health.fit() && d.agent.working.Err() == nil
}

// next is the attempt that is to begin now, if there is one. Those in line whose
// turn it is are told so on the way. The caller holds the lock.
func (d *desk) next() *attempt {
	if d.slots <= 0 || !d.open() {
		return nil
	}
	for _, t := range d.attempts {
		if !t.waits() {
			continue
		}
		if t.run.RequiredSlots > d.slots {
			return nil
		}
		switch {
		case t.begun:
			d.occupy(t, -1)
			t.call(errTurn)
		case !d.blocked(t):
			return t
		}
	}
	return nil
}

// blocked tells whether the task's directory is still in use by an earlier
// attempt or being removed.
func (d *desk) blocked(t *attempt) bool {
	for _, r := range d.removing {
		if covers(r, t.id) {
			return true
		}
	}
	return d.living.beside(t)
}

// start begins an attempt in a slot, of which the number may be asked for.
func (d *desk) start(t *attempt, slot int) {
	d.occupy(t, slot)
	d.begin(t)
	d.execute(t)
}

// begin gives an attempt its context. The caller holds the lock.
func (d *desk) begin(t *attempt) {
	t.begun = true
	d.living.enter(t)
	t.ctx, t.cancel = context.WithCancelCause(d.agent.working)
}

func (d *desk) execute(t *attempt) {
	d.agent.work.Go(func() {
		growStack()
		for t != nil {
			t = t.guarded()
		}
	})
}

// stackOfAttempt is how much of a stack an attempt comes to use.
const stackOfAttempt = 12 << 10

// growStack has the goroutine's stack grow in one step while there is nothing on
// it. Otherwise it would double several times, each time copying what is there,
// which a short task would pay for with a tenth of the agent's work.
//
//go:noinline
func growStack() {
	var room [stackOfAttempt]byte
	touch(&room)
}

// touch keeps the compiler from seeing that nobody needs the room.
//
//go:noinline
func touch(*[stackOfAttempt]byte) {}

// occupy gives an attempt its slot. The caller holds the lock.
func (d *desk) occupy(t *attempt, slot int) {
	d.leaveLine(t)
	if slot < 0 || slot >= len(d.slotFree) || !d.slotFree[slot] {
		slot = slices.Index(d.slotFree, true)
	}
	if slot < 0 { // adopted, and the node has fewer slots than it had
		slot = len(d.slotFree)
		d.slotFree = append(d.slotFree, true)
	}
	d.slots -= t.run.RequiredSlots
	d.slotFree[slot] = false
	t.slot = slot
}

// running notes that an attempt has begun and says when that was.
func (d *desk) running(t *attempt) moment {
	d.mu.Lock()
	if t.start == nil {
		t.begin(d.agent.moment())
	}
	began := t.since
	t.unbegun = false
	if t.before == nil {
		t.phase = batch.PhaseRunning
	}
	how := begun
	if d.stock.plenty() {
		how = whenever
	}
	d.mu.Unlock()
	d.agent.note(how)
	return began
}

// settled notes how an attempt is over: with an outcome, or given back. An
// attempt nobody wants is forgotten; all stay as they are when the agent stops,
// for the next one. It returns the attempt that the goroutine goes on with, if
// there is one: that saves making and waking another.
func (d *desk) settled(t *attempt, outcome *batch.Outcome) *attempt {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.vacate(t)
	switch {
	case d.agent.working.Err() != nil:
		t.unbegun = (t.unbegun || t.phase == batch.PhaseRunning) && !t.launched
	case t.unwanted:
		d.attempts = slices.DeleteFunc(d.attempts, func(other *attempt) bool { return other == t })
		d.agent.keeper.Forget(t.id.String())
	case outcome == nil:
		t.phase = batch.PhaseReleased
	default:
		t.phase, t.outcome = batch.PhaseEnded, outcome
	}
	next := d.next()
	if next != nil {
		d.occupy(next, -1)
		d.begin(next)
	}
	d.startAll()
	d.agent.note(d.urgency(d.stock.take()))
	return next
}

// urgency is how soon it should be known that an attempt has ended. Low tells
// that with it half of what waited has gone, and the server fills the node up.
// The caller holds the lock.
func (d *desk) urgency(low bool) urgency {
	switch {
	case low:
		return soon
	case d.stock.plenty():
		return whenever
	case d.waiting(len(d.slotFree)):
		return later
	case d.idle():
		return atOnce
	}
	return soon
}

// waiting tells whether so many attempts wait. Those that came last are looked at
// first: they wait if any do. The caller holds the lock.
func (d *desk) waiting(wanted int) bool {
	for _, t := range slices.Backward(d.attempts) {
		if wanted <= 0 {
			break
		}
		if t.waits() {
			wanted--
		}
	}
	return wanted <= 0
}

// giveBack gives back what has not begun, because the node is unfit.
func (d *desk) giveBack() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, t := range d.attempts {
		switch {
		case !t.begun && !t.final():
			t.phase = batch.PhaseReleased
		case t.inLine():
			t.call(errReleased)
		}
	}
}

// lost notes that an attempt was lost with its keeper.
func (d *desk) lost(t *attempt) {
	d.mu.Lock()
	defer d.mu.Unlock()
	t.died = batch.DeathLost
}

// endAll cancels every attempt, for a boot, and returns when none has a
// goroutine any more.
func (d *desk) endAll(ctx context.Context) {
	for _, t := range d.cancelAll(errReleased) {
		select {
		case <-t.finished:
		case <-ctx.Done():
			return
		}
	}
}

// expire gives back every attempt, because the server may have given them to
// another node. The keeper ends their processes by its own clock; what the
// agent does for them, an upload above all, must end too.
func (d *desk) expire() {
	d.mu.Lock()
	for _, t := range d.attempts {
		if !t.begun && !t.final() {
			t.phase = batch.PhaseReleased
		}
	}
	d.mu.Unlock()
	if ended := d.cancelAll(errLease); len(ended) > 0 {
		d.agent.Log.Warn("lease has run out, tasks are given back", "tasks", len(ended))
	}
}

func (d *desk) cancelAll(why error) []*attempt {
	d.mu.Lock()
	defer d.mu.Unlock()
	var ended []*attempt
	for _, t := range d.attempts {
		if t.alive {
			t.cancel(why)
			ended = append(ended, t)
		}
	}
	return ended
}
