package control_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/control"
	"github.com/batchyard/batchyard/conversation"
	"github.com/batchyard/batchyard/scheduler"
	"github.com/batchyard/batchyard/store"
	"github.com/batchyard/batchyard/upkeep"
)

const acct = "acct"

// yard is a server without its edges: a database, the verbs, and the loops once
// they are started. Times are those of the bubble, if there is one.
type yard struct {
	*control.Service
	*conversation.Room
	t    testing.TB
	db   *store.DB
	url  string
	stop func() // the loops
	// clock is the server's, the machine's if nil.
	clock func() store.Reading

	ahead   atomic.Int64                      // nanoseconds by which the clock of the leases is ahead
	current atomic.Pointer[conversation.Room] // for robots, which live through restarts
}

// newYard opens a yard with an account.
func newYard(t testing.TB, url string) *yard {
	t.Helper()
	return newYardAt(t, url, nil)
}

// newYardAt opens a yard with a clock of its own.
func newYardAt(t testing.TB, url string, clock func() store.Reading) *yard {
	t.Helper()
	y := &yard{t: t, url: url, stop: func() {}, clock: clock}
	y.open()
	t.Cleanup(y.close)
	y.check(y.AddAccount(ctx(t), batch.Account{Name: acct, Keys: [2][]byte{{1}, {2}}}))
	return y
}

func ctx(t testing.TB) context.Context { return t.Context() }

func (y *yard) open() {
	db, err := store.Open(context.Background(), store.Options{URL: y.url, Clock: y.clock})
	y.check(err)
	y.db = db
	y.Service = control.New(control.Options{DB: db, NearTasks: 10})
	y.Room = conversation.New(conversation.Options{
		DB: db, Control: y.Service, Now: func() time.Time { return time.Now().Add(time.Duration(y.ahead.Load())) },
	})
	y.current.Store(y.Room)
}

func (y *yard) close() {
	y.stop()
	y.check(y.db.Close())
}

// loops starts scheduler and upkeep.
func (y *yard) loops() {
	working, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for _, run := range []func(context.Context) error{
		scheduler.New(scheduler.Options{DB: y.db, Control: y.Service}).Run,
		upkeep.New(upkeep.Options{DB: y.db, Control: y.Service, Nodes: y.Room}).Run,
	} {
		running.Go(func() {
			if err := run(working); err != nil {
				y.t.Error(err)
			}
		})
	}
	y.stop = func() { cancel(); running.Wait(); y.stop = func() {} }
}

// restart closes everything and opens it again on the same database, as after
// a kill: what was not on disk is gone.
func (y *yard) restart() {
	y.t.Helper()
	y.close()
	y.open()
	y.loops()
}

func (y *yard) check(err error) {
	y.t.Helper()
	if err != nil {
		y.t.Fatal(err)
	}
}

func (y *yard) refused(err error, code batch.Code) {
	y.t.Helper()
	if batch.CodeOf(err) != code {
		y.t.Errorf("got %v, want code %s", err, code)
	}
}

func poolSpec(id batch.PoolID, nodes, slots int) batch.PoolSpecification {
	return batch.PoolSpecification{
		ID: id, VMSize: "custom_4c_4g", TaskSlotsPerNode: slots, TargetDedicatedNodes: nodes,
		VirtualMachineConfiguration: &batch.VirtualMachineConfiguration{
			NodeAgentSKUID: "batch.node.debian 12", ImageReference: batch.ImageReference{Publisher: "debian", Offer: "debian-12"},
		},
	}
}

func jobSpec(id batch.JobID) batch.JobSpecification {
	return batch.JobSpecification{ID: id, PoolInfo: batch.PoolInfo{PoolID: "pool"}}
}

func taskSpec(id batch.TaskID) batch.TaskSpecification {
	return batch.TaskSpecification{ID: id, CommandLine: "/bin/true"}
}

// addTasks adds tasks named prefix-000 and so on.
func (y *yard) addTasks(job batch.JobID, prefix string, n int, change ...func(*batch.TaskSpecification)) {
	y.t.Helper()
	for from := 0; from < n; from += 100 {
		var specs []batch.TaskSpecification
		for i := from; i < min(n, from+100); i++ {
			spec := taskSpec(batch.TaskID(fmt.Sprintf("%s-%03d", prefix, i)))
			for _, c := range change {
				c(&spec)
			}
			specs = append(specs, spec)
		}
		results, err := y.AddTasks(ctx(y.t), acct, job, specs)
		y.check(err)
		for _, r := range results {
			y.check(r.Err)
		}
	}
}

// prepare adds the pool "pool" and the job "job".
func (y *yard) prepare(nodes, slots int) {
	y.t.Helper()
	_, err := y.AddPool(ctx(y.t), acct, poolSpec("pool", nodes, slots))
	y.check(err)
	_, err = y.AddJob(ctx(y.t), acct, jobSpec("job"))
	y.check(err)
}

func (y *yard) task(job batch.JobID, id batch.TaskID) batch.Task {
	y.t.Helper()
	t, err := y.Task(ctx(y.t), acct, job, id)
	y.check(err)
	return t
}

func (y *yard) job(id batch.JobID) batch.Job {
	y.t.Helper()
	job, err := y.Job(ctx(y.t), acct, id)
	y.check(err)
	return job
}

func (y *yard) tasks(job batch.JobID) []batch.Task {
	y.t.Helper()
	var all []batch.Task
	q := control.Query{}
	for {
		page, err := y.Tasks(ctx(y.t), acct, job, q)
		y.check(err)
		all = append(all, page.Items...)
		if q.Token = page.Next; q.Token == "" {
			return all
		}
	}
}

// wanted returns the nodes that should exist, once there are n of them.
func (y *yard) wanted(n int) []control.NodeWanted {
	y.t.Helper()
	synctest.Wait()
	nodes, err := y.DesiredNodes(ctx(y.t))
	y.check(err)
	if len(nodes) != n {
		y.t.Fatalf("%d nodes should exist, want %d", len(nodes), n)
	}
	return nodes
}

// handNode makes a node by hand and brings it up, without any loop.
func (y *yard) handNode() *script {
	y.t.Helper()
	y.check(y.StepPool(ctx(y.t), acct, "pool", func(*batch.Pool, []batch.Node, time.Time) control.PoolStep {
		return control.PoolStep{AddDedicated: 1}
	}))
	nodes, err := y.DesiredNodes(ctx(y.t))
	y.check(err)
	at := slices.IndexFunc(nodes, func(n control.NodeWanted) bool { return n.State == batch.NodeCreating })
	n := y.script(nodes[at].Node)
	n.sync()
	n.boot = n.orders.Boot
	n.sync()
	return n
}

// assign binds tasks of the job "job" to a node.
func (y *yard) assign(node *script, tasks ...batch.TaskID) int {
	y.t.Helper()
	return y.assignOf("job", node, tasks...)
}

// assignOf binds tasks of a job to a node and says how many it got.
func (y *yard) assignOf(job batch.JobID, node *script, tasks ...batch.TaskID) int {
	y.t.Helper()
	var list []control.Assignment
	for _, id := range tasks {
		list = append(list, control.Assignment{TaskRef: store.TaskRef{Job: job, Task: id}, Node: node.id})
	}
	n, err := y.Assign(ctx(y.t), acct, decided(list, nil))
	y.check(err)
	return n
}

// script is an agent's part of the conversation, driven by hand: nothing of it
// happens by itself.
type script struct {
	y               *yard
	id              batch.NodeID
	token, instance string
	boot            int
	orders          batch.NodeOrders
	held            map[string]*attempt
	removed         []int64
	settings        int64
	errors          []batch.NodeError
	unfit           bool
}

// attempt is what the node holds of a task.
type attempt struct {
	batch.TaskReport
	release batch.Release
}

func (y *yard) script(id batch.NodeID) *script {
	y.t.Helper()
	token, err := y.NewNodeToken(ctx(y.t), id)
	y.check(err)
	return &script{y: y, id: id, token: token, instance: "first", held: map[string]*attempt{}}
}

func nameOf(job batch.JobID, task batch.TaskID) string { return string(job) + "/" + string(task) }

// report is the node as it is.
func (n *script) report() batch.NodeReport {
	r := batch.NodeReport{
		Revision: n.orders.Revision, Settings: n.settings, Instance: n.instance, Boot: n.boot,
		Booting: n.boot < n.orders.Boot, Removed: n.removed, NoWait: true,
		Errors: n.errors, Unfit: n.unfit,
	}
	for _, a := range n.held {
		r.Tasks = append(r.Tasks, a.TaskReport)
	}
	slices.SortFunc(r.Tasks, func(a, b batch.TaskReport) int {
		return strings.Compare(nameOf(a.Job, a.Task), nameOf(b.Job, b.Task))
	})
	r.Left = n.orders.Leave && len(r.Tasks) == 0
	return r
}

// sync makes one call and takes its answer.
func (n *script) sync() batch.NodeOrders {
	n.y.t.Helper()
	orders, err := n.y.Sync(ctx(n.y.t), n.id, n.token, n.report())
	n.y.check(err)
	n.take(orders)
	return orders
}

// take makes the node hold what the orders name.
func (n *script) take(orders batch.NodeOrders) {
	n.orders, n.removed = orders, nil
	if orders.Settings != nil {
		n.settings = orders.Settings.Version
	}
	named := map[string]bool{}
	for _, o := range orders.Tasks {
		name := nameOf(o.Job, o.Task)
		named[name] = true
		a := n.held[name]
		if a == nil || a.Attempt != o.Attempt {
			a = &attempt{TaskReport: batch.TaskReport{Job: o.Job, Task: o.Task, Attempt: o.Attempt, Phase: batch.PhaseHeld}}
			n.held[name] = a
		}
		a.release = o.Release
	}
	for name := range n.held {
		if !named[name] {
			delete(n.held, name)
		}
	}
	for _, r := range orders.Removals {
		n.removed = append(n.removed, r.ID)
	}
}

func (n *script) of(task batch.TaskID) *attempt {
	n.y.t.Helper()
	a := n.held[nameOf("job", task)]
	if a == nil {
		n.y.t.Fatalf("the node does not hold %s", task)
	}
	return a
}

// start begins a task, end ends it; the next sync says so.
func (n *script) start(task batch.TaskID) {
	n.y.t.Helper()
	a, now := n.of(task), batch.At(time.Now())
	a.Phase, a.Start = batch.PhaseRunning, &now
}

func (n *script) end(task batch.TaskID, exitCode int) {
	n.y.t.Helper()
	a, now := n.of(task), batch.At(time.Now())
	if a.Start == nil {
		a.Start = &now
	}
	a.Phase, a.Outcome = batch.PhaseEnded, outcome(exitCode, now)
}

func outcome(exitCode int, at batch.Time) *batch.Outcome {
	o := &batch.Outcome{End: at, ExitCode: &exitCode}
	if exitCode != 0 {
		o.Failure = &batch.FailureInfo{
			Category: batch.UserError, Code: batch.FailureExitCode,
			Message: "The task exited with an exit code representing a failure",
		}
	}
	return o
}

// decided is a decision that was made before.
func decided(list []control.Assignment, recalls []control.Recall) func(*store.Tx) (control.Decision, error) {
	return func(*store.Tx) (control.Decision, error) {
		return control.Decision{Pool: "pool", Assign: list, Recall: recalls}, nil
	}
}
