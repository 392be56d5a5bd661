package batchtest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/batchyard/batchyard/agent"
	"github.com/batchyard/batchyard/agent/run"
	"github.com/batchyard/batchyard/batch"
)

// robot is a light agent for clusters of many nodes: it keeps the node protocol
// and has neither folders nor start tasks. It makes one call at a time and hangs
// up when it has something to say.
type robot struct {
	machine  *Machine
	server   agent.Server
	keeper   *session
	instance string
	number   int64
	orders   batch.NodeOrders // the newest
	settings *batch.NodeSettings
	boot     int
	held     []*attempt // in the order in which they came
	removed  []int64
	ended    chan *attempt
	expires  time.Time // end of the lease, by the monotonic clock
}

// attempt is what a robot holds of a task.
type attempt struct {
	batch.TaskReport
	run *batch.TaskRun
	// runs is set while it has a process.
	runs bool
	// unwanted: the orders do not name it any more; released: it is asked back.
	unwanted, released bool
	result             run.Result
}

func (a *attempt) id() string { return fmt.Sprintf("%s/%s/%d", a.Job, a.Task, a.Attempt) }

func (a *attempt) final() bool { return a.Phase == batch.PhaseEnded || a.Phase == batch.PhaseReleased }

func newRobot(m *Machine, server agent.Server) *robot {
	return &robot{machine: m, server: server, keeper: m.keeper.open(run.Options{}), instance: rand.Text(), ended: make(chan *attempt)}
}

// callTime is how long a robot waits for an answer.
const callTime = 30 * time.Second

// refusals are the answers after which trying again is of no use.
var refusals = map[batch.Code]bool{batch.CodeAuthenticationFailed: true, batch.CodeForbidden: true, batch.CodeNodeNotFound: true}

// Run lives as an agent does; see [agent.Agent].
func (r *robot) Run(ctx context.Context) error {
	living, end := context.WithCancel(ctx)
	defer end()
	for ctx.Err() == nil {
		sent, report := r.machine.Clock.Now(), r.report()
		orders, err := r.call(living, report)
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil && report.Left:
			return agent.ErrLeft
		case err == nil:
			r.renew(sent, orders.Lease.Std())
			r.obey(living, orders)
		case refusals[batch.CodeOf(err)]:
			_ = r.keeper.Shutdown(ctx) // it fails only if nobody waits
			return agent.ErrRefused
		}
		if err != nil && !errors.Is(err, context.Canceled) { // it did not hang up itself
			pause(ctx, time.Second)
		}
	}
	return nil
}

// report is the node as it is. Until the first orders it knows nothing.
func (r *robot) report() batch.NodeReport {
	r.number++
	report := batch.NodeReport{
		Revision: r.orders.Revision, Instance: r.instance, Number: r.number, Boot: r.boot,
		Booting: r.boot < r.orders.Boot, Removed: r.removed,
	}
	if r.settings == nil {
		report.Agent, report.NoWait = &batch.AgentInfo{Version: "robot", IPAddress: "127.0.0.1"}, true
	} else {
		report.Settings = r.settings.Version
	}
	for _, a := range r.held {
		report.Tasks = append(report.Tasks, a.TaskReport)
	}
	report.Left = r.orders.Leave && len(r.held) == 0
	return report
}

// ordered is what came of a call.
type ordered struct {
	orders batch.NodeOrders
	err    error
}

// call makes one call, until something ends here or the lease does.
func (r *robot) call(ctx context.Context, report batch.NodeReport) (batch.NodeOrders, error) {
	calling, hangUp := context.WithTimeout(ctx, callTime)
	defer hangUp()
	replies := make(chan ordered, 1)
	r.machine.cluster.work.Go(func() {
		orders, err := r.server.Sync(calling, report)
		replies <- ordered{orders, err}
	})
	var lease <-chan time.Time
	if !r.expires.IsZero() {
		timer := time.NewTimer(r.expires.Sub(r.machine.Clock.Now()))
		defer timer.Stop()
		lease = timer.C
	}
	for {
		select {
		case got := <-replies:
			return got.orders, got.err
		case a := <-r.ended:
			r.settle(a)
			if !report.NoWait && !final(report) {
				hangUp() // what it said is kept, what ended is told next
			}
		case <-lease:
			r.expire()
			lease = nil
		}
	}
}

// final tells whether a report is answered at once.
func final(report batch.NodeReport) bool {
	return report.Left || len(report.Removed) > 0 ||
		slices.ContainsFunc(report.Tasks, func(t batch.TaskReport) bool { return t.Phase == batch.PhaseEnded || t.Phase == batch.PhaseReleased })
}

// renew takes a lease, which counts from when the call was sent.
func (r *robot) renew(sent time.Time, lease time.Duration) {
	if until := sent.Add(lease); r.expires.IsZero() || until.After(r.expires) {
		r.expires = until
	}
	if left := r.expires.Sub(r.machine.Clock.Now()); left > 0 {
		_ = r.keeper.Lease(left) // it always takes it
	}
}

// expire gives everything back; the keeper kills what runs.
func (r *robot) expire() {
	for _, a := range r.held {
		if !a.final() && !a.runs {
			a.Phase = batch.PhaseReleased
		}
		a.released = a.released || a.runs
	}
	r.expires = time.Time{}
}

// obey makes the node what the orders say.
func (r *robot) obey(ctx context.Context, orders batch.NodeOrders) {
	if orders.Settings != nil {
		r.settings = orders.Settings
	}
	r.orders, r.removed = orders, nil
	for _, removal := range append(orders.Ahead, orders.Removals...) {
		r.removed = append(r.removed, removal.ID)
	}
	wanted := map[string]*batch.TaskOrder{}
	for i := range orders.Tasks {
		o := &orders.Tasks[i]
		wanted[fmt.Sprintf("%s/%s/%d", o.Job, o.Task, o.Attempt)] = o
	}
	r.held = slices.DeleteFunc(r.held, func(a *attempt) bool {
		o := wanted[a.id()]
		delete(wanted, a.id())
		return r.compare(ctx, a, o)
	})
	for i := range orders.Tasks {
		if o := &orders.Tasks[i]; wanted[fmt.Sprintf("%s/%s/%d", o.Job, o.Task, o.Attempt)] == o && o.Run != nil {
			r.accept(ctx, o)
		}
	}
	r.endOthers(ctx)
	if r.boot < orders.Boot { // nothing to do but to end what runs
		for _, a := range r.held {
			r.giveBack(ctx, a)
		}
		if !slices.ContainsFunc(r.held, func(a *attempt) bool { return a.runs }) {
			r.boot = orders.Boot
		}
	}
	r.fill(ctx)
}

// compare settles an attempt with what the orders say of it and tells whether
// it is forgotten.
func (r *robot) compare(ctx context.Context, a *attempt, o *batch.TaskOrder) bool {
	switch {
	case o == nil && !a.runs:
		r.keeper.Forget(a.id())
		return true
	case o == nil:
		a.unwanted = true
		r.kill(ctx, a)
	case a.final():
	case !a.runs && (o.Release != "" || r.orders.Leave), o.Release == batch.ReleaseAlways, r.orders.Leave:
		r.giveBack(ctx, a)
	}
	return false
}

func (r *robot) giveBack(ctx context.Context, a *attempt) {
	switch {
	case a.final():
	case a.runs:
		a.released = true
		r.kill(ctx, a)
	default:
		a.Phase = batch.PhaseReleased
	}
}

func (r *robot) kill(ctx context.Context, a *attempt) {
	_ = r.keeper.Process(run.Spec{ID: a.id()}).Kill(ctx, 0) // unknown: it has ended
}

// accept takes a new attempt; one whose process an earlier agent started goes
// on.
func (r *robot) accept(ctx context.Context, o *batch.TaskOrder) {
	a := &attempt{TaskReport: batch.TaskReport{Job: o.Job, Task: o.Task, Attempt: o.Attempt, Phase: batch.PhaseHeld}, run: o.Run}
	r.held = append(r.held, a)
	held := r.keeper.Held()
	at := slices.IndexFunc(held, func(h run.Held) bool { return h.ID == a.id() })
	switch {
	case at >= 0:
		r.begun(ctx, a, held[at].Started.At)
	case o.Started:
		a.Phase = batch.PhaseReleased
	}
	r.compare(ctx, a, o)
}

// endOthers kills what an earlier agent started and nobody wants.
func (r *robot) endOthers(ctx context.Context) {
	for _, h := range r.keeper.Held() {
		if !slices.ContainsFunc(r.held, func(a *attempt) bool { return a.id() == h.ID }) {
			_ = r.keeper.Process(run.Spec{ID: h.ID}).Kill(ctx, 0) // it is known
			r.keeper.Forget(h.ID)
		}
	}
}

// fill begins attempts in their order while slots are free.
func (r *robot) fill(ctx context.Context) {
	free := r.settings.TaskSlots
	for _, a := range r.held {
		if a.runs {
			free -= a.run.RequiredSlots
		}
	}
	for _, a := range r.held {
		if a.Phase != batch.PhaseHeld || r.orders.Leave || r.boot < r.orders.Boot {
			continue
		}
		if a.run.RequiredSlots > free {
			return
		}
		args, err := run.SplitCommandLine(a.run.CommandLine)
		if err != nil {
			return
		}
		started, err := r.keeper.Process(run.Spec{ID: a.id(), Args: args}).Start(ctx)
		if err != nil {
			a.Phase = batch.PhaseReleased // there is no lease
			continue
		}
		r.begun(ctx, a, started.At)
		free -= a.run.RequiredSlots
	}
}

// begun follows a process.
func (r *robot) begun(ctx context.Context, a *attempt, at time.Time) {
	start := batch.At(at)
	a.Phase, a.Start, a.runs = batch.PhaseRunning, &start, true
	process := r.keeper.Process(run.Spec{ID: a.id()})
	r.machine.cluster.work.Go(func() {
		result, err := process.Wait(ctx)
		if err != nil {
			return // the robot ends
		}
		a.result = result
		select {
		case r.ended <- a:
		case <-ctx.Done():
		}
	})
}

// settle notes how an attempt ended.
func (r *robot) settle(a *attempt) {
	a.runs = false
	switch {
	case a.result.Reason != run.Exited || a.released:
		a.Phase = batch.PhaseReleased
	default:
		a.Phase, a.Outcome = batch.PhaseEnded, &batch.Outcome{End: batch.At(a.result.Ended), ExitCode: &a.result.ExitCode}
		if a.result.ExitCode != 0 {
			a.Outcome.Failure = &batch.FailureInfo{Category: batch.UserError, Code: batch.FailureExitCode, Message: "The script says so"}
		}
	}
	if a.unwanted {
		r.held = slices.DeleteFunc(r.held, func(other *attempt) bool { return other == a })
		r.keeper.Forget(a.id())
	}
}
