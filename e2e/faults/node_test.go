package faults_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/client"
	"github.com/google/go-cmp/cmp"
)

// held is a script that begins, waits at the gate and ends. The lock is the proof that no two
// attempts of a task live at one time: whatever belongs to an attempt holds it.
const held = `
	exec 9<"$LOCK"
	flock --nonblock 9 || { echo "overlap $AZ_BATCH_TASK_ID" >>"$LOG"; exit 99; }
	echo "begin $AZ_BATCH_TASK_ID $BATCHYARD_TASK_ATTEMPT" >>"$LOG"
	` + pass + `
	echo "end $AZ_BATCH_TASK_ID $BATCHYARD_TASK_ATTEMPT" >>"$LOG"
	echo "done by $AZ_BATCH_NODE_ID"`

// flock is a job of held tasks, one a slot.
type flock struct {
	*yard
	*server
	pool  batch.PoolID
	job   batch.JobID
	mark  string
	tasks []batch.TaskID
	nodes []batch.NodeID
}

// newFlock makes a pool of nodes with two slots each and fills it with held tasks that run.
func (s *server) newFlock(t *testing.T, nodes int) *flock {
	t.Helper()
	mark := newMark()
	f := &flock{yard: newYard(t), server: s, mark: mark, pool: batch.PoolID(mark), job: batch.JobID(mark)}
	f.nodes = s.addPool(t, f.pool, nodes, map[string]any{"taskSlotsPerNode": 2})
	s.addJob(t, f.job, f.pool)
	var tasks []map[string]any
	for i := range 2 * nodes {
		id := taskName(i)
		f.tasks = append(f.tasks, batch.TaskID(id))
		tasks = append(tasks, shell(id, mark, held, append(f.settings(), "LOCK="+f.share(t, id))...))
	}
	s.addTasks(t, f.job, tasks...)
	s.awaitRunning(t, f.job, len(tasks))
	f.awaitLines(t, len(tasks))
	return f
}

// on are the tasks that run on a node.
func (f *flock) on(t *testing.T, node batch.NodeID) []batch.TaskID {
	t.Helper()
	var ids []batch.TaskID
	for _, task := range f.all(t) {
		if task.NodeInfo.Node == node && task.State == batch.TaskRunning {
			ids = append(ids, task.ID)
		}
	}
	return ids
}

func (f *flock) all(t *testing.T) []client.Task {
	t.Helper()
	tasks, err := f.Tasks(t.Context(), f.job, "")
	if err != nil {
		t.Fatal(err)
	}
	return tasks
}

// check opens the gate, waits for the end and compares: requeued tasks ran twice, one after the
// other, all others once, and all succeeded.
func (f *flock) check(t *testing.T, requeued []batch.TaskID) {
	t.Helper()
	f.open(t)
	f.awaitCompleted(t, f.job, len(f.tasks))
	want := map[string]int{}
	for _, task := range f.all(t) {
		info := task.ExecutionInfo
		runs := 1
		if slices.Contains(requeued, task.ID) {
			runs = 2
		}
		want["begin "+string(task.ID)], want["end "+string(task.ID)] = runs, 1
		if info.Result != batch.ResultSuccess || info.RequeueCount != runs-1 || info.RetryCount != 0 {
			t.Errorf("task %s should have run %d times and succeeded: %s", task.ID, runs, describe(task))
		}
		if text := f.stdout(t, f.job, task.ID); text != fmt.Sprintf("done by %s\n", task.NodeInfo.Node) {
			t.Errorf("stdout of %s, which ran on %s, is %q", task.ID, task.NodeInfo.Node, text)
		}
	}
	if diff := cmp.Diff(want, f.tally(t)); diff != "" {
		t.Errorf("what tasks have logged, and how often (-want +got):\n%s", diff)
	}
	f.checkAttempts(t)
	if left := marked(f.mark); len(left) > 0 {
		t.Errorf("processes %v of completed tasks still run", left)
	}
}

// checkAttempts: the second run of a task has a higher number.
func (f *flock) checkAttempts(t *testing.T) {
	t.Helper()
	newest := map[string]int64{}
	for _, line := range f.lines(t) {
		var word, task string
		var attempt int64
		if _, err := fmt.Sscan(line, &word, &task, &attempt); err != nil {
			t.Errorf("line %q: %v", line, err)
		}
		if word == "begin" && attempt <= newest[task] {
			t.Errorf("attempt %d of %s follows attempt %d", attempt, task, newest[task])
		}
		newest[task] = attempt
	}
}

// TestNodesGo takes nodes away from running tasks in the ways of the API, and by force.
func TestNodesGo(t *testing.T) {
	t.Parallel()
	s := newServer(t, options{})

	t.Run("a pool that shrinks by requeue runs tasks elsewhere", func(t *testing.T) {
		t.Parallel()
		f := s.newFlock(t, 2)
		stays := f.shrink(t, "requeue")
		f.check(t, f.except(f.on(t, stays)))
	})
	t.Run("a pool that shrinks by terminate ends tasks", func(t *testing.T) {
		t.Parallel()
		f := s.newFlock(t, 2)
		stays := f.shrink(t, "terminate")
		stay := f.on(t, stays)
		f.open(t)
		f.awaitCompleted(t, f.job, len(f.tasks))
		for _, task := range f.all(t) {
			want := ending{}
			if !slices.Contains(stay, task.ID) {
				want = ending{code: noCode, failure: batch.FailureTaskEnded}
			}
			want.check(t, task)
		}
		if len(stay) != 2 {
			t.Errorf("%d tasks ran on the node that stays, want 2", len(stay))
		}
	})
	t.Run("a pool that shrinks by task completion waits", func(t *testing.T) {
		t.Parallel()
		f := s.newFlock(t, 2)
		f.resize(t, 1, "taskcompletion")
		await(t, "a node is leaving", func(ctx context.Context) (bool, error) {
			nodes, err := f.Nodes(ctx, f.pool)
			return slices.ContainsFunc(nodes, func(n client.Node) bool { return n.State == batch.NodeLeavingPool }), err
		})
		f.open(t)
		f.awaitCompleted(t, f.job, len(f.tasks))
		for _, task := range f.all(t) {
			ending{}.check(t, task)
		}
		f.awaitNodes(t, f.pool, 1, batch.NodeIdle)
	})
	t.Run("a reboot requeues and is no retry", func(t *testing.T) {
		t.Parallel()
		f := s.newFlock(t, 1)
		f.post(t, fmt.Sprintf("/pools/%s/nodes/%s/reboot", f.pool, f.nodes[0]), map[string]any{"nodeRebootOption": "requeue"})
		f.awaitLines(t, 4) // tasks begin again
		f.check(t, f.tasks)
	})
	t.Run("agent and keeper are killed and tasks run again", func(t *testing.T) {
		t.Parallel()
		f := s.newFlock(t, 1)
		keeper := f.keeper(f.nodes[0])
		if keeper == 0 {
			t.Fatal("the node has no keeper")
		}
		if err := syscall.Kill(keeper, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		f.signalAgents(t, syscall.SIGKILL, f.nodes...)
		f.awaitLines(t, 4) // tasks begin again
		f.check(t, f.tasks)
	})
	t.Run("the keeper is killed and tasks run again", func(t *testing.T) {
		t.Parallel()
		f := s.newFlock(t, 1)
		if err := syscall.Kill(f.keeper(f.nodes[0]), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		f.awaitLines(t, 4) // tasks begin again
		f.check(t, f.tasks)
	})
	t.Run("a start task that fails keeps tasks away until it succeeds", func(t *testing.T) {
		t.Parallel()
		testStartTask(t, s)
	})
}

// resize begins to resize the pool.
func (f *flock) resize(t *testing.T, nodes int, option string) {
	t.Helper()
	f.post(t, fmt.Sprintf("/pools/%s/resize", f.pool), map[string]any{"targetDedicatedNodes": nodes, "nodeDeallocationOption": option})
}

// shrink takes a node of the pool away and returns the one that stays.
func (f *flock) shrink(t *testing.T, option string) batch.NodeID {
	t.Helper()
	f.resize(t, 1, option)
	return f.awaitNodes(t, f.pool, 1, batch.NodeRunning)[0]
}

// except are the tasks that are not named.
func (f *flock) except(named []batch.TaskID) []batch.TaskID {
	return slices.DeleteFunc(slices.Clone(f.tasks), func(id batch.TaskID) bool { return slices.Contains(named, id) })
}

func testStartTask(t *testing.T, s *server) {
	pool := batch.PoolID(newMark())
	s.addPoolOnly(t, pool, 1, map[string]any{"startTask": startTask("/bin/sh -c 'echo no >&2; exit 9'")})
	node := s.awaitNodes(t, pool, 1, batch.NodeStartTaskFailed)[0]
	nodes, err := s.Nodes(t.Context(), pool)
	if err != nil {
		t.Fatal(err)
	}
	info := nodes[0].StartTaskInfo
	if info == nil || info.ExitCode == nil || *info.ExitCode != 9 || info.Result != batch.ResultFailure ||
		info.FailureInfo == nil || info.FailureInfo.Code != batch.FailureExitCode || info.RetryCount != 1 {
		t.Errorf("the node says of its start task: %+v", info)
	}
	job := batch.JobID(pool)
	s.addJob(t, job, pool)
	s.addTasks(t, job, shell("patient", string(pool), `cat "$AZ_BATCH_NODE_STARTUP_DIR/wd/made"`))
	change := map[string]any{"startTask": startTask("/bin/sh -c 'echo ready >made; chmod 644 made'")}
	if _, err := s.Call(t.Context(), http.MethodPatch, "/pools/"+string(pool), nil, change, nil); err != nil {
		t.Fatal(err)
	}
	if counts := s.counts(t, job); counts.Active != 1 {
		t.Errorf("a task runs on a node whose start task failed: %+v", counts)
	}
	s.post(t, fmt.Sprintf("/pools/%s/nodes/%s/reboot", pool, node), map[string]any{"nodeRebootOption": "requeue"})
	ending{}.check(t, s.awaitTask(t, job, "patient"))
	if text := s.stdout(t, job, "patient"); text != "ready\n" {
		t.Errorf("the task read %q from what the start task made", text)
	}
}

func startTask(line string) map[string]any {
	return map[string]any{"commandLine": line, "maxTaskRetryCount": 1, "waitForSuccess": true}
}

// TestNodesAreLost has nodes fall silent. When its lease is over a node has ended its tasks by
// itself, and only then do they run elsewhere.
func TestNodesAreLost(t *testing.T) {
	t.Parallel()
	const lease = 4 * time.Second
	s := newServer(t, options{lease: lease})

	t.Run("tasks of a silent node run elsewhere when they are dead", func(t *testing.T) {
		f := s.newFlock(t, 2)
		silent, other := f.nodes[0], f.nodes[1]
		lost := f.on(t, silent)
		agent := f.agent(silent)
		if err := syscall.Kill(agent, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = syscall.Kill(agent, syscall.SIGCONT) })
		await(t, "the node counts as lost", func(ctx context.Context) (bool, error) {
			nodes, err := f.Nodes(ctx, f.pool)
			return slices.ContainsFunc(nodes, func(n client.Node) bool { return n.ID == silent && n.State == batch.NodeUnknown }), err
		})
		f.check(t, lost)
		for _, task := range f.all(t) {
			if task.NodeInfo.Node != other {
				t.Errorf("task %s ran last on the silent node", task.ID)
			}
		}
		if err := syscall.Kill(agent, syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		f.awaitNodes(t, f.pool, 2, batch.NodeIdle)
	})
	t.Run("tasks end when server and agent are gone for a lease", func(t *testing.T) {
		f := s.newFlock(t, 1)
		s.kill(t)
		begun := time.Now()
		awaitNone(t, f.mark)
		if took := time.Since(begun); took < lease/2 {
			t.Errorf("tasks ended %v after the server, but the lease is %v", took, lease)
		}
		s.start(t)
		f.awaitLines(t, 4) // tasks begin again
		f.check(t, f.tasks)
	})
}
