package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/client"
	"github.com/google/uuid"
	"github.com/spf13/cobra"
)

// runOptions are the flags of run.
type runOptions struct {
	pool, job, task string
	env             []string
	timeout         time.Duration
	retries         int
	detach          bool
}

func newRun(p Process) *cobra.Command {
	var flags sessionFlags
	var o runOptions
	command := &cobra.Command{
		Use:   "run [flags] -- PROGRAM [ARGUMENT...]",
		Short: "Run a program as a task, print what it prints, end as it ends",
		Long: `run adds one task, follows what it writes and ends with its exit code: 125 if
the task ended without one, 130 after Ctrl-C, which ends the task too.

Words are passed on as they are. What needs a shell names it:
  batchyard run -- sh -c 'ls | wc -l'

Without --job the task gets a job of its own, which completes with it and stays
until it is deleted, so that 'batchyard task show last' and 'task logs last'
work.`,
		Example: `  batchyard run -- echo hello
  batchyard run --pool render --env FRAME=7 --timeout 10m -- ./render.sh
  batchyard run --detach -- sleep 60`,
		Args: someArgs("PROGRAM"),
		RunE: func(command *cobra.Command, args []string) error {
			s, err := flags.open(p)
			if err != nil {
				return err
			}
			return s.run(command.Context(), o, args)
		},
	}
	flags.add(command)
	f := command.Flags()
	f.SetInterspersed(false)
	f.StringVar(&o.pool, "pool", "", "run it in pool `ID` (default: 'local', or the only pool there is)")
	f.StringVar(&o.job, "job", "", "add it to the job `ID`, which exists, in place of a new one")
	f.StringVar(&o.task, "id", "", "`ID` of the task")
	f.StringArrayVar(&o.env, "env", nil, "set `NAME=VALUE` in its environment; may be repeated")
	f.DurationVar(&o.timeout, "timeout", 0, "end it after `TIME`, as 90s or 2h")
	f.IntVar(&o.retries, "retries", 0, "run it up to `N` more times if it fails; -1 for as often as it takes")
	f.BoolVar(&o.detach, "detach", false, "print JOB/TASK and do not wait")
	return command
}

// run adds the task and, unless it is detached, stays with it.
func (s *session) run(ctx context.Context, o runOptions, words []string) error {
	task, err := o.specification(words)
	if err != nil {
		return usageError{err}
	}
	job, id, err := s.submit(ctx, o, task)
	if err != nil {
		return err
	}
	if o.detach {
		return s.output.print(fmt.Sprintf("%s/%s", job, id))
	}
	ended, err := s.follow(ctx, job, id, s.log(job, id, "stdout.txt", s.process.Stdout), s.log(job, id, "stderr.txt", s.process.Stderr))
	if ctx.Err() != nil {
		s.endTask(ctx, job, id)
		return exitStatus(exitInterrupted)
	}
	if err != nil {
		return err
	}
	return s.outcome(job, id, ended)
}

// outcome ends the command as the task ended.
func (s *session) outcome(job batch.JobID, id batch.TaskID, t client.Task) error {
	info := t.ExecutionInfo
	if f := info.FailureInfo; f != nil && f.Code != batch.FailureExitCode {
		s.note("batchyard: %s/%s: %s: %s", job, id, f.Code, printable(f.Message))
		for _, d := range f.Details {
			s.note("  %s: %s", printable(d.Name), printable(d.Value))
		}
		if info.ExitCode == nil || *info.ExitCode == 0 {
			return exitStatus(exitNoOutcome)
		}
	}
	switch {
	case info.ExitCode == nil:
		return exitStatus(exitNoOutcome)
	case *info.ExitCode == 0:
		return nil
	}
	return exitStatus(*info.ExitCode)
}

// endTask ends the task of a command that was interrupted.
func (s *session) endTask(ctx context.Context, job batch.JobID, id batch.TaskID) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	_, err := s.Call(ctx, http.MethodPost, taskPath(job, id)+"/terminate", nil, nil, nil)
	if err != nil && batch.CodeOf(err) != batch.CodeTaskCompleted {
		s.note("batchyard: %s/%s may still run: %s", job, id, explain(err))
		return
	}
	s.note("batchyard: %s/%s was ended", job, id)
}

var envName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// specification is the task as the API has it.
func (o *runOptions) specification(words []string) (map[string]any, error) {
	task := map[string]any{"id": o.task, "commandLine": commandLine(words)}
	if o.task == "" {
		task["id"] = "1"
		if o.job != "" {
			task["id"] = "run-" + uuid.NewString()[:8]
		}
	}
	var env []map[string]any
	for _, setting := range o.env {
		name, value, found := strings.Cut(setting, "=")
		if !found || !envName.MatchString(name) {
			return nil, fmt.Errorf("--env is NAME=VALUE, not %q", setting)
		}
		env = append(env, map[string]any{"name": name, "value": value})
	}
	if env != nil {
		task["environmentSettings"] = env
	}
	if o.timeout < 0 || o.retries < -1 {
		return nil, errors.New("--timeout is a length of time, --retries is -1 or more")
	}
	constraints := map[string]any{"maxTaskRetryCount": o.retries}
	if o.timeout > 0 {
		constraints["maxWallClockTime"] = batch.DurationOf(o.timeout)
	}
	task["constraints"] = constraints
	return task, nil
}

// submit adds the task, with a job of its own unless one was named.
func (s *session) submit(ctx context.Context, o runOptions, task map[string]any) (batch.JobID, batch.TaskID, error) {
	id := batch.TaskID(task["id"].(string))
	if o.job != "" {
		job, err := s.job(ctx, o.job)
		if err != nil {
			return "", "", err
		}
		return job, id, s.AddTask(ctx, job, task)
	}
	pool, err := s.choosePool(ctx, batch.PoolID(o.pool))
	if err != nil {
		return "", "", err
	}
	job := batch.JobID("run-" + time.Now().UTC().Format("20060102-150405-") + uuid.NewString()[:8])
	if err := s.AddJob(ctx, job, pool); err != nil {
		return "", "", err
	}
	err = s.AddTask(ctx, job, task)
	if err == nil {
		// Only now: a job that is to end with its tasks ends at once while it has none.
		_, err = s.Call(ctx, http.MethodPatch, jobPath(job), nil, map[string]any{"onAllTasksComplete": "terminatejob"}, nil)
		if batch.CodeOf(err) == batch.CodeJobCompleted {
			err = nil
		}
	}
	if err != nil {
		return "", "", errors.Join(err, s.takeBack(ctx, job))
	}
	return job, id, nil
}

// takeBack removes a job whose task could not be added.
func (s *session) takeBack(ctx context.Context, job batch.JobID) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := s.DeleteJob(ctx, job); err != nil {
		return fmt.Errorf("delete job %s: %w", job, err)
	}
	return nil
}

// choosePool finds the pool to run in if none was named. One that was named must
// be there: a job would be accepted and wait for it, and whoever runs a command
// does not want that.
func (s *session) choosePool(ctx context.Context, named batch.PoolID) (batch.PoolID, error) {
	if named != "" {
		_, err := s.Pool(ctx, named)
		return named, err
	}
	var pools []string
	for pool, err := range client.Each[client.Pool](ctx, s.Client, "/pools", nil) {
		if err != nil {
			return "", err
		}
		if pool.State == batch.PoolActive {
			pools = append(pools, string(pool.ID))
		}
	}
	switch {
	case slices.Contains(pools, devPool):
		return devPool, nil
	case len(pools) == 1:
		return batch.PoolID(pools[0]), nil
	case len(pools) == 0:
		return "", errors.New("the account has no pool to run in: create one first, 'batchyard dev' has one ready-made")
	}
	return "", usageError{fmt.Errorf("say --pool: the account has %s", strings.Join(pools, ", "))}
}

// plain are words that need no quotes in a command line.
var plain = regexp.MustCompile(`^[A-Za-z0-9_@%+=:,./-]+$`)

// commandLine writes words as one line that a node splits into the same words.
func commandLine(words []string) string {
	quoted := make([]string, len(words))
	for i, word := range words {
		quoted[i] = word
		if !plain.MatchString(word) {
			quoted[i] = "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
		}
	}
	return strings.Join(quoted, " ")
}
