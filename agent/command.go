package agent

import (
	"context"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/batchyard/batchyard/agent/run"
	"github.com/batchyard/batchyard/batch"
)

// command is what tasks and start tasks have in common: a directory, files, a
// process with limits, and an outcome.
type command struct {
	agent *Agent
	// id names the process at the keeper; started is when it began, set from
	// the outset when an earlier agent started it.
	id      string
	started time.Time
	slot    int
	// place is the directory, relative to the node's root; the working
	// directory is wd below it.
	place string
	line  string
	files []batch.ResourceFile
	user  *batch.UserIdentity
	limit batch.Duration
	env   []string
	// keep leaves what is in the directory.
	keep bool

	expired atomic.Bool
}

// perform runs the command to its end; nil means that it was cancelled, or that
// nothing is known of its end, so that the attempt is given back.
func (c *command) perform(ctx context.Context) *batch.Outcome {
	process := c.agent.keeper.Process(run.Spec{ID: c.id})
	if c.started.IsZero() {
		spec, failure := c.prepare(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if failure != nil {
			return &batch.Outcome{End: batch.At(time.Now()), Failure: failure}
		}
		process = c.agent.keeper.Process(spec)
		started, err := process.Start(ctx)
		if err != nil {
			return c.notStarted(ctx, err)
		}
		c.started = started.At
	}
	result, err := c.wait(ctx, process)
	if err != nil {
		return nil
	}
	return c.outcome(result)
}

// prepare makes the directory, fetches the files and says what to start.
func (c *command) prepare(ctx context.Context) (run.Spec, *batch.FailureInfo) {
	user, err := c.agent.users.resolve(c.user, c.slot)
	if err != nil {
		return run.Spec{}, failureOf(err)
	}
	if err := c.agent.tree.make(c.place, user.run, c.keep); err != nil {
		return run.Spec{}, failureOf(err)
	}
	if err := c.agent.fetcher.all(ctx, c.agent.tree, path.Join(c.place, "wd"), c.files, user.run); err != nil {
		return run.Spec{}, failureOf(err)
	}
	args, err := run.SplitCommandLine(c.line)
	if err != nil {
		return run.Spec{}, &batch.FailureInfo{
			Category: batch.UserError, Code: batch.FailureCommandLaunch, Message: "The command line cannot be read",
			Details: []batch.NameValue{{Name: "Message", Value: err.Error()}, {Name: "CommandLine", Value: c.line}},
		}
	}
	folder := filepath.Join(c.agent.tree.path, c.place)
	return run.Spec{
		ID: c.id, Args: args, Dir: filepath.Join(folder, "wd"), Admin: user.admin, User: user.run,
		Stdout: filepath.Join(folder, "stdout.txt"), Stderr: filepath.Join(folder, "stderr.txt"),
		Env: lastWins(append(c.environment(folder, user), c.env...)),
	}, nil
}

func (c *command) notStarted(ctx context.Context, err error) *batch.Outcome {
	start, ok := errors.AsType[*run.StartError](err)
	if !ok {
		// The keeper or the lease is gone: nothing of the task runs.
		if ctx.Err() == nil {
			c.agent.Log.Error("command not started", "id", c.id, "err", err)
		}
		return nil
	}
	return &batch.Outcome{End: batch.At(time.Now()), Failure: &batch.FailureInfo{
		Category: batch.UserError, Code: batch.FailureCode(start.Code),
		Message: map[bool]string{true: "The specified command program is not found", false: "The command could not be launched"}[start.Code == run.CodeProgramNotFound],
		Details: []batch.NameValue{{Name: "Message", Value: start.Message}, {Name: "CommandLine", Value: c.line}},
	}}
}

// wait waits for the process within its wall clock limit. When ctx is
// cancelled the process is killed, unless only the agent stops.
func (c *command) wait(ctx context.Context, process *run.Process) (run.Result, error) {
	waiting, abandon := context.WithCancel(context.WithoutCancel(ctx))
	defer abandon()
	kill := func() {
		if err := process.Kill(waiting, 0); err != nil && waiting.Err() == nil {
			c.agent.Log.Warn("process not killed", "id", c.id, "err", err)
		}
	}
	defer context.AfterFunc(ctx, func() {
		if errors.Is(context.Cause(ctx), errStopping) {
			abandon()
			return
		}
		kill()
	})()
	if c.limit > 0 && c.limit != batch.Unlimited {
		defer time.AfterFunc(time.Until(c.started.Add(c.limit.Std())), func() {
			c.expired.Store(true)
			kill()
		}).Stop()
	}
	result, err := process.Wait(waiting)
	if err == nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return result, err
}

// outcome puts a result into the protocol's words.
func (c *command) outcome(result run.Result) *batch.Outcome {
	code := result.ExitCode
	if result.Signal != 0 {
		code = 128 + result.Signal
	}
	o := &batch.Outcome{End: batch.At(result.Ended), ExitCode: &code}
	full := c.agent.disk.blamed(c.id)
	switch {
	case full != "":
		o.Failure = &batch.FailureInfo{
			Category: batch.UserError, Code: batch.FailureDiskFull, Message: "There is not enough disk space on the compute node for the task",
			Details: []batch.NameValue{{Name: "Message", Value: full}},
		}
	case c.expired.Load():
		o.Failure = &batch.FailureInfo{
			Category: batch.UserError, Code: batch.FailureWallClock, Message: "The task exceeded its maximum wall clock time",
			Details: []batch.NameValue{{Name: "Message", Value: "maxWallClockTime is " + c.limit.String()}},
		}
	case result.Reason == run.LeaseExpired, result.Reason == run.Lost, result.Reason == run.Killed:
		return nil
	case result.Reason == run.OOMKilled:
		o.Failure = &batch.FailureInfo{
			Category: batch.UserError, Code: batch.FailureOutOfMemory, Message: "The task used more memory than the compute node has",
			Details: []batch.NameValue{{Name: "Message", Value: fmt.Sprintf("limit %d bytes, peak %d bytes", result.MemoryLimit, result.MemoryPeak)}},
		}
	case code != 0:
		o.Failure = &batch.FailureInfo{
			Category: batch.UserError, Code: batch.FailureExitCode, Message: "The task exited with an exit code representing a failure",
			Details: []batch.NameValue{{Name: "Message", Value: exitMessage(result)}, {Name: "AdditionalErrorCode", Value: string(batch.FailureExitCode)}},
		}
	}
	return o
}

func exitMessage(result run.Result) string {
	if result.Signal != 0 {
		return fmt.Sprintf("The task process was ended by signal %d", result.Signal)
	}
	return fmt.Sprintf("The task process exited with code %d", result.ExitCode)
}

// taskFailure is an error that is the task's own failure, in the protocol's
// words.
type taskFailure struct{ info batch.FailureInfo }

func (f *taskFailure) Error() string { return f.info.Message }

func userFailure(code batch.FailureCode, message string, details ...batch.NameValue) error {
	return &taskFailure{batch.FailureInfo{Category: batch.UserError, Code: code, Message: message, Details: details}}
}

// failureOf is what a task shows for an error: its own words, or a fault of
// the node.
func failureOf(err error) *batch.FailureInfo {
	if own, ok := errors.AsType[*taskFailure](err); ok {
		return &own.info
	}
	if noSpace(err) {
		return &batch.FailureInfo{
			Category: batch.ServerError, Code: batch.FailureDiskFull, Message: "There is not enough disk space on the compute node for the task",
			Details: []batch.NameValue{{Name: "Message", Value: err.Error()}},
		}
	}
	return &batch.FailureInfo{
		Category: batch.ServerError, Code: batch.FailureCommandLaunch, Message: "The compute node could not prepare the task",
		Details: []batch.NameValue{{Name: "Message", Value: err.Error()}},
	}
}
