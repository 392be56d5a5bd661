package control_test

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/control"
)

// robot is an agent that lives by itself in a bubble: it boots, runs what it is
// told to for as long as work says, and reports.
type robot struct {
	*script
	slots int
	// work says how long a task runs and with what it exits.
	work func(batch.TaskOrder) (time.Duration, int)

	mu      sync.Mutex
	cut     bool           // guarded by mu: the network is gone
	runs    map[string]int // guarded by mu: how often each task has begun
	runners map[string]*runner
	waiting []string // in the order in which they came
	ended   chan struct{}
}

// runner is one attempt that runs.
type runner struct {
	end  time.Time
	code int
}

// robots runs an agent for each node of the pool until the test ends.
func (y *yard) robots(slots int, work func(batch.TaskOrder) (time.Duration, int)) map[batch.NodeID]*robot {
	y.t.Helper()
	all := map[batch.NodeID]*robot{}
	for _, id := range y.nodesOf("pool") {
		all[id] = y.robot(id, slots, work)
	}
	return all
}

// nodesOf names the nodes of a pool.
func (y *yard) nodesOf(pool batch.PoolID) []batch.NodeID {
	y.t.Helper()
	page, err := y.Nodes(ctx(y.t), acct, pool, control.Query{})
	y.check(err)
	var ids []batch.NodeID
	for _, n := range page.Items {
		ids = append(ids, n.ID)
	}
	return ids
}

// robot starts one agent.
func (y *yard) robot(id batch.NodeID, slots int, work func(batch.TaskOrder) (time.Duration, int)) *robot {
	y.t.Helper()
	r := &robot{script: y.script(id), slots: slots, work: work, runs: map[string]int{}, runners: map[string]*runner{}, ended: make(chan struct{})}
	living, die := context.WithCancel(context.Background())
	y.t.Cleanup(func() { die(); <-r.ended })
	go func() {
		defer close(r.ended)
		r.live(living)
	}()
	return r
}

// sever cuts the network, or mends it.
func (r *robot) sever(cut bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cut = cut
}

func (r *robot) severed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.cut
}

// live makes calls until the node has left or is refused. A call is given up
// when something happens on the node; what it had to say, the next one says.
func (r *robot) live(ctx context.Context) {
	lease := time.Now().Add(time.Hour)
	for ctx.Err() == nil {
		r.progress()
		if time.Now().After(lease) {
			clear(r.runners) // what runs is killed
			clear(r.held)
			r.waiting = nil
		}
		if r.severed() {
			wait(ctx, time.Second)
			continue
		}
		sent, report := time.Now(), r.report()
		report.NoWait = false
		calling, cancel := context.WithDeadline(ctx, r.next())
		orders, err := r.y.current.Load().Sync(calling, r.id, r.token, report)
		cancel()
		switch {
		case err == nil && report.Left:
			return
		case err == nil:
			lease = sent.Add(orders.Lease.Std())
			r.obey(orders)
		case batch.CodeOf(err) != "":
			return
		case calling.Err() == nil:
			wait(ctx, 100*time.Millisecond) // the server is away
		}
	}
}

func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// obey compares orders with what is held, as an agent does.
func (r *robot) obey(orders batch.NodeOrders) {
	before := map[string]int{}
	for name, a := range r.held {
		before[name] = a.Attempt
	}
	r.take(orders)
	for name := range r.runners {
		if a := r.held[name]; a == nil || a.Attempt != before[name] {
			delete(r.runners, name)
		}
	}
	r.waiting = slices.DeleteFunc(r.waiting, func(name string) bool { return r.held[name] == nil })
	for _, o := range orders.Tasks {
		name := nameOf(o.Job, o.Task)
		a := r.held[name]
		running := r.runners[name] != nil
		switch {
		case a.Phase == batch.PhaseEnded || a.Phase == batch.PhaseReleased:
		case o.Started && !running, o.Release == batch.ReleaseAlways, o.Release == batch.ReleaseUnstarted && !running:
			delete(r.runners, name)
			a.Phase = batch.PhaseReleased
		case !running && !slices.Contains(r.waiting, name):
			r.waiting = append(r.waiting, name)
		}
	}
	r.waiting = slices.DeleteFunc(r.waiting, func(name string) bool { return r.held[name].Phase != batch.PhaseHeld })
	if r.boot < orders.Boot {
		clear(r.runners)
		for _, a := range r.held {
			if a.Phase != batch.PhaseEnded {
				a.Phase = batch.PhaseReleased
			}
		}
		r.waiting, r.boot = nil, orders.Boot
	}
	r.fill(orders)
}

// fill starts what waits while slots are free.
func (r *robot) fill(orders batch.NodeOrders) {
	for len(r.waiting) > 0 && len(r.runners) < r.slots && !orders.Leave {
		name := r.waiting[0]
		r.waiting = r.waiting[1:]
		a, now := r.held[name], batch.At(time.Now())
		length, code := r.work(batch.TaskOrder{Job: a.Job, Task: a.Task, Attempt: a.Attempt})
		a.Phase, a.Start = batch.PhaseRunning, &now
		r.runners[name] = &runner{end: now.Add(length), code: code}
		r.mu.Lock()
		r.runs[name]++
		r.mu.Unlock()
	}
}

// progress ends what is over by now.
func (r *robot) progress() {
	for name, run := range r.runners {
		if run.end.After(time.Now()) {
			continue
		}
		a := r.held[name]
		a.Phase, a.Outcome = batch.PhaseEnded, outcome(run.code, batch.At(run.end))
		delete(r.runners, name)
	}
	r.fill(r.orders)
}

// next is when something happens on the node by itself.
func (r *robot) next() time.Time {
	next := time.Now().Add(time.Hour)
	for _, run := range r.runners {
		if run.end.Before(next) {
			next = run.end
		}
	}
	return next
}
