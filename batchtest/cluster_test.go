package batchtest_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/batchtest"
	"github.com/batchyard/batchyard/control"
	"github.com/batchyard/batchyard/store"
)

var (
	seedFlag      = flag.Uint64("seed", 0, "play this schedule alone, and tell what happens")
	schedulesFlag = flag.Int("schedules", schedules, "how many random schedules to play")
)

const pool = batch.PoolID("pool")

// TestRandomSchedules plays short random schedules on small clusters: real
// agents against a real server.
func TestRandomSchedules(t *testing.T) {
	t.Parallel()
	template := newTemplate(t)
	if *seedFlag != 0 {
		newSchedule(*seedFlag).play(t, template, slog.New(slog.NewTextHandler(t.Output(), nil)))
		return
	}
	first := rand.Uint64()
	t.Logf("schedules %d to %d", first, first+uint64(*schedulesFlag)-1)
	next := make(chan uint64)
	var failed sync.Once
	for range 4 {
		t.Run("worker", func(t *testing.T) {
			t.Parallel()
			for seed := range next {
				s := newSchedule(seed)
				if !t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { s.play(t, template, nil) }) {
					failed.Do(func() { t.Logf("again: go test ./batchtest -run TestRandomSchedules -seed %d", seed) })
				}
			}
		})
	}
	go func() {
		defer close(next)
		for i := range uint64(*schedulesFlag) {
			next <- first + i
		}
	}()
}

// newTemplate is an empty database with an account: to make one takes longer
// than to play a schedule.
func newTemplate(t *testing.T) []byte {
	t.Helper()
	path := filepath.Join(folder(t), "template.db")
	db, err := store.Open(context.Background(), store.Options{URL: path})
	check(t, err)
	check(t, control.New(control.Options{DB: db}).AddAccount(context.Background(), batch.Account{Name: batchtest.Account, Keys: [2][]byte{{1}, {2}}}))
	check(t, db.Close())
	template, err := os.ReadFile(path)
	check(t, err)
	return template
}

// folder is a folder in memory if the machine has such: what syncs cost is not
// the question here.
func folder(t *testing.T) string {
	t.Helper()
	path, err := os.MkdirTemp("/dev/shm", "batchtest")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(path); err != nil {
			t.Error(err)
		}
	})
	return path
}

// addPool makes the pool.
func addPool(t testing.TB, c *batchtest.Cluster, nodes, slots int) {
	t.Helper()
	_, err := c.Server().AddPool(t.Context(), batchtest.Account, batch.PoolSpecification{
		ID: pool, VMSize: "custom_32c_4g", TaskSlotsPerNode: slots, TargetDedicatedNodes: nodes,
		VirtualMachineConfiguration: &batch.VirtualMachineConfiguration{
			NodeAgentSKUID: "batch.node.debian 12", ImageReference: batch.ImageReference{Publisher: "debian", Offer: "debian-12"},
		},
	})
	check(t, err)
}

// ticks is a length of time for a specification, nil for none.
func ticks(d time.Duration) *batch.Duration {
	if d == 0 {
		return nil
	}
	length := batch.DurationOf(d)
	return &length
}

// addJob makes a job on the pool, with a limit of time unless that is zero.
func addJob(t testing.TB, c *batchtest.Cluster, id batch.JobID, priority int, limit time.Duration) {
	t.Helper()
	spec := batch.JobSpecification{ID: id, Priority: priority, PoolInfo: batch.PoolInfo{PoolID: pool}}
	if limit > 0 {
		spec.Constraints = &batch.JobConstraints{MaxWallClockTime: ticks(limit)}
	}
	_, err := c.Server().AddJob(t.Context(), batchtest.Account, spec)
	check(t, err)
}

// violations are the promises that were broken, as an error.
func violations(w *batchtest.Witness) error {
	var errs []error
	for _, v := range w.Violations() {
		errs = append(errs, errors.New(v))
	}
	return errors.Join(errs...)
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// play is a schedule on the stage.
type play struct {
	*batchtest.Cluster
	t     *testing.T
	began time.Time
	lease time.Duration
	added map[batch.JobID][]batch.TaskID
	// refused is how many tasks came too late for the job with a limit.
	refused int
}

// play plays the schedule in a bubble.
func (s *schedule) play(t *testing.T, template []byte, log *slog.Logger) {
	dir := folder(t)
	synctest.Test(t, func(t *testing.T) {
		p := &play{t: t, lease: s.lease, added: map[batch.JobID][]batch.TaskID{"job-0": nil, "job-1": nil, limited: nil}}
		p.Cluster = batchtest.New(t, batchtest.Options{Folder: dir, Template: template, Seed: s.seed, Lease: s.lease, Log: log})
		defer func() {
			if t.Failed() {
				t.Logf("%v\n%s", s, p.Diary())
			}
		}()
		p.prepare(s)
		p.began = time.Now()
		tasks := s.tasks
		for _, e := range s.events {
			tasks = p.addTasks(tasks, e.at)
			p.until(e.at)
			p.Note("%s", e.what)
			e.do(p)
			p.audit()
			p.refill(s.nodes)
		}
		p.addTasks(tasks, time.Hour)
		p.heal(s)
		p.finish(s)
	})
}

func (p *play) until(at time.Duration) { time.Sleep(time.Until(p.began.Add(at))) }

// prepare makes the pool and jobs and waits for the nodes.
func (p *play) prepare(s *schedule) {
	addPool(p.t, p.Cluster, s.nodes, s.slots)
	p.Resized()
	for job := range p.added {
		if job == limited {
			addJob(p.t, p.Cluster, job, 0, s.limit)
		} else {
			addJob(p.t, p.Cluster, job, 0, 0)
		}
	}
	for len(p.Machines()) < s.nodes {
		time.Sleep(100 * time.Millisecond)
	}
}

// machine is the n-th of those whose nodes there are.
func (p *play) machine(n int) *batchtest.Machine {
	all := p.Machines()
	here := slices.DeleteFunc(slices.Clone(all), (*batchtest.Machine).Left)
	if len(here) == 0 {
		here = all
	}
	return here[n%len(here)]
}

// here is how many machines there are whose nodes have not left.
func (p *play) here() int {
	return len(slices.DeleteFunc(p.Machines(), (*batchtest.Machine).Left))
}

func (p *play) each(do func(*batchtest.Machine)) {
	for _, m := range p.Machines() {
		do(m)
	}
}

// addTasks adds the tasks whose time comes before a moment, and returns the rest. While
// the server is down they wait for it.
func (p *play) addTasks(tasks []task, before time.Duration) []task {
	for len(tasks) > 0 && tasks[0].at < before {
		if !p.Up() {
			return tasks
		}
		t := tasks[0]
		p.until(t.at)
		_, err := p.Server().AddTask(p.t.Context(), batchtest.Account, t.job, batch.TaskSpecification{
			ID: t.id, CommandLine: batchtest.Script(t.length, t.exit, t.slots), RequiredSlots: t.slots,
			Constraints: &batch.TaskConstraints{
				MaxTaskRetryCount: &t.retries, MaxWallClockTime: ticks(t.limit), RetentionTime: ticks(t.retention),
			},
		})
		tasks = tasks[1:]
		if t.job == limited && batch.CodeOf(err) != "" {
			p.refused++ // the job has ended
			continue
		}
		check(p.t, err)
		p.added[t.job] = append(p.added[t.job], t.id)
		if t.limit > 0 {
			p.Witness.Limit(batchtest.TaskKey{Job: t.job, Task: t.id}, t.limit, p.lease+5*time.Second)
		}
	}
	return tasks
}

// may passes over what the service refuses, and what cannot be asked because it
// is down.
func (p *play) may(do func(ctx context.Context) error) {
	p.t.Helper()
	if !p.Up() {
		return
	}
	if err := do(p.t.Context()); err != nil && batch.CodeOf(err) == "" {
		p.t.Fatal(err)
	}
}

func (p *play) reboot(m *batchtest.Machine, option batch.RebootOption) {
	p.may(func(ctx context.Context) error {
		return p.Server().RebootNode(ctx, batchtest.Account, pool, m.ID, option)
	})
}

func (p *play) disableNode(m *batchtest.Machine, option batch.DisableSchedulingOption) {
	p.may(func(ctx context.Context) error {
		return p.Server().DisableScheduling(ctx, batchtest.Account, pool, m.ID, option)
	})
}

func (p *play) enableNode(m *batchtest.Machine) {
	p.may(func(ctx context.Context) error {
		return p.Server().EnableScheduling(ctx, batchtest.Account, pool, m.ID)
	})
}

// replace takes a node out of the pool; refill brings another.
func (p *play) replace(m *batchtest.Machine, option batch.NodeDeallocationOption) {
	p.may(func(ctx context.Context) error {
		removal := batch.NodeRemoval{NodeList: []batch.NodeID{m.ID}, NodeDeallocationOption: option}
		p.Resized()
		_, err := p.Server().RemoveNodes(ctx, batchtest.Account, pool, removal, batch.Conditions{})
		return err
	})
}

// refill asks for as many nodes as there are to be, once the pool is steady.
func (p *play) refill(nodes int) {
	p.may(func(ctx context.Context) error {
		is, err := p.Server().Pool(ctx, batchtest.Account, pool)
		if err != nil || is.TargetDedicatedNodes == nodes || is.AllocationState != batch.AllocationSteady {
			return err
		}
		p.Resized()
		_, err = p.Server().ResizePool(ctx, batchtest.Account, pool, batch.PoolResize{TargetDedicatedNodes: &nodes}, batch.Conditions{})
		return err
	})
}

func (p *play) disable(job batch.JobID, option batch.DisableTasks) {
	p.may(func(ctx context.Context) error {
		_, err := p.Server().DisableJob(ctx, batchtest.Account, job, option, batch.Conditions{})
		return err
	})
}

func (p *play) enable(job batch.JobID) {
	p.may(func(ctx context.Context) error {
		_, err := p.Server().EnableJob(ctx, batchtest.Account, job, batch.Conditions{})
		return err
	})
}

// audit compares everything, if the server is there to be asked.
func (p *play) audit() []batch.Task {
	p.t.Helper()
	if !p.Up() {
		return nil
	}
	tasks, err := p.Audit(pool, p.added)
	check(p.t, err)
	return tasks
}

// heal ends all that hinders.
func (p *play) heal(s *schedule) {
	p.Note("heal")
	p.StartServer()
	p.each(func(m *batchtest.Machine) {
		m.Link.Cut(false, false)
		m.Link.Disturb(batchtest.Noise{})
		m.On()
	})
	p.mend(s)
}

// mend undoes what users did, as far as it can be done already, and has the
// nodes of machines that are no more replaced, as an operator would: they may be
// all that the pool has.
func (p *play) mend(s *schedule) {
	p.each(func(m *batchtest.Machine) {
		if m.Lost() {
			p.replace(m, batch.DeallocateRequeue)
		}
	})
	p.refill(s.nodes)
	for job := range p.added {
		p.enable(job)
	}
	p.each(p.enableNode)
}

// finish waits until every task is completed, and nothing is left to do.
func (p *play) finish(s *schedule) {
	p.t.Helper()
	limit := 20*s.lease + time.Duration(len(s.tasks))*2*s.lease
	var tasks []batch.Task
	for deadline := time.Now().Add(limit); ; time.Sleep(s.lease / 2) {
		tasks = p.audit()
		left := 0
		for i := range tasks {
			if tasks[i].State != batch.TaskCompleted {
				left++
			}
		}
		running := p.Witness.Running() // what others ended may take a moment to hear of it
		if left == 0 && running == 0 && len(tasks)+p.refused == len(s.tasks) {
			break
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("%d tasks are not completed, and %d slots in use, %v after all is well; the pool has %s", left, running, limit, p.describePool())
		}
		p.mend(s)
	}
	for _, t := range s.tasks {
		if t.job != limited {
			p.compare(t)
		}
	}
	p.listByCreation(tasks)
}

// listByCreation asks for the tasks that were created since each of some, which
// no date that was set may hide.
func (p *play) listByCreation(tasks []batch.Task) {
	p.t.Helper()
	for i := 0; i < len(tasks); i += 5 {
		since, want := tasks[i].CreationTime, 0
		for j := range tasks {
			if tasks[j].Job == tasks[i].Job && !tasks[j].CreationTime.Before(since) {
				want++
			}
		}
		page, err := p.Server().Tasks(p.t.Context(), batchtest.Account, tasks[i].Job, control.Query{
			Filter: "creationTime ge datetime'" + since.Format(time.RFC3339Nano) + "'",
		})
		check(p.t, err)
		if len(page.Items) != want {
			p.t.Errorf("%d tasks of %s are listed as created since %v, want %d", len(page.Items), tasks[i].Job, since, want)
		}
	}
}

// describePool says how the pool and its nodes are.
func (p *play) describePool() string {
	p.t.Helper()
	is, err := p.Server().Pool(p.t.Context(), batchtest.Account, pool)
	check(p.t, err)
	nodes, err := p.Server().Nodes(p.t.Context(), batchtest.Account, pool, control.Query{})
	check(p.t, err)
	var b strings.Builder
	fmt.Fprintf(&b, "%d of %d nodes and is %s", is.CurrentDedicatedNodes, is.TargetDedicatedNodes, is.AllocationState)
	for _, n := range nodes.Items {
		name := "?"
		if m := p.Machine(n.ID); m != nil {
			name = m.Name
		}
		fmt.Fprintf(&b, "; %s: %s, scheduling %s, leaving %q, %d tasks", name, n.State, n.SchedulingState, n.Leaving, n.BoundTasks)
	}
	return b.String()
}

// compare holds the end of a task against its script: each of its ends was
// taken once.
func (p *play) compare(t task) {
	p.t.Helper()
	got, err := p.Server().Task(p.t.Context(), batchtest.Account, t.job, t.id)
	check(p.t, err)
	info := got.ExecutionInfo
	if t.overruns() {
		if info.FailureInfo == nil || info.FailureInfo.Code != batch.FailureWallClock {
			p.t.Errorf("%s/%s ended with %+v; it takes longer than it may", t.job, t.id, info)
		}
		return
	}
	if info.ExitCode == nil || *info.ExitCode != t.exit || info.RetryCount != t.retries {
		p.t.Errorf("%s/%s ended with %+v; its script exits %d, with %d retries", t.job, t.id, info, t.exit, t.retries)
	}
	done := 0
	for _, r := range p.Witness.Runs(batchtest.TaskKey{Job: t.job, Task: t.id}) {
		if r.Done {
			done++
		}
	}
	if done <= t.retries {
		p.t.Errorf("%s/%s came to its end %d times and was retried %d times", t.job, t.id, done, t.retries)
	}
}
