package agent

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/batchyard/batchyard/agent/run"
	"github.com/batchyard/batchyard/batch"
)

// desk is what the node holds: attempts and removals. Its lock is held for
// moments only; attempts run on goroutines of their own.
type desk struct {
	agent *Agent

	mu       sync.Mutex // guards all below
	working  context.Context
	revision int64
	leave    bool
	attempts []*attempt // in the order they came, which is the order they start
	slots    int        // free slots
	slotFree []bool     // by number, for users of task scope
	// orphans are processes of an earlier agent, and when they began, until
	// the first orders say which of them are still wanted.
	orphans  map[string]time.Time
	removing map[int64]batch.Removal
	removed  map[int64]bool
}

func newDesk(a *Agent) *desk {
	d := &desk{agent: a, slots: a.settings.TaskSlots, removing: map[int64]batch.Removal{}, removed: map[int64]bool{}}
	d.slotFree = slices.Repeat([]bool{true}, d.slots)
	d.orphans = map[string]time.Time{}
	for _, held := range a.keeper.Held() {
		d.orphans[held.ID] = held.Started.At
	}
	return d
}

// begin gives the desk the context of all work.
func (d *desk) begin(working context.Context) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.working = working
}

// idle tells that nothing is held back from the server by waiting: no attempt
// runs or waits to.
func (d *desk) idle() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return !slices.ContainsFunc(d.attempts, func(t *attempt) bool {
		return t.phase == batch.PhaseHeld || t.phase == batch.PhaseRunning
	})
}

// empty tells that there is nothing at all.
func (d *desk) empty() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.attempts) == 0
}

// report adds what is held.
func (d *desk) report(report *batch.NodeReport) {
	d.mu.Lock()
	defer d.mu.Unlock()
	report.Revision = d.revision
	for _, t := range d.attempts {
		report.Tasks = append(report.Tasks, t.report())
	}
	for id := range d.removed {
		report.Removed = append(report.Removed, id)
	}
	report.Left = d.leave && len(d.attempts) == 0
}

// take compares orders with what is held.
func (d *desk) take(orders batch.NodeOrders) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.revision, d.leave = orders.Revision, orders.Leave
	wanted := make(map[attemptID]*batch.TaskOrder, len(orders.Tasks))
	for i := range orders.Tasks {
		o := &orders.Tasks[i]
		wanted[attemptID{o.Job, o.Task, o.Attempt}] = o
	}
	d.attempts = slices.DeleteFunc(d.attempts, func(t *attempt) bool {
		order := wanted[t.id]
		delete(wanted, t.id)
		return d.compare(t, order)
	})
	for i := range orders.Tasks {
		o := &orders.Tasks[i]
		if wanted[attemptID{o.Job, o.Task, o.Attempt}] == o && o.Run != nil {
			d.accept(o)
		}
	}
	d.takeRemovals(orders.Removals)
	if d.leave {
		d.agent.note(soon)
	}
	d.endOrphans()
}

// endOrphans ends what an earlier agent started and the first orders do not
// name.
func (d *desk) endOrphans() {
	for id := range d.orphans {
		if !strings.HasPrefix(id, startPrefix) {
			d.agent.work.Go(func() { d.endOrphan(id) })
		}
	}
	d.orphans = nil
}

func (d *desk) endOrphan(id string) {
	process := d.agent.keeper.Process(run.Spec{ID: id})
	if err := process.Kill(d.working, 0); err != nil {
		d.agent.Log.Warn("process of an earlier agent not ended", "id", id, "err", err)
	}
	if _, err := process.Wait(d.working); err == nil {
		d.agent.keeper.Forget(id)
	}
}

// compare settles one attempt that is held with what the orders say of it and
// tells whether it is forgotten.
func (d *desk) compare(t *attempt, order *batch.TaskOrder) bool {
	final := t.phase == batch.PhaseEnded || t.phase == batch.PhaseReleased
	switch {
	case order == nil && (final || !t.begun):
		d.agent.keeper.Forget(t.id.String())
		return true
	case order == nil:
		// Nobody wants it any more. It goes once nothing of it runs.
		t.unwanted = true
		t.cancel(errUnwanted)
	case order.Release == batch.ReleaseUnstarted && !t.begun, order.Release == batch.ReleaseAlways && !t.begun:
		if !final {
			t.phase = batch.PhaseReleased
			d.agent.note(soon)
		}
	case order.Release == batch.ReleaseAlways && !final:
		t.cancel(errReleased)
	}
	return false
}

// accept takes a new attempt.
func (d *desk) accept(o *batch.TaskOrder) {
	id := attemptID{o.Job, o.Task, o.Attempt}
	t := &attempt{agent: d.agent, id: id, run: o.Run, phase: batch.PhaseHeld, slot: -1, finished: make(chan struct{})}
	if began, ok := d.orphans[id.String()]; ok {
		start := batch.At(began)
		t.adopted, t.start = began, &start
		delete(d.orphans, id.String())
	} else if o.Release != "" || o.Started {
		t.phase = batch.PhaseReleased
		d.agent.note(soon)
	}
	d.attempts = append(d.attempts, t)
}

// schedule starts attempts in their order while slots are free. Adopted ones
// run already and go first.
func (d *desk) schedule() {
	ready := d.agent.boots.ready()
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, t := range d.attempts {
		if !t.adopted.IsZero() && !t.begun {
			d.start(t)
		}
	}
	if !ready || d.leave {
		return
	}
	for _, t := range d.attempts {
		if t.phase != batch.PhaseHeld || t.begun {
			continue
		}
		if t.run.RequiredSlots > d.slots {
			return
		}
		if !d.blocked(t) {
			d.start(t)
		}
	}
}

// blocked tells whether the task's directory is still in use by an earlier
// attempt or being removed.
func (d *desk) blocked(t *attempt) bool {
	for _, r := range d.removing {
		if covers(r, t.id) {
			return true
		}
	}
	return slices.ContainsFunc(d.attempts, func(other *attempt) bool {
		return other != t && other.id.job == t.id.job && other.id.task == t.id.task && other.slot >= 0
	})
}

func (d *desk) start(t *attempt) {
	ctx, cancel := context.WithCancelCause(d.working)
	t.begun, t.cancel = true, cancel
	d.slots -= t.run.RequiredSlots
	t.slot = max(0, slices.Index(d.slotFree, true))
	d.slotFree[t.slot] = false
	d.agent.work.Go(func() {
		defer cancel(nil)
		t.execute(ctx)
	})
}

// running notes that an attempt has begun.
func (d *desk) running(t *attempt, start batch.Time) {
	d.mu.Lock()
	t.phase, t.start = batch.PhaseRunning, &start
	d.mu.Unlock()
	d.agent.note(whenever)
}

// settled notes how an attempt is over: with an outcome, or given back. An
// attempt nobody wants is forgotten; one the agent abandons because it stops
// stays as it is, for the next agent.
func (d *desk) settled(t *attempt, outcome *batch.Outcome, abandoned bool) {
	d.mu.Lock()
	d.slots += t.run.RequiredSlots
	d.slotFree[t.slot], t.slot = true, -1
	switch {
	case abandoned:
	case t.unwanted:
		d.attempts = slices.DeleteFunc(d.attempts, func(other *attempt) bool { return other == t })
		d.agent.keeper.Forget(t.id.String())
	case outcome == nil:
		t.phase = batch.PhaseReleased
	default:
		t.phase, t.outcome = batch.PhaseEnded, outcome
	}
	d.mu.Unlock()
	if !abandoned {
		d.schedule()
		d.agent.note(soon)
	}
}

// endAll cancels every attempt, for a boot, and returns when none has a
// goroutine any more.
func (d *desk) endAll(ctx context.Context) {
	d.mu.Lock()
	var ended []*attempt
	for _, t := range d.attempts {
		if t.begun && t.slot >= 0 {
			t.cancel(errReleased)
			ended = append(ended, t)
		}
	}
	d.mu.Unlock()
	for _, t := range ended {
		select {
		case <-t.done():
		case <-ctx.Done():
			return
		}
	}
}

// largest is the running attempt that uses most, by a measure.
func (d *desk) largest(size func(*attempt) int64) *attempt {
	d.mu.Lock()
	defer d.mu.Unlock()
	var found *attempt
	var most int64 = -1
	for _, t := range d.attempts {
		if t.slot >= 0 {
			if used := size(t); used > most {
				found, most = t, used
			}
		}
	}
	return found
}

// takeRemovals starts removals that are new and forgets those acknowledged.
func (d *desk) takeRemovals(removals []batch.Removal) {
	wanted := make(map[int64]bool, len(removals))
	for _, r := range removals {
		wanted[r.ID] = true
		if _, busy := d.removing[r.ID]; busy || d.removed[r.ID] {
			continue
		}
		leaving, staying := d.holding(r)
		if staying {
			// Someone wanted is in the directory, so this removal was done for
			// those before and its receipt was lost.
			d.removed[r.ID] = true
			d.agent.note(whenever)
			continue
		}
		d.removing[r.ID] = r
		d.agent.work.Go(func() { d.remove(r, leaving) })
	}
	for id := range d.removed {
		if !wanted[id] {
			delete(d.removed, id)
		}
	}
}

// holding are the attempts in the directory that is to be removed: unwanted
// ones that are about to leave it, and whether one is there to stay.
func (d *desk) holding(r batch.Removal) (leaving []*attempt, staying bool) {
	for _, t := range d.attempts {
		if (t.slot < 0 && (t.adopted.IsZero() || t.begun)) || !covers(r, t.id) {
			continue
		}
		if t.unwanted {
			leaving = append(leaving, t)
		} else {
			staying = true
		}
	}
	return leaving, staying
}

func covers(r batch.Removal, id attemptID) bool {
	return r.Job == id.job && (r.Task == "" || r.Task == id.task)
}

func (d *desk) remove(r batch.Removal, busy []*attempt) {
	for _, t := range busy {
		select {
		case <-t.done():
		case <-d.working.Done():
			return
		}
	}
	err := d.agent.tree.remove(r.Job, r.Task)
	if err != nil {
		d.agent.Log.Error("directory not removed", "job", r.Job, "task", r.Task, "err", err)
	}
	d.mu.Lock()
	delete(d.removing, r.ID)
	if err == nil {
		d.removed[r.ID] = true
	}
	d.mu.Unlock()
	d.schedule()
	d.agent.note(whenever)
}

// attemptID names an attempt.
type attemptID struct {
	job     batch.JobID
	task    batch.TaskID
	attempt int
}

// String is the name of the attempt's process at the keeper.
func (id attemptID) String() string { return fmt.Sprintf("%s/%s/%d", id.job, id.task, id.attempt) }

// context is the context of all work.
func (d *desk) context() context.Context {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.working
}
