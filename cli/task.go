package cli

import (
	"context"
	"fmt"
	"regexp"
	"time"

	"github.com/spf13/cobra"
)

func newTask(p Process) *cobra.Command {
	command := &cobra.Command{
		Use: "task", Short: "List and show tasks, read what they print", Args: noArgs,
		Long: `A task is named as JOB/TASK, by its address, or as 'last': the newest task of
the newest job. Either part may be 'last' too.`,
		RunE: func(command *cobra.Command, _ []string) error { return command.Help() },
	}
	command.AddCommand(newTaskList(p), newTaskShow(p), newTaskLogs(p))
	return command
}

var taskStates = []string{"active", "preparing", "running", "completed"}

func newTaskList(p Process) *cobra.Command {
	var flags shownFlags
	var list listFlags
	var failed bool
	var exitCode string
	command := &cobra.Command{
		Use: "list JOB", Short: "List the tasks of a job", Args: oneArg("JOB"),
		Example: `  batchyard task list last --failed
  batchyard task list last --exit-code '!=0' -o name`,
		RunE: func(command *cobra.Command, args []string) error {
			s, err := flags.open(p)
			if err != nil {
				return err
			}
			var clauses []string
			if failed {
				clauses = append(clauses, "executionInfo/result eq 'failure'")
			}
			if exitCode != "" {
				clause, err := exitCodeFilter(exitCode)
				if err != nil {
					return usageError{err}
				}
				clauses = append(clauses, clause)
			}
			query, err := list.query(taskStates, clauses...)
			if err != nil {
				return err
			}
			job, err := s.job(command.Context(), args[0])
			if err != nil {
				return err
			}
			return s.list(command.Context(), jobPath(job)+"/tasks", query, list.limit, []column{
				of("ID", "id"), of("STATE", "state"), of("EXIT", "executionInfo", "exitCode"), {"RAN", ran},
				{"NODE", shortNode}, {"FAILURE", failure},
			})
		},
	}
	flags.add(command)
	list.add(command, taskStates...)
	command.Flags().BoolVar(&failed, "failed", false, "only those that failed")
	command.Flags().StringVar(&exitCode, "exit-code", "", "only those that ended with `N`; also '!=N', '>N', '<N'")
	return command
}

var exitCodeForm = regexp.MustCompile(`^(=|!=|>|<|>=|<=)?(-?[0-9]{1,10})$`)

// exitCodeFilter writes a condition on the exit code as the API has it.
func exitCodeFilter(text string) (string, error) {
	parts := exitCodeForm.FindStringSubmatch(text)
	if parts == nil {
		return "", fmt.Errorf("--exit-code is a number with =, !=, >, >=, < or <= before it, not %q", text)
	}
	operator := map[string]string{"": "eq", "=": "eq", "!=": "ne", ">": "gt", "<": "lt", ">=": "ge", "<=": "le"}[parts[1]]
	return "executionInfo/exitCode " + operator + " " + parts[2], nil
}

// shortNode is as much of a node's id as tells it from others.
func shortNode(i item) string {
	const enough = 14
	if id := i.text("nodeInfo", "nodeId"); len(id) > enough+3 {
		return id[:enough] + "…"
	}
	return i.text("nodeInfo", "nodeId")
}

// ran is how long the newest run of a task took, or has taken so far.
func ran(i item) string {
	start, end := i.time("executionInfo", "startTime"), i.time("executionInfo", "endTime")
	switch {
	case start.IsZero():
		return ""
	case end.IsZero():
		return short(time.Since(start))
	}
	return short(end.Sub(start))
}

// failure is why a task failed, in a few words.
func failure(i item) string {
	code, message := i.text("executionInfo", "failureInfo", "code"), i.text("executionInfo", "failureInfo", "message")
	if code == "" || code == "FailureExitCode" || message == "" {
		return code
	}
	return code + ": " + message
}

func newTaskShow(p Process) *cobra.Command {
	var flags shownFlags
	command := &cobra.Command{
		Use: "show TASK", Short: "Show a task", Args: oneArg("TASK"),
		Example: `  batchyard task show last
  batchyard task show nightly-17/frame-0042 -o yaml`,
		RunE: func(command *cobra.Command, args []string) error {
			s, err := flags.open(p)
			if err != nil {
				return err
			}
			return s.showTask(command.Context(), args[0])
		},
	}
	flags.add(command)
	return command
}

func (s *session) showTask(ctx context.Context, name string) error {
	job, task, err := s.task(ctx, name)
	if err != nil {
		return err
	}
	value, err := s.raw(ctx, taskPath(job, task))
	if err != nil {
		return err
	}
	return s.output.one(value, []column{
		{"Task", func(i item) string { return string(job) + "/" + i.text("id") }},
		of("Name", "displayName"), of("Command", "commandLine"), of("State", "state"), of("Result", "executionInfo", "result"),
		of("Exit code", "executionInfo", "exitCode"), {"Failure", failure}, of("Node", "nodeInfo", "nodeId"),
		of("Created", "creationTime"), of("Started", "executionInfo", "startTime"), of("Ended", "executionInfo", "endTime"), {"Ran", ran},
		of("Retries", "executionInfo", "retryCount"), of("Requeues", "executionInfo", "requeueCount"),
	})
}

func newTaskLogs(p Process) *cobra.Command {
	var flags sessionFlags
	var follow, stderr bool
	command := &cobra.Command{
		Use: "logs TASK", Short: "Print what a task wrote", Args: oneArg("TASK"),
		Example: `  batchyard task logs last
  batchyard task logs last/17 --follow --stderr`,
		RunE: func(command *cobra.Command, args []string) error {
			s, err := flags.open(p)
			if err != nil {
				return err
			}
			job, task, err := s.task(command.Context(), args[0])
			if err != nil {
				return err
			}
			name := "stdout.txt"
			if stderr {
				name = "stderr.txt"
			}
			log := s.log(job, task, name, p.Stdout)
			if follow {
				_, err := s.follow(command.Context(), job, task, log)
				return err
			}
			return log.whole(command.Context())
		},
	}
	flags.add(command)
	command.Flags().BoolVarP(&follow, "follow", "f", false, "go on until the task has ended")
	command.Flags().BoolVar(&stderr, "stderr", false, "what it wrote to standard error instead")
	return command
}
