package cli

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/client"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/spf13/cobra"
)

func newJob(p Process) *cobra.Command {
	command := &cobra.Command{
		Use: "job", Short: "List, show and delete jobs", Args: noArgs,
		Long: `A job is named by its id, by its address, or as 'last': the newest one.`,
		RunE: func(command *cobra.Command, _ []string) error { return command.Help() },
	}
	command.AddCommand(newJobList(p), newJobShow(p), newJobDelete(p))
	return command
}

// listFlags narrow down a list.
type listFlags struct {
	filter, state string
	limit         int
}

func (f *listFlags) add(command *cobra.Command, states ...string) {
	flags := command.Flags()
	flags.StringVar(&f.filter, "filter", "", "only those for which an OData `EXPRESSION` of the API holds")
	flags.StringVar(&f.state, "state", "", "only those in `STATE`: "+strings.Join(states, ", "))
	flags.IntVar(&f.limit, "limit", 0, "`N` at most; 0 for all")
	_ = command.RegisterFlagCompletionFunc("state", cobra.FixedCompletions(states, cobra.ShellCompDirectiveNoFileComp))
}

// query asks the service for what the flags and further clauses leave.
func (f *listFlags) query(states []string, clauses ...string) (url.Values, error) {
	if f.limit < 0 {
		return nil, usageError{fmt.Errorf("--limit is 0 or more, not %d", f.limit)}
	}
	if f.state != "" {
		if !slices.Contains(states, f.state) {
			return nil, usageError{fmt.Errorf("state %q is none of %s", f.state, strings.Join(states, ", "))}
		}
		clauses = append(clauses, "state eq '"+f.state+"'")
	}
	if f.filter != "" {
		clauses = append(clauses, "("+f.filter+")")
	}
	query := url.Values{}
	if len(clauses) > 0 {
		query.Set("$filter", strings.Join(clauses, " and "))
	}
	if f.limit > 0 {
		query.Set("maxresults", fmt.Sprint(min(f.limit, 1000)))
	}
	return query, nil
}

// list prints a list of the service.
func (s *session) list(ctx context.Context, path string, query url.Values, limit int, columns []column) error {
	items := client.Each[jsontext.Value](ctx, s.Client, path, query)
	return s.output.list(func(yield func(jsontext.Value, error) bool) {
		n := 0
		for value, err := range items {
			if !yield(value, err) {
				return
			}
			if n++; n == limit {
				return
			}
		}
	}, columns)
}

var jobStates = []string{"active", "disabling", "disabled", "enabling", "terminating", "completed", "deleting"}

func newJobList(p Process) *cobra.Command {
	var flags shownFlags
	var list listFlags
	command := &cobra.Command{
		Use: "list", Short: "List the jobs of the account", Args: noArgs,
		Example: `  batchyard job list --state active
  batchyard job list -o tsv --query '[].[id, state]'`,
		RunE: func(command *cobra.Command, _ []string) error {
			s, err := flags.open(p)
			if err != nil {
				return err
			}
			query, err := list.query(jobStates)
			if err != nil {
				return err
			}
			return s.list(command.Context(), "/jobs", query, list.limit, []column{
				of("ID", "id"), of("STATE", "state"), of("POOL", "poolInfo", "poolId"), of("PRIORITY", "priority"),
				age("AGE", time.Now, "creationTime"), of("ENDED BECAUSE", "executionInfo", "terminateReason"),
			})
		},
	}
	flags.add(command)
	list.add(command, jobStates...)
	return command
}

func newJobShow(p Process) *cobra.Command {
	var flags shownFlags
	command := &cobra.Command{
		Use: "show JOB", Short: "Show a job and how many of its tasks are where", Args: oneArg("JOB"),
		Example: `  batchyard job show last`,
		RunE: func(command *cobra.Command, args []string) error {
			s, err := flags.open(p)
			if err != nil {
				return err
			}
			return s.showJob(command.Context(), args[0])
		},
	}
	flags.add(command)
	return command
}

func (s *session) showJob(ctx context.Context, name string) error {
	job, err := s.job(ctx, name)
	if err != nil {
		return err
	}
	value, err := s.raw(ctx, jobPath(job))
	if err != nil {
		return err
	}
	var counts client.Counts
	if s.output.form == formTable && s.output.query == nil {
		if counts, err = s.TaskCounts(ctx, job); err != nil {
			return err
		}
	}
	return s.output.one(value, []column{
		of("Job", "id"), of("Name", "displayName"), of("State", "state"), of("Pool", "poolInfo", "poolId"), of("Priority", "priority"),
		{"Tasks", func(item) string {
			return fmt.Sprintf("%d waiting, %d running, %d succeeded, %d failed", counts.Active, counts.Running, counts.Succeeded, counts.Failed)
		}},
		of("Created", "creationTime"), of("Ended", "executionInfo", "endTime"), of("Ended because", "executionInfo", "terminateReason"),
	})
}

func newJobDelete(p Process) *cobra.Command {
	var flags sessionFlags
	var yes, dry bool
	command := &cobra.Command{
		Use: "delete JOB...", Short: "Delete jobs with their tasks and the tasks' files", Args: someArgs("JOB"),
		Example: `  batchyard job delete last --dry-run
  batchyard job delete nightly-17 nightly-18 --yes`,
		RunE: func(command *cobra.Command, args []string) error {
			s, err := flags.open(p)
			if err != nil {
				return err
			}
			return s.deleteJobs(command.Context(), args, yes, dry)
		},
	}
	flags.add(command)
	command.Flags().BoolVar(&yes, "yes", false, "do not ask")
	command.Flags().BoolVar(&dry, "dry-run", false, "only say what would be deleted")
	return command
}

// deleteJobs says what goes before it goes. A job that cannot be deleted does not
// keep the others.
func (s *session) deleteJobs(ctx context.Context, names []string, yes, dry bool) error {
	var jobs []batch.JobID
	var tasks int64
	for _, name := range names {
		job, err := s.job(ctx, name)
		if err != nil {
			return err
		}
		if slices.Contains(jobs, job) {
			continue
		}
		counts, err := s.TaskCounts(ctx, job)
		if err != nil {
			return err
		}
		jobs, tasks = append(jobs, job), tasks+counts.Active+counts.Running+counts.Completed
	}
	what := fmt.Sprintf("%s with %s", many(int64(len(jobs)), "job"), many(tasks, "task"))
	if dry {
		s.note("Would delete %s.", what)
		return nil
	}
	if err := s.confirm("Delete "+what+"?", yes); err != nil {
		return err
	}
	var failed error
	for _, job := range jobs {
		if err := s.DeleteJob(ctx, job); err != nil {
			if failed != nil {
				s.note("batchyard: %s", explain(failed))
			}
			failed = err
			continue
		}
		if err := s.output.print(string(job)); err != nil {
			return err
		}
	}
	return failed
}

// many is a count with its noun.
func many(n int64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// someArgs wants one argument or several.
func someArgs(name string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) == 0 {
			return usageError{fmt.Errorf("at least one %s is wanted", name)}
		}
		return nil
	}
}
