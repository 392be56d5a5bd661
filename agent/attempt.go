package agent

import (
	"context"
	"errors"
	"io/fs"
	"path"
	"strconv"
	"strings"

	"github.com/batchyard/batchyard/batch"
)

// attemptID names an attempt.
type attemptID struct {
	job     batch.JobID
	task    batch.TaskID
	attempt int
}

// String is the name of the attempt's process at the keeper.
func (id attemptID) String() string {
	return string(id.job) + "/" + string(id.task) + "/" + strconv.Itoa(id.attempt)
}

// parseAttemptID is the inverse of String.
func parseAttemptID(name string) (attemptID, bool) {
	parts := strings.Split(name, "/")
	if len(parts) != 3 {
		return attemptID{}, false
	}
	attempt, err := strconv.Atoi(parts[2])
	return attemptID{batch.JobID(parts[0]), batch.TaskID(parts[1]), attempt}, err == nil
}

// attempt is one attempt of a task on this node. Its desk's lock guards it,
// save what is set before it begins.
//
//	held ──▶ running ──▶ ended
//	  └─────────┴──────▶ released
//
// It is forgotten once the orders no longer name it and nothing of it runs.
type attempt struct {
	agent *Agent
	id    attemptID
	run   *batch.TaskRun
	phase batch.TaskPhase
	// died is set when it is given back because agents died under it.
	died batch.Death
	// taken is the phase that the server is known to have taken.
	taken batch.TaskPhase
	// start and since are set from PhaseRunning on, outcome with PhaseEnded.
	start   *batch.Time
	since   moment
	outcome *batch.Outcome
	// owed tells that an earlier agent had its result and could not hand it over.
	owed bool
	// begun: has, or had, a goroutine. unwanted: the orders no longer name it.
	begun, unwanted bool
	// adopted tells that an earlier agent started its process, which the
	// keeper still has.
	adopted bool
	// launched: its process is known to have been started; only its goroutine
	// asks. unbegun: an agent that called it running stopped before, this one or
	// one that left it to this one, so the next one begins it.
	launched, unbegun bool
	// alive: has a goroutine.
	alive bool
	// lined: has been lined up and has no slot yet.
	lined bool
	// slot is the number of its slot while it has one, else -1.
	slot   int
	ctx    context.Context //nolint:containedctx // the lifetime of the attempt, from its begin on
	cancel context.CancelCauseFunc
	// turn ends when an attempt that was lined up is called, see line.go; nil
	// for others.
	turn context.Context //nolint:containedctx // a part of ctx
	call context.CancelCauseFunc
	// ahead is closed when it may enter the line, entered when it has or will
	// not, which lets the next one in.
	ahead, entered chan struct{}
	// before is the attempt whose slot it has and whose end is still to be
	// noted, heir the one that has its slot.
	before, heir *attempt
	finished     chan struct{} // closed when its goroutine is over
}

// Why an attempt is cancelled.
var (
	errUnwanted = errors.New("the orders no longer name the attempt")
	errReleased = errors.New("the attempt was asked back")
	errLease    = errors.New("the lease has run out")
)

// begin notes when it began. The caller holds the desk's lock.
func (t *attempt) begin(at moment) {
	start := batch.At(at.date)
	t.start, t.since = &start, at
}

func (t *attempt) report() batch.TaskReport {
	r := batch.TaskReport{
		Job: t.id.job, Task: t.id.task, Attempt: t.id.attempt, Phase: t.phase, Died: t.died, Start: t.start, Outcome: t.outcome,
	}
	if t.phase == batch.PhaseHeld {
		r.Start = nil
	}
	return r
}

// final tells that nothing more happens to it here.
func (t *attempt) final() bool { return t.phase == batch.PhaseEnded || t.phase == batch.PhaseReleased }

// guarded is execute, of which a panic fails this attempt alone.
func (t *attempt) guarded() (next *attempt) {
	a := t.agent
	err := a.guard("attempt "+t.id.String(), func() error { next = t.execute(); return nil })
	if err != nil {
		_ = a.guard("end of attempt "+t.id.String(), func() error { // which has been logged
			next = a.desk.settled(t, &batch.Outcome{End: batch.At(a.now()), Failure: failureOf(err)})
			return nil
		})
	}
	return next
}

// execute runs the attempt to its end, settles it and returns the one to go on
// with.
func (t *attempt) execute() (next *attempt) {
	defer close(t.finished)
	defer t.cancel(nil)
	outcome := t.perform(t.ctx)
	if t.agent.working.Err() == nil { // else it may run on
		t.leave(outcome)
	}
	return t.agent.desk.settled(t, outcome)
}

// leave settles the task's directory before its slot is free. The user of a
// task that has one of its own is the slot's, so the next such task there must
// not reach what this one left. Who has filled the disk does not keep it full
// for those that come after.
func (t *attempt) leave(outcome *batch.Outcome) {
	place := taskPlace(t.id.job, t.id.task)
	var err error
	if t.ofSlotUser() && t.agent.users.own {
		err = t.agent.tree.seal(place)
	}
	if outcome != nil && outcome.Failure != nil && outcome.Failure.Code == batch.FailureDiskFull {
		err = errors.Join(err, t.agent.tree.clear(path.Join(place, "wd")))
	}
	t.agent.disk.settled(place)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.agent.Log.Error("task directory not settled", "job", t.id.job, "task", t.id.task, "err", err)
	}
}

// perform returns nil when the attempt is given back.
func (t *attempt) perform(ctx context.Context) *batch.Outcome {
	a, place := t.agent, taskPlace(t.id.job, t.id.task)
	c := &command{
		agent: a, id: t.id.String(), adopted: t.adopted, place: place, line: t.run.CommandLine,
		files: t.run.ResourceFiles, user: t.run.UserIdentity, limit: t.run.MaxWallClockTime,
		env: a.taskEnvironment(t.id), own: settingsOf(t.run.EnvironmentSettings), room: t.run.RequiredSlots, yields: t.yields(),
		after: attemptMark(t.id.attempt - 1), mark: attemptMark(t.id.attempt),
	}
	if t.turn == nil {
		c.slot = t.slot
	} else if !t.await(c) {
		return nil
	}
	c.began = a.desk.running(t)
	outcome := c.perform(ctx)
	t.launched = c.launched
	if outcome == nil {
		if c.lost {
			a.desk.lost(t)
		}
		return nil
	}
	if len(t.run.OutputFiles) > 0 {
		defer a.lives.at(c.id)()
	}
	var failure *batch.FailureInfo
	if err := a.guard("upload of "+c.id, func() error {
		failure = a.upload(ctx, c, t.run.OutputFiles, outcome.Failure == nil)
		return nil
	}); err != nil {
		failure = failureOf(err)
	}
	if failure != nil && outcome.Failure == nil {
		outcome.Failure = failure
	}
	if ctx.Err() != nil {
		return nil
	}
	c.failed(outcome)
	outcome.End = batch.At(a.end(c.began))
	return outcome
}
