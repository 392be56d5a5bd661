package batchtest_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/batchtest"
)

var (
	nodesFlag = flag.Int("nodes", bigNodes, "nodes of the large cluster")
	tasksFlag = flag.Int("tasks", bigTasks, "tasks of the large cluster")
)

const (
	bigSlots = 16
	bigJobs  = 5
	// step is how often everything is counted anew.
	step = 20 * time.Second
)

// big is the large cluster and what has happened to it.
type big struct {
	*batchtest.Cluster
	t     *testing.T
	rand  *rand.Rand
	nodes int
	tasks int
}

// TestLargeCluster runs very many tasks on very many nodes, of which some are
// always in trouble.
func TestLargeCluster(t *testing.T) {
	t.Parallel()
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("again: go test ./batchtest -run TestLargeCluster -seed %d", seed)
	template, dir := newTemplate(t), folder(t)
	synctest.Test(t, func(t *testing.T) {
		b := &big{t: t, rand: rand.New(rand.NewPCG(seed, 1)), nodes: *nodesFlag, tasks: *tasksFlag}
		b.Cluster = batchtest.New(t, batchtest.Options{Folder: dir, Template: template, Seed: seed, Lease: time.Minute, Robots: true})
		defer func() {
			if t.Failed() {
				t.Log(b.Diary())
			}
		}()
		b.prepare()
		b.play()
		b.finish()
	})
}

// prepare makes pool and jobs, waits for all nodes and adds the first half of
// the tasks.
func (b *big) prepare() {
	addPool(b.t, b.Cluster, b.nodes, bigSlots)
	for job := range bigJobs {
		addJob(b.t, b.Cluster, jobOf(job), job%3, 0)
	}
	for len(b.Machines()) < b.nodes {
		time.Sleep(time.Second)
	}
	b.addTasks(0, b.tasks/2)
}

func jobOf(n int) batch.JobID { return batch.JobID(fmt.Sprintf("job-%d", n%bigJobs)) }

// addTasks adds tasks by hundreds. Their lengths are whole seconds, so that much
// happens at one moment.
func (b *big) addTasks(from, to int) {
	b.t.Helper()
	for first := from; first < to; first += 100 {
		var specs []batch.TaskSpecification
		for i := first; i < min(first+100, to); i++ {
			slots, exit := 1, 0
			if b.rand.IntN(20) == 0 {
				slots = 2 + b.rand.IntN(4)
			}
			if b.rand.IntN(50) == 0 {
				exit = 1 + b.rand.IntN(9)
			}
			length := time.Duration(20*(1+b.rand.IntN(4))) * time.Second
			specs = append(specs, batch.TaskSpecification{
				ID: batch.TaskID(fmt.Sprintf("t%06d", i)), RequiredSlots: slots, CommandLine: batchtest.Script(length, exit, slots),
			})
		}
		results, err := b.Server().AddTasks(b.t.Context(), batchtest.Account, jobOf(first/100), specs)
		check(b.t, err)
		for _, r := range results {
			check(b.t, r.Err)
		}
	}
}

// some draws a part of the machines.
func (b *big) some(share float64) []*batchtest.Machine {
	var drawn []*batchtest.Machine
	for _, m := range b.Machines() {
		if !m.Left() && b.rand.Float64() < share {
			drawn = append(drawn, m)
		}
	}
	return drawn
}

// play is the hard time. Each trouble begins at its moment and is over at
// another; counts are taken all along.
func (b *big) play() {
	began := time.Now()
	for _, e := range b.events() {
		for now := time.Since(began); now < e.at; now = time.Since(began) {
			time.Sleep(min(step, e.at-now))
			b.recount()
		}
		b.Note("%s", e.what)
		e.do()
		b.recount()
	}
}

// recount counts everything, if there is somebody to ask.
func (b *big) recount() batch.TaskCounts {
	b.t.Helper()
	if !b.Up() {
		return batch.TaskCounts{}
	}
	counts, err := b.Recount()
	check(b.t, err)
	return counts
}

// bigEvent is one moment of the hard time.
type bigEvent struct {
	at   time.Duration
	what string
	do   func()
}

func (b *big) events() []bigEvent {
	var off, both, up, down, stopped []*batchtest.Machine
	on := func(machines []*batchtest.Machine) {
		for _, m := range machines {
			m.On()
		}
	}
	cut := func(machines []*batchtest.Machine, up, down bool) {
		for _, m := range machines {
			m.Link.Cut(up, down)
		}
	}
	return []bigEvent{
		{20 * time.Second, "noise on all lines", func() { b.disturb(0.02, 20*time.Second) }},
		{30 * time.Second, "a tenth of the machines loses power", func() {
			off = b.some(0.1)
			for _, m := range off {
				m.PowerOff()
			}
		}},
		{45 * time.Second, "some hear nothing, some are not heard, some neither", func() {
			both, up, down = b.some(0.1), b.some(0.05), b.some(0.05)
			cut(up, true, false)
			cut(down, false, true)
			cut(both, true, true)
		}},
		{60 * time.Second, "the server's date goes on by five hours", func() { b.Clock.Jump(5 * time.Hour) }},
		{75 * time.Second, "half of the nodes get another date", func() {
			for _, m := range b.some(0.5) {
				m.Clock.Jump(time.Duration(b.rand.IntN(24*3600)-12*3600) * time.Second)
			}
		}},
		{90 * time.Second, "some machines are destroyed", func() {
			for _, m := range b.some(0.05) {
				m.Destroy()
			}
		}},
		{100 * time.Second, "more tasks come", func() { b.addTasks(b.tasks/2, b.tasks) }},
		{110 * time.Second, "power is back", func() { on(off) }},
		{120 * time.Second, "the server is killed", b.KillServer},
		{150 * time.Second, "the server is back, its date eleven hours earlier", func() { b.Clock.Jump(-11 * time.Hour); b.StartServer() }},
		{170 * time.Second, "agents are killed, their processes go on", func() {
			stopped = b.some(0.1)
			for _, m := range stopped {
				m.KillAgent()
			}
		}},
		{190 * time.Second, "agents are back", func() { on(stopped) }},
		{200 * time.Second, "everybody hears everybody", func() { cut(both, false, false); cut(up, false, false); cut(down, false, false) }},
		{210 * time.Second, "a short cut for many", func() { both = b.some(0.3); cut(both, true, true) }},
		{230 * time.Second, "the end of it", func() { cut(both, false, false) }},
		{240 * time.Second, "another date, and much noise", func() { b.Clock.Jump(-3 * time.Hour); b.disturb(0.1, 90*time.Second) }},
		{270 * time.Second, "silence on the lines", func() { b.disturb(0, 0) }},
	}
}

// disturb makes noise of one strength on all lines.
func (b *big) disturb(chance float64, late time.Duration) {
	for _, m := range b.Machines() {
		m.Link.Disturb(batchtest.Noise{
			LoseRequest: chance / 2, LoseAnswer: chance / 2, Repeat: chance, DelayRequest: chance, DelayAnswer: chance, Late: late,
		})
	}
}

// finish waits for all tasks and looks at what became of them.
func (b *big) finish() {
	limit := time.Now().Add(3 * time.Hour)
	for counts := b.recount(); counts.Succeeded+counts.Failed < int64(b.tasks); counts = b.recount() {
		if time.Now().After(limit) {
			b.t.Fatalf("tasks are not completed long after all is well: %+v", counts)
		}
		time.Sleep(step)
	}
	total := 0
	for job := range bigJobs {
		n, err := b.Completed(jobOf(job))
		check(b.t, err)
		total += n
	}
	if n := b.Witness.Running(); n != 0 || total != b.tasks {
		b.t.Errorf("%d of %d tasks are completed and %d slots in use", total, b.tasks, n)
	}
	check(b.t, violations(b.Witness))
	calls, _ := b.Traffic()
	b.t.Logf("%d nodes, %d tasks, %d processes, %d calls, %v of virtual time", len(b.Machines()), total, b.Witness.Began(), calls, b.Witness.Age())
}
