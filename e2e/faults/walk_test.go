package faults_test

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"testing"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/client"
)

// TestDatabases walks on each kind of database, with a restart on the way.
func TestDatabases(t *testing.T) {
	t.Parallel()
	t.Run("SQLite", func(t *testing.T) {
		t.Parallel()
		walk(t, "")
	})
	t.Run("PostgreSQL", func(t *testing.T) {
		t.Parallel()
		walk(t, newSchema(t))
	})
}

// newSchema is the URL of an empty schema on the PostgreSQL server at hand.
func newSchema(t *testing.T) string {
	t.Helper()
	database := os.Getenv("BATCHYARD_TEST_POSTGRES")
	if database == "" {
		t.Skip("BATCHYARD_TEST_POSTGRES names no database; make test-e2e starts one")
	}
	name := "faults_" + newMark()
	query(t, database, "CREATE SCHEMA "+name)
	t.Cleanup(func() { query(t, database, "DROP SCHEMA "+name+" CASCADE") })
	address, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	values := address.Query()
	values.Set("search_path", name)
	address.RawQuery = values.Encode()
	return address.String()
}

// query runs a statement by psql, which comes with the server.
func query(t *testing.T, database, statement string) {
	t.Helper()
	command := exec.CommandContext(context.WithoutCancel(t.Context()), "psql", "--quiet", "--no-psqlrc", "--command", statement, database)
	command.Env = append(os.Environ(), "PGOPTIONS=-c client_min_messages=warning")
	if text, err := command.CombinedOutput(); err != nil {
		t.Fatalf("psql: %v\n%s", err, text)
	}
}

// walk runs two hundred tasks and deletes everything.
func walk(t *testing.T, database string) {
	const tasks = 200
	s := newServer(t, options{database: database})
	mark := newMark()
	s.addPool(t, "walk", 2, map[string]any{"taskSlotsPerNode": 4})
	s.addJob(t, "walk", "walk")
	specs := make([]map[string]any, tasks)
	for i := range specs {
		specs[i] = shell(taskName(i), mark, `sleep 0.05; echo "$WORDS"; exit $((NUMBER % 7))`,
			fmt.Sprintf("NUMBER=%d", i), fmt.Sprintf("WORDS=output of %d: ünï ☃", i))
	}
	s.addTasks(t, "walk", specs...)
	s.awaitCompleted(t, "walk", tasks/4)
	s.stop(t)
	s.start(t)
	s.awaitCompleted(t, "walk", tasks)

	want := client.Counts{Completed: tasks, Succeeded: (tasks + 6) / 7, Failed: tasks - (tasks+6)/7}
	if counts := s.counts(t, "walk"); counts != want {
		t.Errorf("counts are %+v, want %+v", counts, want)
	}
	list, err := s.Tasks(t.Context(), "walk", "executionInfo/exitCode eq 6")
	if err != nil || len(list) != tasks/7 {
		t.Errorf("%d tasks have exit code 6, want %d; error %v", len(list), tasks/7, err)
	}
	all, err := s.Tasks(t.Context(), "walk", "")
	if err != nil || len(all) != tasks {
		t.Errorf("the job has %d tasks, error %v", len(all), err)
	}
	for _, task := range all {
		checkEnd(t, task, false)
	}
	for _, i := range []int{0, 6, 100, tasks - 1} {
		if text := s.stdout(t, "walk", batch.TaskID(taskName(i))); text != fmt.Sprintf("output of %d: ünï ☃\n", i) {
			t.Errorf("stdout of task %d is %q", i, text)
		}
	}
	if err := s.DeleteJob(t.Context(), "walk"); err != nil {
		t.Fatal(err)
	}
	awaitGone(t, "the job", func(ctx context.Context) error { _, err := s.Job(ctx, "walk"); return err })
	if err := s.DeletePool(t.Context(), "walk"); err != nil {
		t.Fatal(err)
	}
	awaitGone(t, "the pool", func(ctx context.Context) error { _, err := s.Pool(ctx, "walk"); return err })
}

// awaitGone waits until getting something answers that there is no such thing.
func awaitGone(t *testing.T, what string, get func(context.Context) error) {
	t.Helper()
	await(t, what+" is gone", func(ctx context.Context) (bool, error) {
		err := get(ctx)
		switch batch.CodeOf(err) {
		case batch.CodeJobNotFound, batch.CodePoolNotFound:
			return true, nil
		}
		return false, err
	})
}
