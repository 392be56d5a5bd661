package batchtest_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/batchtest"
)

// schedule is what happens to a small cluster. All of it follows from a seed.
type schedule struct {
	seed   uint64
	nodes  int
	slots  int
	lease  time.Duration
	tasks  []task
	events []event
	// limit is how long the job "limited" may take.
	limit time.Duration
}

// limited is the job with a limit of time.
const limited = batch.JobID("limited")

// task is one task of the schedule's jobs.
type task struct {
	job    batch.JobID
	id     batch.TaskID
	at     time.Duration // when it is added
	length time.Duration
	exit   int
	slots  int
	// retries are allowed; a task that fails uses all of them.
	retries int
	// limit is how long it may run, retention how long its files stay; 0 is what
	// there is without saying anything.
	limit, retention time.Duration
}

// overruns tells that the task is ended because it takes too long.
func (t *task) overruns() bool { return t.limit > 0 && t.length > t.limit }

// event is something that happens at a moment.
type event struct {
	at   time.Duration
	what string
	do   func(*play)
}

// kinds are the kinds of events. Each draws what it needs and answers with what
// begins and, after a while, what ends it.
var kinds = []func(s *schedule, r *rand.Rand) []event{
	partition, noise, killAgent, stopAgent, powerOff, killKeeper, killServer, serverClock, nodeClock, reboot, replaceNode, drainNode, disable, replaceAgent,
	destroy, lateAnswers,
}

// newSchedule draws a schedule.
func newSchedule(seed uint64) *schedule {
	r := rand.New(rand.NewPCG(seed, 0))
	s := &schedule{
		seed: seed, nodes: 2 + r.IntN(3), slots: 1 + r.IntN(3),
		lease: []time.Duration{10 * time.Second, 20 * time.Second, time.Minute}[r.IntN(3)],
	}
	for i := range 6 + r.IntN(13) {
		s.tasks = append(s.tasks, s.task(i, r))
	}
	if r.IntN(5) == 0 {
		s.addQuick(r)
	}
	s.addLimited(r)
	slices.SortStableFunc(s.tasks, func(a, b task) int { return int(a.at - b.at) })
	for range 3 + r.IntN(8) {
		s.events = append(s.events, kinds[r.IntN(len(kinds))](s, r)...)
	}
	slices.SortStableFunc(s.events, func(a, b event) int { return int(a.at - b.at) })
	return s
}

func (s *schedule) task(i int, r *rand.Rand) task {
	t := task{
		job: batch.JobID(fmt.Sprintf("job-%d", r.IntN(2))), id: batch.TaskID(fmt.Sprintf("t%02d", i)),
		length: between(r, 10*time.Millisecond, s.lease/4), slots: 1 + r.IntN(s.slots),
	}
	if r.IntN(4) == 0 {
		t.length = between(r, s.lease/4, 2*s.lease)
	}
	if r.IntN(3) == 0 {
		t.at = between(r, 0, 2*s.lease)
	}
	if r.IntN(6) == 0 {
		t.exit, t.retries = 1+r.IntN(100), r.IntN(3)
	}
	return t
}

// addLimited gives some tasks a limit of time, of which some take longer, and has
// tasks for the job with a limit, which ends them.
func (s *schedule) addLimited(r *rand.Rand) {
	s.limit = between(r, s.lease, 6*s.lease)
	for i := range s.tasks {
		t := &s.tasks[i]
		switch r.IntN(6) {
		case 0:
			t.limit = t.length + between(r, time.Minute, time.Hour)
		case 1:
			t.limit, t.length, t.retries = between(r, 2*time.Second, s.lease), 20*s.lease, 0
		}
		if r.IntN(4) == 0 {
			t.retention = between(r, time.Minute, 2*time.Hour)
		}
	}
	for i := range r.IntN(3) {
		s.tasks = append(s.tasks, task{
			job: limited, id: batch.TaskID(fmt.Sprintf("l%02d", i)), length: between(r, time.Second, 4*s.lease), slots: 1,
		})
	}
}

// addQuick adds tasks that are so short that nodes are given more than they
// have slots for.
func (s *schedule) addQuick(r *rand.Rand) {
	at := between(r, 0, 2*s.lease)
	for i := range 20 + r.IntN(30) {
		s.tasks = append(s.tasks, task{
			job: batch.JobID(fmt.Sprintf("job-%d", r.IntN(2))), id: batch.TaskID(fmt.Sprintf("q%02d", i)), at: at,
			length: between(r, time.Millisecond, 40*time.Millisecond), slots: 1 + r.IntN(s.slots),
		})
	}
}

// between draws a time.
func between(r *rand.Rand, low, high time.Duration) time.Duration {
	return low + time.Duration(r.Int64N(int64(high-low)+1)).Round(time.Millisecond)
}

// span draws when something begins and ends: most are over within a lease.
func (s *schedule) span(r *rand.Rand) (from, to time.Duration) {
	from = between(r, 0, 3*s.lease)
	length := between(r, s.lease/20, s.lease)
	if r.IntN(3) == 0 {
		length = between(r, s.lease, 3*s.lease)
	}
	return from, from + length
}

// pair is two events that belong together.
func (s *schedule) pair(r *rand.Rand, what string, begin, end func(*play)) []event {
	from, to := s.span(r)
	return []event{{from, what, begin}, {to, "end of " + what, end}}
}

// trouble is a pair of events that one machine has to bear. Which one that is
// shows when it begins, because nodes come and go.
func (s *schedule) trouble(r *rand.Rand, what string, begin, end func(*batchtest.Machine)) []event {
	node := r.IntN(s.nodes)
	var m *batchtest.Machine
	return s.pair(r, fmt.Sprintf("%s node %d", what, node),
		func(p *play) { m = p.machine(node); begin(m) }, func(*play) { end(m) })
}

// once is an event that one machine has to bear.
func (s *schedule) once(r *rand.Rand, what string, do func(*play, *batchtest.Machine)) []event {
	node, at := r.IntN(s.nodes), between(r, 0, 4*s.lease)
	return []event{{at, fmt.Sprintf("%s node %d", what, node), func(p *play) { do(p, p.machine(node)) }}}
}

func partition(s *schedule, r *rand.Rand) []event {
	how := r.IntN(3)
	up, down := how != 1, how != 0
	return s.trouble(r, fmt.Sprintf("cut (up %v, down %v)", up, down),
		func(m *batchtest.Machine) { m.Link.Cut(up, down) }, func(m *batchtest.Machine) { m.Link.Cut(false, false) })
}

// lateAnswers has a node hear late what the server said, and then nothing: its
// lease counts from when it asked.
func lateAnswers(s *schedule, r *rand.Rand) []event {
	node, from := r.IntN(s.nodes), between(r, 0, 3*s.lease)
	cut := from + between(r, s.lease/2, 3*s.lease/2)
	var m *batchtest.Machine
	return []event{
		{from, fmt.Sprintf("late answers to node %d", node), func(p *play) {
			m = p.machine(node)
			m.Link.Disturb(batchtest.Noise{DelayAnswer: 1, Late: s.lease})
		}},
		{cut, "cut that node", func(*play) { m.Link.Cut(true, true) }},
		{cut + 2*s.lease, "end of that", func(*play) { m.Link.Cut(false, false); m.Link.Disturb(batchtest.Noise{}) }},
	}
}

// destroy is the end of a machine, unless it is the last.
func destroy(s *schedule, r *rand.Rand) []event {
	return s.once(r, "destroy", func(p *play, m *batchtest.Machine) {
		if p.here() > 1 {
			m.Destroy()
		}
	})
}

func noise(s *schedule, r *rand.Rand) []event {
	n := batchtest.Noise{
		LoseRequest: r.Float64() * 0.3, LoseAnswer: r.Float64() * 0.3, Repeat: r.Float64(),
		DelayRequest: r.Float64(), DelayAnswer: r.Float64(),
		Late: between(r, 10*time.Millisecond, 2*s.lease),
	}
	if r.IntN(2) == 0 {
		n.Late = between(r, time.Millisecond, s.lease/10)
	}
	return s.pair(r, fmt.Sprintf("noise %+v", n),
		func(p *play) { p.each(func(m *batchtest.Machine) { m.Link.Disturb(n) }) },
		func(p *play) { p.each(func(m *batchtest.Machine) { m.Link.Disturb(batchtest.Noise{}) }) })
}

func killAgent(s *schedule, r *rand.Rand) []event {
	return s.trouble(r, "kill agent of", (*batchtest.Machine).KillAgent, (*batchtest.Machine).On)
}

func stopAgent(s *schedule, r *rand.Rand) []event {
	return s.trouble(r, "stop agent of", (*batchtest.Machine).StopAgent, (*batchtest.Machine).On)
}

func powerOff(s *schedule, r *rand.Rand) []event {
	return s.trouble(r, "power off", (*batchtest.Machine).PowerOff, (*batchtest.Machine).On)
}

// replaceAgent has an agent begin while calls of the one before are under way.
func replaceAgent(s *schedule, r *rand.Rand) []event {
	return s.once(r, "replace agent of", func(_ *play, m *batchtest.Machine) {
		m.KillAgent()
		m.On()
	})
}

func killKeeper(s *schedule, r *rand.Rand) []event {
	return s.once(r, "kill keeper of", func(_ *play, m *batchtest.Machine) { m.KillKeeper() })
}

func killServer(s *schedule, r *rand.Rand) []event {
	return s.pair(r, "kill server", func(p *play) { p.KillServer() }, func(p *play) { p.StartServer() })
}

// jump draws by how much a date is set.
func jump(r *rand.Rand) time.Duration {
	by := between(r, time.Second, 12*time.Hour)
	if r.IntN(2) == 0 {
		by = -by
	}
	return by
}

func serverClock(s *schedule, r *rand.Rand) []event {
	by, at := jump(r), between(r, 0, 4*s.lease)
	return []event{{at, fmt.Sprintf("set the server's date by %v", by), func(p *play) { p.Clock.Jump(by) }}}
}

func nodeClock(s *schedule, r *rand.Rand) []event {
	by := jump(r)
	return s.once(r, fmt.Sprintf("set by %v the date of", by), func(_ *play, m *batchtest.Machine) { m.Clock.Jump(by) })
}

func reboot(s *schedule, r *rand.Rand) []event {
	options := []batch.RebootOption{batch.RebootRequeue, batch.RebootTaskCompletion}
	option := options[r.IntN(len(options))]
	return s.once(r, fmt.Sprintf("reboot (%s)", option), func(p *play, m *batchtest.Machine) { p.reboot(m, option) })
}

func replaceNode(s *schedule, r *rand.Rand) []event {
	options := []batch.NodeDeallocationOption{batch.DeallocateRequeue, batch.DeallocateTaskCompletion}
	option := options[r.IntN(len(options))]
	return s.once(r, fmt.Sprintf("replace (%s)", option), func(p *play, m *batchtest.Machine) { p.replace(m, option) })
}

func drainNode(s *schedule, r *rand.Rand) []event {
	node := r.IntN(s.nodes)
	options := []batch.DisableSchedulingOption{batch.DisableRequeue, batch.DisableTaskCompletion}
	option := options[r.IntN(len(options))]
	var m *batchtest.Machine
	return s.pair(r, fmt.Sprintf("disable scheduling (%s) of node %d", option, node),
		func(p *play) { m = p.machine(node); p.disableNode(m, option) }, func(p *play) { p.enableNode(m) })
}

func disable(s *schedule, r *rand.Rand) []event {
	job := batch.JobID(fmt.Sprintf("job-%d", r.IntN(2)))
	options := []batch.DisableTasks{batch.DisableTasksRequeue, batch.DisableTasksWait}
	option := options[r.IntN(len(options))]
	return s.pair(r, fmt.Sprintf("disable %s (%s)", job, option),
		func(p *play) { p.disable(job, option) }, func(p *play) { p.enable(job) })
}

// String is the schedule as a person reads it.
func (s *schedule) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d: %d nodes of %d slots, lease %v\n", s.seed, s.nodes, s.slots, s.lease)
	for _, t := range s.tasks {
		fmt.Fprintf(&b, "%10v add %s/%s: %v, exit %d, %d slots\n", t.at, t.job, t.id, t.length, t.exit, t.slots)
	}
	for _, e := range s.events {
		fmt.Fprintf(&b, "%10v %s\n", e.at, e.what)
	}
	return b.String()
}
