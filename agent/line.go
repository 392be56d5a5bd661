package agent

import (
	"context"
	"errors"
	"sync"

	"github.com/batchyard/batchyard/agent/run"
	"github.com/batchyard/batchyard/batch"
)

// Attempts for which there is no slot yet are lined up: their directories are
// made while others run, and the keeper starts the first of them as soon as a
// slot like its own is passed on, without asking. The node does not idle while
// the end of a short task is told and the next is prepared.
//
// Who is in line has no slot. It gets one in either of two ways: an attempt that
// has ended passes on its own (followed), or a slot is free and it is its turn
// (errTurn).

// Attempts are lined up until there are maxLine, and again when half are gone, so
// that the keeper is told of several at once.
const maxLine = 128

// Lined is an execution that can wait in the keeper's line. Processes can; what
// cannot starts when it has a slot.
type Lined interface {
	run.Execution

	// LineUp is Start for when another execution makes room, see
	// [run.Process.LineUp]. Entered is called once those that line up from then
	// on are behind it.
	LineUp(ctx context.Context, entered func()) (run.Started, error)

	// Withdraw takes the execution out of line. If it has been started before
	// nothing changes, and how it was is returned.
	Withdraw(ctx context.Context) (*run.Started, error)
}

// errTurn calls an attempt in line.
var errTurn = errors.New("there is a slot for the attempt")

// waits tells that an attempt has no slot yet and is to get one.
func (t *attempt) waits() bool { return t.phase == batch.PhaseHeld && t.slot < 0 && t.before == nil }

// inLine tells that it is in line.
func (t *attempt) inLine() bool { return t.waits() && t.begun }

// mayLineUp tells whether an attempt needs nothing but a directory before it
// starts. The slot's own user is known with the slot only; files are fetched
// on the task's time.
func (t *attempt) mayLineUp() bool {
	return len(t.run.ResourceFiles) == 0 && !t.ofSlotUser()
}

// yields tells whether the keeper may pass on its slot when its process has
// ended well: nothing is left to be done in it.
func (t *attempt) yields() bool {
	return len(t.run.OutputFiles) == 0 && !t.ofSlotUser()
}

func (t *attempt) ofSlotUser() bool { return ofTask(t.run.UserIdentity) }

// ofTask tells whether a user is made for one task.
func ofTask(u *batch.UserIdentity) bool {
	return u != nil && u.AutoUser != nil && u.AutoUser.Scope == batch.ScopeTask
}

// lineUp lines up attempts behind those that run, in their order. The caller
// holds the lock.
func (d *desk) lineUp() {
	if d.lined > maxLine/2 || !d.open() {
		return
	}
	for _, t := range d.attempts {
		if !t.waits() || t.begun {
			continue
		}
		if d.lined == maxLine || !t.mayLineUp() || d.blocked(t) {
			return
		}
		d.enqueue(t)
	}
}

// enqueue has an attempt enter the line behind the last one. The caller holds
// the lock.
func (d *desk) enqueue(t *attempt) {
	d.begin(t)
	d.lined++
	t.lined = true
	t.turn, t.call = context.WithCancelCause(t.ctx)
	t.ahead, t.entered = d.lineEnd, make(chan struct{})
	d.lineEnd = t.entered
	d.execute(t)
}

// followed passes on the slot of an attempt to the one that the keeper has
// started instead.
func (d *desk) followed(ended, next string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	t, heir := d.named(ended), d.named(next)
	if t == nil || heir == nil || t.slot < 0 || !heir.inLine() {
		return
	}
	d.leaveLine(heir)
	heir.slot, heir.before, t.slot, t.heir = t.slot, t, -1, heir
}

// leaveLine notes that an attempt is not in line any more, if it was: it has a
// slot, or its goroutine ends. The caller holds the lock.
func (d *desk) leaveLine(t *attempt) {
	if t.lined {
		t.lined = false
		d.lined--
	}
}

func closedChannel() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}

// named is the attempt whose process has a name. The caller holds the lock.
func (d *desk) named(process string) *attempt {
	id, ok := parseAttemptID(process)
	if !ok {
		return nil
	}
	return d.living.attempts[id]
}

// vacate gives back the slot of an attempt whose goroutine ends, or lets the one
// that has it be seen as running: no slot is seen in use twice. The caller
// holds the lock.
func (d *desk) vacate(t *attempt) {
	d.living.leave(t)
	d.leaveLine(t)
	if t.slot >= 0 {
		d.slots += t.run.RequiredSlots
		d.slotFree[t.slot], t.slot = true, -1
	}
	if t.before != nil && t.before.heir == t {
		t.before.heir = nil
	}
	t.before = nil
	if heir := t.heir; heir != nil {
		t.heir, heir.before = nil, nil
		if heir.start != nil && heir.phase == batch.PhaseHeld {
			heir.phase = batch.PhaseRunning
		}
	}
}

// await has the keeper start the attempt when it comes to it, or waits until it
// has a slot in which the caller starts it. False: it was withdrawn.
func (t *attempt) await(c *command) bool {
	desk := t.agent.desk
	enter := sync.OnceFunc(func() { close(t.entered) })
	defer enter()
	select {
	case <-t.ahead:
	case <-t.turn.Done():
		return t.called()
	}
	spec, failure := c.prepare(t.turn)
	if failure != nil {
		// Perhaps for want of disk, which those before may leave behind: it is
		// tried again on the attempt's own time, and nobody passes it.
		<-t.turn.Done()
		return t.called()
	}
	c.spec = &spec
	process, ok := t.agent.keeper.Process(spec).(Lined)
	if !ok {
		<-t.turn.Done()
		return t.called()
	}
	c.leaveLine = func() bool { return t.withdraw(c, process) }
	switch began, err := process.LineUp(t.turn, enter); {
	case err == nil:
		c.adopted = true
		desk.began(t, began)
		return true
	case errors.Is(err, run.ErrKeeperLost):
		return false // it may have run
	case desk.hasSlot(t):
		return true
	}
	<-t.turn.Done()
	return t.called() || t.withdraw(c, process)
}

// called tells whether the turn of an attempt has come.
func (t *attempt) called() bool { return errors.Is(context.Cause(t.turn), errTurn) }

// withdraw takes an attempt out of line, false unless it has been started.
func (t *attempt) withdraw(c *command, process Lined) bool {
	a := t.agent
	began, err := process.Withdraw(a.working)
	switch {
	case a.working.Err() != nil:
		return false
	case err != nil:
		a.Log.Error("attempt not withdrawn", "id", c.id, "err", err)
		return false
	case began != nil:
		c.adopted = true
		a.desk.began(t, *began)
		return true
	}
	if c.kept {
		return false // the next run goes on in it, perhaps here
	}
	if err := a.tree.clear(c.place); err != nil {
		a.Log.Warn("directory of a task that did not run here is left", "job", t.id.job, "task", t.id.task, "err", err)
	}
	return false
}

// began notes when an attempt that was in line has begun.
func (d *desk) began(t *attempt, s run.Started) {
	d.mu.Lock()
	defer d.mu.Unlock()
	t.begin(d.agent.began(s))
}

func (d *desk) hasSlot(t *attempt) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return t.slot >= 0
}
