package faults_test

import (
	"fmt"
	"slices"
	"sync"
	"syscall"
	"testing"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/client"
	"github.com/google/go-cmp/cmp"
)

// TestRestarts breaks what watches over a hundred running tasks, while others wait. The tasks must
// not notice: each runs once, and its exit code and output are kept.
func TestRestarts(t *testing.T) {
	t.Parallel()
	s := newServer(t, options{})
	nodes := s.addPool(t, "wide", 3, map[string]any{"vmSize": "custom_16c_4g", "taskSlotsPerNode": crowd / 3})

	for _, test := range []struct {
		name  string
		begun int // tasks that have begun when it happens
		hurt  func(t *testing.T, c *crowdJob)
		// requeued: a task may be queued again, because its agent was killed before it had the task
		// started.
		requeued bool
	}{
		{name: "server is stopped and started again", begun: crowd, hurt: func(t *testing.T, c *crowdJob) {
			s.stop(t)
			c.open(t) // tasks end while nobody hears of it
			s.start(t)
		}},
		{name: "server is killed and started again, again and again", begun: crowd, hurt: func(t *testing.T, c *crowdJob) {
			for round := range 4 {
				s.kill(t)
				if round == 0 {
					c.open(t)
				}
				s.start(t)
				s.awaitCompleted(t, c.job, (round+1)*crowd/4)
			}
		}},
		{name: "server is killed while tasks begin", begun: crowd / 4, hurt: func(t *testing.T, c *crowdJob) {
			s.kill(t)
			s.start(t)
			c.open(t)
		}},
		{name: "agents are stopped", begun: crowd, requeued: true, hurt: func(t *testing.T, c *crowdJob) {
			s.signalAgents(t, syscall.SIGINT, nodes...)
			c.open(t)
			s.signalAgents(t, syscall.SIGINT, nodes[0])
		}},
		{name: "everything of the service gets the signal to end", begun: crowd, hurt: func(t *testing.T, c *crowdJob) {
			before := s.nodeProcesses()
			for _, pid := range before {
				_ = syscall.Kill(pid, syscall.SIGTERM)
				_ = syscall.Kill(pid, syscall.SIGHUP)
			}
			s.stop(t)
			c.open(t)
			s.start(t)
			if after := s.nodeProcesses(); !slices.Equal(before, after) || len(before) != 2*len(nodes) {
				t.Errorf("agents and keepers were %v and are %v", before, after)
			}
		}},
		{name: "agents are killed", begun: crowd, requeued: true, hurt: func(t *testing.T, c *crowdJob) {
			s.signalAgents(t, syscall.SIGKILL, nodes...)
			c.open(t)
			s.signalAgents(t, syscall.SIGKILL, nodes[1])
		}},
		{name: "agents are killed while tasks begin", begun: crowd / 4, requeued: true, hurt: func(t *testing.T, c *crowdJob) {
			s.signalAgents(t, syscall.SIGKILL, nodes...)
			c.open(t)
		}},
		{name: "server and agents are killed at one time", begun: crowd, hurt: func(t *testing.T, c *crowdJob) {
			s.killAll(t, nodes)
			c.open(t)
			s.start(t)
		}},
		{name: "server and agents are killed while tasks begin", begun: crowd / 4, requeued: true, hurt: func(t *testing.T, c *crowdJob) {
			s.killAll(t, nodes)
			s.start(t)
			c.open(t)
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := s.startCrowd(t)
			c.awaitLines(t, test.begun)
			test.hurt(t, c)
			c.check(t, test.requeued)
		})
	}
}

// killAll kills the server and the agents of nodes.
func (s *server) killAll(t *testing.T, nodes []batch.NodeID) {
	t.Helper()
	s.kill(t)
	for _, node := range nodes {
		if err := syscall.Kill(s.agent(node), syscall.SIGKILL); err != nil {
			t.Errorf("kill the agent of %s: %v", node, err)
		}
	}
}

// crowd is how many tasks run at one time; half as many wait behind them.
const crowd = 102

// crowdJob is a job of tasks that wait at a gate, and of others that follow.
type crowdJob struct {
	*yard
	server *server
	job    batch.JobID
	mark   string
	tasks  int
}

// startCrowd adds the job.
func (s *server) startCrowd(t *testing.T) *crowdJob {
	t.Helper()
	c := &crowdJob{yard: newYard(t), server: s, job: batch.JobID(newMark()), tasks: crowd * 3 / 2}
	c.mark = string(c.job)
	s.addJob(t, c.job, "wide")
	tasks := make([]map[string]any, c.tasks)
	for i := range tasks {
		tasks[i] = shell(taskName(i), c.mark, `
			echo "begin $AZ_BATCH_TASK_ID $BATCHYARD_TASK_ATTEMPT" >>"$LOG"
			echo "first line of $AZ_BATCH_TASK_ID"
			`+pass+`
			sleep 0.$((NUMBER % 10))
			echo "last line of $AZ_BATCH_TASK_ID"
			echo "end $AZ_BATCH_TASK_ID $BATCHYARD_TASK_ATTEMPT" >>"$LOG"
			exit $((NUMBER % 7))`, append(c.settings(), fmt.Sprintf("NUMBER=%d", i))...)
	}
	s.addTasks(t, c.job, tasks...)
	return c
}

func taskName(i int) string { return fmt.Sprintf("task-%03d", i) }

// check waits for the end of the job and compares it with what its tasks must have done.
func (c *crowdJob) check(t *testing.T, requeued bool) {
	t.Helper()
	c.server.awaitCompleted(t, c.job, c.tasks)
	if left := marked(c.mark); len(left) > 0 {
		t.Errorf("processes %v of completed tasks still run", left)
	}
	wantLines, wantCounts := map[string]int{}, client.Counts{Completed: int64(c.tasks)}
	for i := range c.tasks {
		wantLines["begin "+taskName(i)], wantLines["end "+taskName(i)] = 1, 1
		if i%7 == 0 {
			wantCounts.Succeeded++
		} else {
			wantCounts.Failed++
		}
	}
	if diff := cmp.Diff(wantLines, c.tally(t)); diff != "" {
		t.Errorf("what tasks have logged, and how often (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(wantCounts, c.server.counts(t, c.job)); diff != "" {
		t.Errorf("counts (-want +got):\n%s", diff)
	}
	c.checkTasks(t, requeued)
}

func (c *crowdJob) checkTasks(t *testing.T, requeued bool) {
	t.Helper()
	tasks, err := c.server.Tasks(t.Context(), c.job, "")
	if err != nil {
		t.Fatal(err)
	}
	if len(tasks) != c.tasks {
		t.Errorf("the job has %d tasks, not %d", len(tasks), c.tasks)
	}
	limit := make(chan struct{}, 8)
	var reading sync.WaitGroup
	for _, task := range tasks {
		limit <- struct{}{}
		reading.Go(func() {
			defer func() { <-limit }()
			checkEnd(t, task, requeued)
			want := fmt.Sprintf("first line of %s\nlast line of %s\n", task.ID, task.ID)
			if text, err := c.server.TaskFile(t.Context(), c.job, task.ID, "stdout.txt"); err != nil || string(text) != want {
				t.Errorf("stdout of %s is %q, error %v", task.ID, text, err)
			}
		})
	}
	reading.Wait()
}

// checkEnd compares how a task ended with what its number says. Requeued allows it to have been
// queued again.
func checkEnd(t *testing.T, task client.Task, requeued bool) {
	t.Helper()
	var number int
	if _, err := fmt.Sscanf(string(task.ID), "task-%d", &number); err != nil {
		t.Errorf("task %s: %v", task.ID, err)
		return
	}
	info, want := task.ExecutionInfo, number%7
	switch {
	case task.State != batch.TaskCompleted, info.ExitCode == nil, *info.ExitCode != want, (info.Result == batch.ResultSuccess) != (want == 0):
		t.Errorf("task %s ended as %s, want exit code %d", task.ID, describe(task), want)
	case info.RequeueCount != 0 && !requeued || info.RetryCount != 0:
		t.Errorf("task %s ran more than once: %s", task.ID, describe(task))
	}
}
