package agent

import (
	"context"
	"errors"
	"time"

	"github.com/batchyard/batchyard/batch"
)

// attempt is one attempt of a task on this node. Its desk's lock guards it,
// save what is set before it begins.
type attempt struct {
	agent *Agent
	id    attemptID
	run   *batch.TaskRun
	phase batch.TaskPhase
	// start is set from PhaseRunning on, outcome with PhaseEnded.
	start   *batch.Time
	outcome *batch.Outcome
	// begun: has, or had, a goroutine. unwanted: the orders no longer name it.
	begun, unwanted bool
	// adopted is when its process began, if an earlier agent started it and
	// the keeper still has it.
	adopted time.Time
	// slot is the number of its slot while it has a goroutine, else -1.
	slot     int
	cancel   context.CancelCauseFunc
	finished chan struct{}
}

// Why an attempt is cancelled.
var (
	errUnwanted = errors.New("the orders no longer name the attempt")
	errReleased = errors.New("the attempt was asked back")
)

func (t *attempt) report() batch.TaskReport {
	return batch.TaskReport{
		Job: t.id.job, Task: t.id.task, Attempt: t.id.attempt, Phase: t.phase, Start: t.start, Outcome: t.outcome,
	}
}

// done is closed when the attempt's goroutine is over.
func (t *attempt) done() <-chan struct{} { return t.finished }

// execute runs the attempt to its end and settles it.
func (t *attempt) execute(ctx context.Context) {
	defer close(t.finished)
	outcome := t.perform(ctx)
	t.agent.desk.settled(t, outcome, errors.Is(context.Cause(ctx), errStopping))
}

// perform returns nil when the attempt is given back.
func (t *attempt) perform(ctx context.Context) *batch.Outcome {
	a := t.agent
	c := &command{
		agent: a, id: t.id.String(), started: t.adopted, slot: t.slot,
		place: taskPlace(t.id.job, t.id.task), line: t.run.CommandLine, files: t.run.ResourceFiles,
		user: t.run.UserIdentity, limit: t.run.MaxWallClockTime,
		env: a.taskEnvironment(t.id.job, t.id.task, t.id.attempt, t.run.EnvironmentSettings),
	}
	if t.start == nil {
		a.desk.running(t, batch.At(time.Now()))
	} else {
		a.desk.running(t, *t.start)
	}
	outcome := c.perform(ctx)
	if outcome == nil {
		return nil
	}
	if failure := a.upload(ctx, t, outcome.Failure == nil); failure != nil && outcome.Failure == nil {
		outcome.Failure = failure
	}
	if ctx.Err() != nil {
		return nil
	}
	outcome.End = batch.At(time.Now())
	return outcome
}
