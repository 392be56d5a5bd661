package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/batchyard/batchyard/agent/run"
	"github.com/batchyard/batchyard/batch"
)

// command is what tasks and start tasks have in common: a directory, files, a
// process with limits, and an outcome.
type command struct {
	agent *Agent
	// id names the process at the keeper; adopted tells that an earlier agent
	// started it.
	id      string
	adopted bool
	slot    int
	// number is that of the command's own user, if it has one.
	number uint32
	// place is the directory, relative to the node's root; the working
	// directory is wd below it.
	place string
	line  string
	files []batch.ResourceFile
	user  *batch.UserIdentity
	// limit is the wall clock time of files and process, from when it began on.
	began moment
	limit batch.Duration
	// env are the service's variables beside those of every command, own the
	// user's.
	env, own []string
	// keep leaves what is in the directory. Without it, that is done for a retry
	// alone: after is the mark of the run before, mark the one of this run,
	// see retry.go.
	keep        bool
	after, mark string
	// kept tells that the directory was there and stayed, fetched that its
	// files are there.
	kept, fetched bool
	// room and yields are those of run.Spec.
	room   int
	yields bool
	// launched tells that the process is known to have been started.
	launched bool
	// lost tells that all that ran on the node is gone with its keeper.
	lost bool
	// spec is what to start, once that is prepared.
	spec *run.Spec
	// leaveLine takes it out of the keeper's line, if it may be there, and tells
	// whether it has been started instead.
	leaveLine func() bool
}

// overLimit ends a command that uses more than it may; it is the failure that
// the task shows.
type overLimit struct{ info batch.FailureInfo }

func (e *overLimit) Error() string { return e.info.Message }

func tooLong(limit batch.Duration) error {
	return &overLimit{batch.FailureInfo{
		Category: batch.UserError, Code: batch.FailureWallClock, Message: "The task exceeded its maximum wall clock time",
		Details: []batch.NameValue{detail("Message", "maxWallClockTime is "+limit.String())},
	}}
}

func tooLarge(used, limit int64) error {
	return &overLimit{batch.FailureInfo{
		Category: batch.UserError, Code: batch.FailureDiskFull, Message: noSpaceMessage,
		Details: []batch.NameValue{detail("Message", fmt.Sprintf("the node's files use %d bytes of %d", used, limit))},
	}}
}

const noSpaceMessage = "There is not enough disk space on the compute node for the task"

// perform runs the command to its end; nil means that ctx has ended, or that
// nothing is known of its end, so that the attempt is given back.
func (c *command) perform(ctx context.Context) *batch.Outcome {
	limited, end := context.WithCancelCause(ctx)
	defer end(nil)
	if c.limit > 0 && c.limit != batch.Unlimited {
		left := c.limit.Std() - c.agent.lasted(c.began)
		if left <= 0 { // while there was no agent
			end(tooLong(c.limit))
		}
		defer time.AfterFunc(left, func() { end(tooLong(c.limit)) }).Stop()
	}
	defer c.agent.disk.watch(c.place, end)()
	if c.ownsUser() {
		c.takeNumber()
		defer c.agent.users.tasks.leave(c.number)
	}
	var outcome *batch.Outcome
	err := c.agent.guard("command "+c.id, func() error { outcome = c.within(limited); return nil })
	if err != nil {
		c.agent.endProcess(c.id)
		outcome = &batch.Outcome{End: batch.At(c.agent.end(c.began)), Failure: failureOf(err)}
	}
	if ctx.Err() != nil {
		return nil
	}
	return outcome
}

// ownsUser tells whether the command runs as a user that is made for it.
func (c *command) ownsUser() bool { return c.agent.users.own && ofTask(c.user) }

// takeNumber finds the number of the command's own user. One that runs already
// has given it its directory.
func (c *command) takeNumber() {
	if c.number = c.agent.tree.owner(c.place); c.adopted && c.number != 0 {
		c.agent.users.tasks.hold(c.number)
		return
	}
	c.number = c.agent.users.tasks.take()
}

// within is perform in a context that ends with *overLimit if the command uses
// more than it may.
func (c *command) within(ctx context.Context) *batch.Outcome {
	process := c.agent.keeper.Process(run.Spec{ID: c.id})
	if !c.adopted {
		if c.spec == nil && c.agent.tree.full() {
			c.agent.disk.noRoom()
			return nil
		}
		failure := c.ready(ctx)
		if over, ok := errors.AsType[*overLimit](context.Cause(ctx)); ok {
			failure = &over.info
		}
		if ctx.Err() != nil && c.leaveLine != nil && c.leaveLine() {
			return c.end(ctx, process)
		}
		if ctx.Err() != nil || failure != nil {
			if ctx.Err() == nil && failure.Category == batch.ServerError && failure.Code == batch.FailureCommandLaunch {
				c.couldNotBegin(true, failureText(failure))
			}
			return &batch.Outcome{End: batch.At(c.agent.end(c.began)), Failure: failure}
		}
		process = c.agent.keeper.Process(*c.spec)
		// Whether it has started must be known, so this goes on if ctx ends.
		if _, err := process.Start(c.agent.working); err != nil {
			return c.notStarted(err)
		}
	}
	return c.end(ctx, process)
}

// end waits for the end of the process and says what it means.
func (c *command) end(ctx context.Context, process run.Execution) *batch.Outcome {
	c.launched = true
	c.agent.starts.began()
	result, err := c.wait(ctx, process)
	c.lost = errors.Is(err, run.ErrKeeperLost) || err == nil && result.Reason == run.Lost
	if err != nil {
		if c.agent.working.Err() == nil {
			c.agent.Log.Error("end of a process not known", "id", c.id, "err", err)
		}
		return nil
	}
	return c.outcome(ctx, result)
}

// ready prepares the command unless that was done while it was in line.
func (c *command) ready(ctx context.Context) *batch.FailureInfo {
	if c.spec != nil {
		return nil
	}
	spec, failure := c.prepare(ctx)
	c.spec = &spec
	return failure
}

// prepare makes the directory, fetches the files and says what to start.
func (c *command) prepare(ctx context.Context) (run.Spec, *batch.FailureInfo) {
	a := c.agent
	settings := a.settings.Load()
	user, err := a.users.resolve(settings.UserAccounts, c.user, c.slot, c.number)
	if err != nil {
		return run.Spec{}, failureOf(err)
	}
	if a.tree.full() {
		return run.Spec{}, failureOf(syscall.ENOSPC)
	}
	place, err := a.tree.make(c.place, user.run, func(folder *os.Root) bool { return c.takesOver(folder, user.run) })
	if err == nil {
		err = c.fetch(ctx, place, user.run)
		place.Close()
	}
	if err != nil {
		return run.Spec{}, failureOf(err)
	}
	args, err := run.SplitCommandLine(c.line)
	if err != nil {
		return run.Spec{}, &batch.FailureInfo{
			Category: batch.UserError, Code: batch.FailureCommandLaunch, Message: "The command line cannot be read",
			Details: []batch.NameValue{detail("Message", err.Error()), detail("CommandLine", c.line)},
		}
	}
	folder := a.tree.path + "/" + c.place // both are clean
	return run.Spec{
		ID: c.id, Args: args, Dir: folder + "/wd", Admin: user.admin, User: user.run,
		Stdout: folder + "/stdout.txt", Stderr: folder + "/stderr.txt",
		Env: overlaid(append(c.environment(settings, folder, user), c.env...), c.own), Room: c.room, Yields: c.yields, Private: ofTask(c.user),
	}, nil
}

func (c *command) fetch(ctx context.Context, place *os.Root, user *run.User) error {
	if len(c.files) > 0 && !c.fetched {
		wd, err := place.OpenRoot("wd")
		if err != nil {
			return fmt.Errorf("open working directory: %w", err)
		}
		defer wd.Close()
		if !strings.HasPrefix(c.id, startPrefix) {
			defer c.agent.lives.at(c.id)()
		}
		if err := c.agent.fetcher.all(ctx, newTarget(wd, user), c.files); err != nil {
			return err
		}
	}
	c.fetched = true
	return nil
}

func (c *command) notStarted(err error) *batch.Outcome {
	start, ok := errors.AsType[*run.StartError](err)
	if !ok {
		// The keeper or the lease is gone: nothing of the task runs.
		if c.agent.working.Err() == nil && !errors.Is(err, run.ErrNoLease) {
			c.agent.Log.Error("command not started", "id", c.id, "err", err)
			c.couldNotBegin(true, err.Error())
		}
		return nil
	}
	c.couldNotBegin(false, start.Message)
	message := "The command could not be launched"
	if start.Code == run.CodeProgramNotFound {
		message = "The specified command program is not found"
	}
	return &batch.Outcome{End: batch.At(c.agent.end(c.began)), Failure: &batch.FailureInfo{
		Category: batch.UserError, Code: batch.FailureCode(start.Code), Message: message,
		Details: []batch.NameValue{detail("Message", start.Message), detail("CommandLine", c.line)},
	}}
}

// couldNotBegin counts a task that did not begin; own tells that the node is to
// blame.
func (c *command) couldNotBegin(own bool, why string) {
	if id, is := parseAttemptID(c.id); is && !strings.HasPrefix(c.id, startPrefix) {
		c.agent.starts.failed(id.job, own, why)
	}
}

// wait waits for the process, which is killed when ctx ends, unless only the
// agent stops.
func (c *command) wait(ctx context.Context, process run.Execution) (run.Result, error) {
	working := c.agent.working
	defer context.AfterFunc(ctx, func() {
		if working.Err() != nil {
			return
		}
		if err := process.Kill(working, 0); err != nil && working.Err() == nil {
			c.agent.Log.Warn("process not killed", "id", c.id, "err", err)
		}
	})()
	result, err := process.Wait(working)
	if err == nil && result.Leftovers {
		c.agent.Log.Error("something of a command could not be killed", "id", c.id)
	}
	return result, err
}

// outcome puts a result into the protocol's words; nil if it is the node's
// doing, not the command's.
func (c *command) outcome(ctx context.Context, result run.Result) *batch.Outcome {
	code := result.ExitCode
	if result.Signal != 0 {
		code = 128 + result.Signal
	}
	o := &batch.Outcome{End: batch.At(result.Ended), ExitCode: &code}
	over, exceeded := errors.AsType[*overLimit](context.Cause(ctx))
	switch {
	case result.Reason == run.Killed && exceeded:
		o.Failure = &over.info
	case result.Reason == run.Killed, result.Reason == run.LeaseExpired, result.Reason == run.Lost:
		return nil
	case result.Reason == run.OOMKilled:
		c.agent.leftovers.suspect()
		o.Failure = &batch.FailureInfo{
			Category: batch.UserError, Code: batch.FailureOutOfMemory, Message: "The task used more memory than the compute node has",
			Details: []batch.NameValue{detail("Message", fmt.Sprintf("limit %d bytes, peak %d bytes", result.MemoryLimit, result.MemoryPeak))},
		}
	case code != 0 && c.agent.tree.full():
		o.Failure = &batch.FailureInfo{
			Category: batch.UserError, Code: batch.FailureDiskFull, Message: noSpaceMessage,
			Details: []batch.NameValue{detail("Message", exitMessage(result)+" while the disk was full")},
		}
	case code != 0:
		o.Failure = &batch.FailureInfo{
			Category: batch.UserError, Code: batch.FailureExitCode, Message: "The task exited with an exit code representing a failure",
			Details: []batch.NameValue{detail("Message", exitMessage(result)), detail("AdditionalErrorCode", string(batch.FailureExitCode))},
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
