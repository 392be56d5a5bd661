package faults_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/client"
)

// admin runs `batchyard admin` and gives what it says. It is there to fail the test if that fails.
func (s *server) admin(t *testing.T, arguments ...string) string {
	t.Helper()
	output, err := exec.CommandContext(t.Context(), s.program, append([]string{"admin"}, arguments...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("batchyard admin %s: %v\n%s", strings.Join(arguments, " "), err, output)
	}
	return string(output)
}

// TestRestore backs a server up in the middle of its work, lets it go on, kills it, and restores the
// backup. Its old nodes are kept from hearing of that: they go on with tasks that the restored server
// knows as waiting, for as long as their lease lasts. All the same every task completes, and none
// runs twice at one time. Then fsck finds nothing.
func TestRestore(t *testing.T) {
	t.Parallel()
	const (
		tasks = 40
		lease = 8 * time.Second
	)
	s := newServer(t, options{lease: lease})
	y := newYard(t)
	nodes := s.addPool(t, "wide", 2, map[string]any{"vmSize": "custom_8c_4g", "taskSlotsPerNode": 8})
	s.addJob(t, "long", "wide")
	script := `
		exec 9>>"$LOCK"
		flock --nonblock 9 || echo "twice $AZ_BATCH_TASK_ID" >>"$LOG"
		echo "begun $AZ_BATCH_TASK_ID" >>"$LOG"
		sleep "$LASTS"
		echo "ended $AZ_BATCH_TASK_ID" >>"$LOG"`
	var specs []map[string]any
	for i := range tasks {
		id := fmt.Sprintf("t%03d", i)
		// The first are over soon, so that others run when the server is killed than when it was
		// backed up; these last until their lease is over.
		lasts := "5"
		if i < tasks/4 {
			lasts = "1"
		}
		specs = append(specs, shell(id, "restore", script, append(y.settings(), "LOCK="+y.share(t, "lock-"+id), "LASTS="+lasts)...))
	}
	s.addTasks(t, "long", specs...)

	y.awaitLines(t, 8)
	backup := filepath.Join(s.folder, "backup")
	s.admin(t, "backup", backup, "--config", s.configFile())
	before := s.counts(t, "long")
	s.awaitCounts(t, "long", "more has been done since the backup", func(c client.Counts) bool {
		return c.Completed >= before.Completed+tasks/4 && c.Running >= 8
	})
	s.kill(t)
	var agents []int
	for _, node := range nodes {
		agents = append(agents, s.agent(node))
	}
	for _, pid := range agents {
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
	}
	old := s.data + ".old"
	if err := os.Rename(s.data, old); err != nil {
		t.Fatal(err)
	}
	runs := len(marked("restore"))
	if runs == 0 {
		t.Error("no task of before runs on, so nothing is tried here")
	}

	s.admin(t, "restore", backup, "--config", s.configFile())
	s.start(t)
	s.awaitCompleted(t, "long", tasks)
	for _, pid := range agents {
		if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
			t.Errorf("wake agent: %v", err)
		}
	}
	await(t, "the old agents have ended", func(context.Context) (bool, error) {
		for _, pid := range agents {
			if syscall.Kill(pid, 0) == nil {
				return false, nil
			}
		}
		return true, nil
	})

	for line, times := range y.tally(t) {
		if strings.HasPrefix(line, "twice") {
			t.Errorf("%s at one time, %d times", line, times)
		}
	}
	for _, spec := range specs {
		id := batch.TaskID(spec["id"].(string))
		if task := s.awaitTask(t, "long", id); task.ExecutionInfo.Result != batch.ResultSuccess {
			t.Errorf("task %s ended with %+v", id, task.ExecutionInfo)
		}
		if y.tally(t)["ended "+string(id)] == 0 {
			t.Errorf("task %s is completed and never came to its end", id)
		}
	}
	t.Logf("%d processes of tasks went on after the kill; %s", runs, strings.TrimSpace(s.admin(t, "fsck", "--config", s.configFile(), "--deep")))
}
