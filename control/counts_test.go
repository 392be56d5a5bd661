package control_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/batchyard/batchyard/admin"
	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/control"
	"github.com/batchyard/batchyard/store"
	"github.com/batchyard/batchyard/store/storetest"
)

// TestCountsEqualARecount fires random verbs and reports at a yard and counts
// everything anew after each.
func TestCountsEqualARecount(t *testing.T) {
	t.Parallel()
	storetest.Each(t, func(t *testing.T, url string) {
		y := newYard(t, url)
		pools := 0
		rapid.Check(t, func(rt *rapid.T) {
			pools++
			m := newMachine(rt, y, pools)
			actions := map[string]func(*rapid.T){}
			for name, act := range m.actions() {
				actions[name] = func(rt *rapid.T) { m.step(rt, act) }
			}
			actions[""] = m.recount
			rt.Repeat(actions)
		})
	})
}

// machine is one run of random verbs, on a pool and jobs of its own.
type machine struct {
	y     *yard
	pool  batch.PoolID
	small batch.PoolID // whose nodes have two slots, of which there are none
	jobs  []batch.JobID
	nodes []*script
}

func newMachine(rt *rapid.T, y *yard, n int) *machine {
	m := &machine{y: y, pool: batch.PoolID(fmt.Sprintf("pool-%d", n)), small: batch.PoolID(fmt.Sprintf("small-%d", n))}
	must := func(err error) {
		if err != nil {
			rt.Fatal(err)
		}
	}
	_, err := y.AddPool(ctx(y.t), acct, poolSpec(m.pool, 0, 3))
	must(err)
	_, err = y.AddPool(ctx(y.t), acct, poolSpec(m.small, 0, 2))
	must(err)
	must(y.StepPool(ctx(y.t), acct, m.pool, func(*batch.Pool, []batch.Node, time.Time) control.PoolStep {
		return control.PoolStep{AddDedicated: 2, AddLowPriority: 1}
	}))
	m.bringUp()
	for i := range 2 {
		spec := jobSpec(batch.JobID(fmt.Sprintf("job-%d-%d", n, i)))
		spec.PoolInfo.PoolID = m.pool
		spec.OnTaskFailure = batch.TaskFailurePerform
		_, err := y.AddJob(ctx(y.t), acct, spec)
		must(err)
		m.jobs = append(m.jobs, spec.ID)
	}
	return m
}

// bringUp plays the agents of nodes that are new.
func (m *machine) bringUp() {
	for _, id := range m.y.nodesOf(m.pool) {
		if slices.ContainsFunc(m.nodes, func(n *script) bool { return n.id == id }) {
			continue
		}
		node := m.y.script(id)
		node.sync()
		node.boot = 1
		node.sync()
		m.nodes = append(m.nodes, node)
	}
}

// step runs one action. What the service refuses in its own words is fine;
// everything else is not.
func (m *machine) step(rt *rapid.T, act func(*rapid.T) error) {
	if err := act(rt); err != nil && batch.CodeOf(err) == "" {
		rt.Fatal(err)
	}
}

func (m *machine) job(rt *rapid.T) batch.JobID { return rapid.SampledFrom(m.jobs).Draw(rt, "job") }

func (m *machine) taskID(rt *rapid.T) batch.TaskID {
	return batch.TaskID(fmt.Sprintf("t%d", rapid.IntRange(0, 9).Draw(rt, "task")))
}

func (m *machine) node(rt *rapid.T) *script {
	return m.nodes[rapid.IntRange(0, len(m.nodes)-1).Draw(rt, "node")]
}

// actions are the verbs and what nodes do.
func (m *machine) actions() map[string]func(*rapid.T) error {
	y, c, none := m.y, ctx(m.y.t), batch.Conditions{}
	return map[string]func(*rapid.T) error{
		"add tasks":  m.addTasks,
		"bind tasks": m.bind,
		"nodes talk": m.talk,
		"terminate a task": func(rt *rapid.T) error {
			_, err := y.TerminateTask(c, acct, m.job(rt), m.taskID(rt), none)
			return err
		},
		"delete a task": func(rt *rapid.T) error { return y.DeleteTask(c, acct, m.job(rt), m.taskID(rt), none) },
		"reactivate a task": func(rt *rapid.T) error {
			_, err := y.ReactivateTask(c, acct, m.job(rt), m.taskID(rt), none)
			return err
		},
		"disable a job": func(rt *rapid.T) error {
			options := []batch.DisableTasks{batch.DisableTasksRequeue, batch.DisableTasksTerminate, batch.DisableTasksWait}
			_, err := y.DisableJob(c, acct, m.job(rt), rapid.SampledFrom(options).Draw(rt, "option"), none)
			return err
		},
		"enable a job": func(rt *rapid.T) error { _, err := y.EnableJob(c, acct, m.job(rt), none); return err },
		"end a job": func(rt *rapid.T) error {
			if rapid.IntRange(0, 9).Draw(rt, "rarely") > 0 {
				return nil
			}
			_, err := y.TerminateJob(c, acct, m.job(rt), "", none)
			return err
		},
		"begin a job anew": func(rt *rapid.T) error {
			spec := jobSpec(m.job(rt))
			spec.PoolInfo.PoolID, spec.OnTaskFailure = m.pool, batch.TaskFailurePerform
			if err := y.DeleteJob(c, acct, spec.ID, none); err != nil {
				return err
			}
			_, err := y.AddJob(c, acct, spec)
			return err
		},
		"reboot": func(rt *rapid.T) error {
			options := []batch.RebootOption{batch.RebootRequeue, batch.RebootTerminate, batch.RebootTaskCompletion}
			return y.RebootNode(c, acct, m.pool, m.node(rt).id, rapid.SampledFrom(options).Draw(rt, "option"))
		},
		"disable scheduling": func(rt *rapid.T) error {
			options := []batch.DisableSchedulingOption{batch.DisableRequeue, batch.DisableTerminate, batch.DisableTaskCompletion}
			return y.DisableScheduling(c, acct, m.pool, m.node(rt).id, rapid.SampledFrom(options).Draw(rt, "option"))
		},
		"enable scheduling": func(rt *rapid.T) error { return y.EnableScheduling(c, acct, m.pool, m.node(rt).id) },
		"change a job": func(rt *rapid.T) error {
			patch := batch.JobPatch{Priority: new(rapid.IntRange(-2, 2).Draw(rt, "priority"))}
			if rapid.Bool().Draw(rt, "limits") {
				patch.MaxParallelTasks = new(rapid.SampledFrom([]int{-1, 1, 2, 3}).Draw(rt, "limit"))
			}
			if rapid.Bool().Draw(rt, "moves") {
				patch.PoolInfo = &batch.PoolInfo{PoolID: rapid.SampledFrom([]batch.PoolID{m.pool, m.small}).Draw(rt, "pool")}
			}
			_, err := y.PatchJob(c, acct, m.job(rt), patch, none)
			return err
		},
		"recall tasks": func(rt *rapid.T) error {
			ref := store.TaskRef{Job: m.job(rt), Task: m.taskID(rt)}
			_, err := y.Assign(c, acct, decided(nil, []control.Recall{{TaskRef: ref, Node: m.node(rt).id}}))
			return err
		},
		"replace a node": func(rt *rapid.T) error {
			options := []batch.NodeDeallocationOption{batch.DeallocateRequeue, batch.DeallocateTerminate, batch.DeallocateTaskCompletion}
			removal := batch.NodeRemoval{
				NodeList:               []batch.NodeID{m.node(rt).id},
				NodeDeallocationOption: rapid.SampledFrom(options).Draw(rt, "option"),
			}
			_, err := y.RemoveNodes(c, acct, m.pool, removal, none)
			y.check(y.StepPool(c, acct, m.pool, func(*batch.Pool, []batch.Node, time.Time) control.PoolStep {
				return control.PoolStep{AddDedicated: 1, Settle: true}
			}))
			m.bringUp()
			return err
		},
		"lose the nodes": func(rt *rapid.T) error {
			if rapid.IntRange(0, 4).Draw(rt, "rarely") == 0 {
				y.ahead.Add(int64(2 * time.Minute))
			}
			_, err := y.LoseNodes(c)
			return err
		},
	}
}

func (m *machine) addTasks(rt *rapid.T) error {
	var specs []batch.TaskSpecification
	for range rapid.IntRange(1, 6).Draw(rt, "tasks") {
		spec := taskSpec(m.taskID(rt))
		spec.RequiredSlots = rapid.IntRange(1, 3).Draw(rt, "slots")
		retries := rapid.IntRange(0, 2).Draw(rt, "retries")
		spec.Constraints = &batch.TaskConstraints{MaxTaskRetryCount: &retries}
		spec.ExitConditions = &batch.ExitConditions{ExitCodes: []batch.ExitCodeMapping{
			{Code: 9, ExitOptions: batch.ExitOptions{JobAction: batch.JobActionDisable}},
		}}
		specs = append(specs, spec)
	}
	_, err := m.y.AddTasks(ctx(m.y.t), acct, m.job(rt), specs)
	return err
}

// bind gives any tasks to any nodes; what may not be bound must be passed over.
func (m *machine) bind(rt *rapid.T) error {
	var list []control.Assignment
	seen := map[store.TaskRef]bool{}
	for range rapid.IntRange(1, 6).Draw(rt, "tasks") {
		ref := store.TaskRef{Job: m.job(rt), Task: m.taskID(rt)}
		if j, err := m.y.Job(ctx(m.y.t), acct, ref.Job); err != nil || j.PoolInfo.PoolID != m.pool {
			continue // no scheduler looks for its tasks here
		}
		if !seen[ref] {
			list = append(list, control.Assignment{TaskRef: ref, Node: m.node(rt).id})
		}
		seen[ref] = true
	}
	_, err := m.y.Assign(ctx(m.y.t), acct, decided(list, nil))
	return err
}

// talk lets one node do something with what it holds and say so, now and then
// twice.
func (m *machine) talk(rt *rapid.T) error {
	node := m.node(rt)
	now := batch.At(time.Now())
	names := make([]string, 0, len(node.held))
	for _, r := range node.report().Tasks {
		names = append(names, nameOf(r.Job, r.Task))
	}
	for _, name := range names {
		a := node.held[name]
		switch what := rapid.SampledFrom([]string{"nothing", "start", "succeed", "fail", "disable", "release"}).Draw(rt, name); {
		case a.Phase == batch.PhaseEnded || a.Phase == batch.PhaseReleased:
		case what == "start":
			a.Phase, a.Start = batch.PhaseRunning, &now
		case what == "release":
			a.Phase = batch.PhaseReleased
		case what != "nothing":
			code := map[string]int{"succeed": 0, "fail": 1, "disable": 9}[what]
			a.Phase, a.Outcome = batch.PhaseEnded, outcome(code, now)
		}
	}
	if node.boot < node.orders.Boot && rapid.Bool().Draw(rt, "boots") {
		node.boot = node.orders.Boot
	}
	report := node.report()
	for range rapid.IntRange(1, 2).Draw(rt, "times") {
		orders, err := m.y.Sync(ctx(m.y.t), node.id, node.token, report)
		if err != nil {
			return err
		}
		node.take(orders)
	}
	return nil
}

// recount compares what is kept with what is there, the queues among it.
func (m *machine) recount(rt *rapid.T) {
	err := m.y.db.View(ctx(m.y.t), func(tx *store.Tx) error {
		return admin.Faults(tx, func(f admin.Fault) error { return fmt.Errorf("%s: %s: %s", f.Kind, f.Where, f.What) })
	})
	if err != nil {
		rt.Fatal(err)
	}
	var held = map[batch.NodeID]load{}
	for _, id := range m.jobs {
		m.recountJob(rt, id, held)
	}
	for _, node := range m.nodes {
		n, err := m.y.Node(ctx(m.y.t), acct, m.pool, node.id)
		if batch.CodeOf(err) == batch.CodeNodeNotFound {
			continue
		}
		if err != nil {
			rt.Fatal(err)
		}
		got := load{n.BoundTasks, n.BoundSlots, n.RunningTasks, n.RunningSlots}
		if diff := cmp.Diff(held[n.ID], got); diff != "" {
			rt.Fatalf("node %s is counted wrongly (-tasks +node):\n%s", n.ID, diff)
		}
		delete(held, n.ID)
		if n.InContact() && n.State != n.Settled() {
			rt.Fatalf("node %s is %s and should be %s", n.ID, n.State, n.Settled())
		}
	}
	if len(held) > 0 {
		rt.Fatalf("tasks are bound to nodes that are gone: %v", held)
	}
	pool, err := m.y.Pool(ctx(m.y.t), acct, m.pool)
	if err != nil {
		rt.Fatal(err)
	}
	if n := len(m.y.nodesOf(m.pool)); n != pool.CurrentDedicatedNodes+pool.CurrentLowPriorityNodes {
		rt.Fatalf("the pool has %d nodes and counts %d and %d", n, pool.CurrentDedicatedNodes, pool.CurrentLowPriorityNodes)
	}
}

type load struct{ Bound, BoundSlots, Running, RunningSlots int }

func (m *machine) recountJob(rt *rapid.T, id batch.JobID, held map[batch.NodeID]load) {
	job, err := m.y.Job(ctx(m.y.t), acct, id)
	if batch.CodeOf(err) == batch.CodeJobNotFound {
		return
	}
	if err != nil {
		rt.Fatal(err)
	}
	page, err := m.y.Tasks(ctx(m.y.t), acct, id, control.Query{})
	if err != nil {
		rt.Fatal(err)
	}
	var want batch.TaskCounts
	var bound int64
	for i := range page.Items {
		t := &page.Items[i]
		slots := int64(t.RequiredSlots)
		switch {
		case t.State == batch.TaskActive:
			want.Active, want.ActiveSlots = want.Active+1, want.ActiveSlots+slots
		case t.State == batch.TaskRunning:
			want.Running, want.RunningSlots = want.Running+1, want.RunningSlots+slots
		case t.ExecutionInfo.Result == batch.ResultSuccess:
			want.Succeeded, want.SucceededSlots = want.Succeeded+1, want.SucceededSlots+slots
		default:
			want.Failed, want.FailedSlots = want.Failed+1, want.FailedSlots+slots
		}
		if !t.Bound {
			if t.State == batch.TaskRunning {
				rt.Fatalf("task %s runs nowhere", t.ID)
			}
			continue
		}
		bound++
		l := held[t.Node]
		l.Bound, l.BoundSlots = l.Bound+1, l.BoundSlots+t.RequiredSlots
		if t.State == batch.TaskRunning {
			l.Running, l.RunningSlots = l.Running+1, l.RunningSlots+t.RequiredSlots
		}
		held[t.Node] = l
	}
	if diff := cmp.Diff(want, job.Counts); diff != "" {
		rt.Fatalf("job %s is counted wrongly (-tasks +job):\n%s", id, diff)
	}
	if job.Bound != bound {
		rt.Fatalf("job %s has %d bound tasks and counts %d", id, bound, job.Bound)
	}
	if job.State == batch.JobDisabling && bound == 0 || job.State == batch.JobTerminating && want.Active+want.Running == 0 {
		rt.Fatalf("job %s is still %s", id, job.State)
	}
	if job.State == batch.JobCompleted && want.Active+want.Running+bound > 0 {
		rt.Fatalf("job %s is completed with %d tasks to do", id, want.Active+want.Running)
	}
}
