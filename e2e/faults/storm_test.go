package faults_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/client"
)

// storm is a server with customers that never rest, while processes are killed.
type storm struct {
	*server
	t       *testing.T
	cluster *cluster // nil: SQLite
	lease   time.Duration
	pool    batch.PoolID
	nodes   []batch.NodeID
	mark    string
	stage   string // folder of the actors' log
	actor   string // program of the actors
	dice    *rand.Rand
	life    context.Context // of all customers

	customers []*customer
	sitter    *customer // does nothing by itself; its tasks are there when nodes are lost
	calling   sync.WaitGroup
	rest      context.CancelFunc // has customers finish

	mu      sync.Mutex // journal and said
	journal *os.File
	said    int // complaints so far

	missed  int                    // processes that were to be killed or stopped and not there
	struck  map[string]int         // how often each kind of strike has hit all that it meant
	fallen  map[string][]time.Time // when keepers were killed, by node
	trouble []interval             // from each kill until the service was there again
}

// newStorm starts a server with a pool of two nodes, and makes the stage.
func newStorm(t *testing.T, dice *rand.Rand, c *cluster) *storm {
	t.Helper()
	s := &storm{t: t, cluster: c, lease: 5 * time.Second, mark: newMark(), dice: dice, fallen: map[string][]time.Time{}, struck: map[string]int{}}
	o := options{lease: s.lease}
	if c != nil {
		o.database = c.url()
	}
	s.server = newServer(t, o)
	life, end := context.WithCancel(context.WithoutCancel(t.Context()))
	s.life = life
	s.makeStage(t)
	t.Cleanup(func() {
		end()
		s.calling.Wait()
		s.keepEvidence(t)
		if err := os.RemoveAll(s.stage); err != nil {
			t.Error(err)
		}
	})
	s.pool = batch.PoolID(s.mark)
	s.nodes = s.addPool(t, s.pool, 2, map[string]any{"vmSize": "custom_2c_2g", "taskSlotsPerNode": 5})
	if err := s.storageCall(t.Context(), "PUT", "", "restype=container", nil, nil); err != nil {
		t.Fatalf("make a container: %v", err)
	}
	return s
}

// makeStage makes the folder of the actors' log, locks and program.
func (s *storm) makeStage(t *testing.T) {
	t.Helper()
	s.stage = openFolder(t)
	for _, name := range []string{"log", "locks"} {
		(&yard{folder: s.stage}).share(t, name)
	}
	journal, err := os.Create(filepath.Join(s.stage, "journal"))
	if err != nil {
		t.Fatal(err)
	}
	s.journal, s.actor = journal, filepath.Join(s.stage, "actor")
	own, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	from, err := os.Open(own)
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	to, err := os.OpenFile(s.actor, os.O_CREATE|os.O_WRONLY, 0o700)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(to, from)
	for _, next := range []func() error{func() error { return to.Chmod(0o755) }, to.Close} {
		if err == nil {
			err = next()
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}

// keepEvidence leaves the logs of a storm that failed for whoever looks for the cause.
func (s *storm) keepEvidence(t *testing.T) {
	s.journal.Close()
	if !t.Failed() {
		return
	}
	s.askStacks(t)
	folder, err := os.MkdirTemp("/var/tmp", "batchyard-storm-")
	if err != nil {
		t.Error(err)
		return
	}
	files, _ := filepath.Glob(filepath.Join(s.data, "nodes", "*", "state", "agent.log"))
	keepers, _ := filepath.Glob(filepath.Join(s.data, "nodes", "*", "state", "keeper", "keeper.log"))
	files = slices.Concat(files, keepers, []string{s.logFile(), filepath.Join(s.stage, "log"), filepath.Join(s.stage, "journal")})
	for _, file := range files {
		name := strings.TrimPrefix(strings.ReplaceAll(strings.TrimPrefix(strings.TrimPrefix(file, s.data), s.stage), "/", "_"), "_")
		text, err := os.ReadFile(file)
		if err == nil {
			err = os.WriteFile(filepath.Join(folder, name), text, 0o600)
		}
		if err != nil {
			t.Error(err)
		}
	}
	t.Logf("journal of the customers, log of the actors and logs of server and nodes are in %s", folder)
}

// askStacks has agents and keepers end and say in their logs what they were about to do.
func (s *storm) askStacks(t *testing.T) {
	asked := s.nodeProcesses()
	for _, pid := range asked {
		_ = syscall.Kill(pid, syscall.SIGQUIT)
	}
	limited, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 5*time.Second)
	defer cancel()
	_ = poll(limited, func(context.Context) (bool, error) {
		return !slices.ContainsFunc(asked, func(pid int) bool { return slices.Contains(s.nodeProcesses(), pid) }), nil
	})
}

// note writes what a customer has asked, and what came of it, to the journal.
func (s *storm) note(who, what string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	answer := "yes"
	if err != nil {
		answer = err.Error()
	}
	fmt.Fprintf(s.journal, "%s %s: %s: %s\n", time.Now().Format(clockTime), who, what, answer)
}

// violated fails the test. It goes on, because what follows helps to find the cause.
func (s *storm) violated(format string, arguments ...any) {
	s.t.Helper()
	s.note("violated", fmt.Sprintf(format, arguments...), nil)
	s.mu.Lock()
	s.said++
	said := s.said
	s.mu.Unlock()
	if said <= 30 {
		s.t.Errorf(format, arguments...)
	}
}

// rise has new customers begin. Part numbers the times that happens.
func (s *storm) rise(part int) {
	living, rest := context.WithCancel(s.life)
	s.rest, s.customers = rest, nil
	for i := range 5 {
		c := &customer{
			storm: s, name: fmt.Sprintf("c%d-%d", part, i), number: part*1e6 + i*1e5,
			dice: rand.New(rand.NewPCG(s.dice.Uint64(), s.dice.Uint64())),
		}
		s.customers = append(s.customers, c)
		if i == 4 {
			s.sitter = c
			continue
		}
		s.calling.Go(func() { c.live(living) })
	}
}

// settle has the customers finish, waits until nothing is to be done, compares what is with what
// was promised, and deletes everything.
func (s *storm) settle(t *testing.T) {
	t.Helper()
	s.rest()
	s.calling.Wait()
	var jobs []*jobRecord
	for _, c := range s.customers {
		jobs = append(jobs, c.jobs...)
	}
	found := evidence{tasks: map[batch.JobID][]client.Task{}, losses: s.losses(t)}
	for _, job := range jobs {
		if s.awaitQuiet(t, job) {
			found.tasks[job.id] = s.list(t, job)
		}
	}
	var err error
	if found.cues, err = readCues(filepath.Join(s.stage, "log")); err != nil {
		t.Error(err)
	}
	for _, complaint := range judge(jobs, found) {
		s.violated("%s", complaint)
	}
	if t.Failed() {
		t.FailNow() // while everything is as it was
	}
	awaitNone(t, s.mark)
	s.checkOutputs(t, jobs, found)
	for _, c := range s.customers {
		for _, complaint := range c.checkBlobs(t.Context()) {
			s.violated("%s", complaint)
		}
	}
	s.checkNodes(t)
	s.checkData(t)
	s.clear(t, jobs)
}

// awaitQuiet waits until a job has no task to run, and is completed if it was to be. It returns
// false when the job is gone, which it may only be if somebody has deleted it.
func (s *storm) awaitQuiet(t *testing.T, job *jobRecord) (exists bool) {
	t.Helper()
	enough := patience
	if t.Failed() {
		enough = 5 * time.Second // one job that does not end holds up others
	}
	limited, cancel := context.WithTimeout(t.Context(), enough)
	defer cancel()
	var counts client.Counts
	var got client.Job
	err := poll(limited, func(ctx context.Context) (done bool, err error) {
		if counts, err = s.TaskCounts(ctx, job.id); err != nil {
			return false, err
		}
		if got, err = s.Job(ctx, job.id); err != nil {
			return false, err
		}
		completed := got.State == batch.JobCompleted || job.ended != sure && (job.closing != sure || len(job.tasks) == 0)
		return counts.Active+counts.Running == 0 && completed && job.deleted != sure, nil
	})
	if batch.CodeOf(err) == batch.CodeJobNotFound {
		return false
	}
	if err != nil {
		s.violated("job %s, state %s, has tasks in counts %+v that do not end: %v", job.id, got.State, counts, err)
	}
	return true
}

// list lists the tasks of a job and compares their number with the counts.
func (s *storm) list(t *testing.T, job *jobRecord) []client.Task {
	t.Helper()
	tasks, err := s.Tasks(t.Context(), job.id, "")
	if batch.CodeOf(err) == batch.CodeJobNotFound {
		return nil // it was deleted without an answer
	}
	if err != nil {
		t.Errorf("list the tasks of %s: %v", job.id, err)
	}
	var want client.Counts
	for _, task := range tasks {
		switch task.State {
		case batch.TaskActive:
			want.Active++
		case batch.TaskRunning:
			want.Running++
		case batch.TaskCompleted:
			want.Completed++
		}
		switch task.ExecutionInfo.Result {
		case batch.ResultSuccess:
			want.Succeeded++
		case batch.ResultFailure:
			want.Failed++
		}
	}
	if counts := s.counts(t, job.id); counts != want {
		s.violated("job %s has the counts %+v, and a list of its tasks %+v", job.id, counts, want)
	}
	return tasks
}

// checkOutputs compares the output of tasks that ended by themselves with their last attempt.
func (s *storm) checkOutputs(t *testing.T, jobs []*jobRecord, found evidence) {
	t.Helper()
	attempts, _ := readAttempts(found.cues)
	limit := make(chan struct{}, 8)
	var reading sync.WaitGroup
	for _, job := range jobs {
		for _, task := range found.tasks[job.id] {
			runs := attempts[taskKey{string(job.id), string(task.ID)}]
			if task.ExecutionInfo.ExitCode == nil || len(runs) == 0 || job.deleted != never {
				continue
			}
			limit <- struct{}{}
			reading.Go(func() {
				defer func() { <-limit }()
				number := runs[len(runs)-1].number
				want := fmt.Sprintf("first line of %s, attempt %d\nlast line of %s, attempt %d\n", task.ID, number, task.ID, number)
				if text, err := s.TaskFile(t.Context(), job.id, task.ID, "stdout.txt"); err != nil || string(text) != want {
					s.violated("stdout of %s/%s is %q, error %v, want %q%s", job.id, task.ID, text, err, want, tell(runs))
				}
			})
		}
	}
	reading.Wait()
}

// checkNodes: both nodes are there and have nothing to do.
func (s *storm) checkNodes(t *testing.T) {
	t.Helper()
	s.awaitNodes(t, s.pool, len(s.nodes), batch.NodeIdle)
	nodes, err := s.Nodes(t.Context(), s.pool)
	if err != nil {
		t.Fatal(err)
	}
	for _, node := range nodes {
		if node.RunningTasks != 0 || !slices.Contains(s.nodes, node.ID) {
			s.violated("node %s, of %v, runs %d tasks", node.ID, s.nodes, node.RunningTasks)
		}
	}
}

// checkData has the program itself look whether database, blobs and node folders agree, which it
// can do beside the server.
func (s *storm) checkData(t *testing.T) {
	t.Helper()
	command := exec.CommandContext(t.Context(), s.program, "admin", "fsck", "--deep", "--config", s.configFile())
	text, err := command.CombinedOutput()
	s.note("fsck", string(text), err)
	if err != nil {
		s.violated("fsck: %v\n%s", err, text)
	}
}

// clear deletes all jobs and blobs.
func (s *storm) clear(t *testing.T, jobs []*jobRecord) {
	t.Helper()
	for _, job := range jobs {
		err := s.DeleteJob(t.Context(), job.id)
		if code := batch.CodeOf(err); err != nil && code != batch.CodeJobNotFound && code != batch.CodeJobBeingDeleted {
			s.violated("delete job %s: %v", job.id, err)
		}
	}
	for _, job := range jobs {
		awaitGone(t, "job "+string(job.id), func(ctx context.Context) error { _, err := s.Job(ctx, job.id); return err })
	}
	for _, c := range s.customers {
		for _, blob := range c.blobs {
			if err := s.storageCall(t.Context(), "DELETE", blob.name, "", nil, nil); err != nil && batch.CodeOf(err) != "BlobNotFound" {
				s.violated("delete blob %s: %v", blob.name, err)
			}
		}
	}
}

// losses are the moments at which a node lost its tasks because its keeper was killed or its
// lease was over, by its own clock or by the server's. The latter need a reason too.
func (s *storm) losses(t *testing.T) map[string][]time.Time {
	t.Helper()
	losses := map[string][]time.Time{}
	for _, node := range s.nodes {
		name := string(node)
		losses[name] = slices.Clone(s.fallen[name])
		keeper := logged(t, filepath.Join(s.nodeFolder(node), "state", "keeper", "keeper.log"), "lease has run out")
		server := logged(t, s.logFile(), "lost contact with compute node", "node="+name+" ")
		for _, at := range append(keeper, server...) {
			if calm := s.longestCalm(interval{at.Add(-s.lease), at}); calm > s.lease/2 {
				s.violated("the lease of %s ran out at %s, although the server was there for %v before", name, at.Format(clockTime), calm)
			}
			losses[name] = append(losses[name], at)
		}
	}
	return losses
}

// logged are the times of the lines of a log that have all the words.
func logged(t *testing.T, file string, words ...string) (moments []time.Time) {
	t.Helper()
	log, err := os.Open(file)
	if err != nil {
		t.Error(err)
		return nil
	}
	defer log.Close()
	lines := bufio.NewScanner(log)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		if slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(line, word) }) {
			continue
		}
		word, _, _ := strings.Cut(strings.TrimPrefix(line, "time="), " ")
		at, err := time.Parse(time.RFC3339Nano, word)
		if err != nil {
			t.Errorf("line %q: %v", line, err)
		}
		moments = append(moments, at)
	}
	if err := lines.Err(); err != nil {
		t.Error(err)
	}
	return moments
}

// longestCalm is the longest time without trouble within an interval.
func (s *storm) longestCalm(within interval) time.Duration {
	calm, since := time.Duration(0), within.from
	for _, trouble := range s.trouble { // in order
		if trouble.to.Before(within.from) || trouble.from.After(within.to) {
			continue
		}
		calm = max(calm, trouble.from.Sub(since))
		since = trouble.to
	}
	return max(calm, within.to.Sub(since))
}
