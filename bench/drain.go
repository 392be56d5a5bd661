package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/batchyard/batchyard/batch"
)

// drainRun is a job whose tasks are to be run.
type drainRun struct {
	pool  batch.PoolID
	job   batch.JobID
	tasks int
	line  string
	// queued adds the tasks while the job is disabled, so that adding them is
	// not part of what is measured.
	queued bool
}

// drainResult is how fast that went, and what it cost.
type drainResult struct {
	rate float64
	used usage
	work work
}

// drain runs a job from its first task's submission, or from its being enabled,
// until its last task has completed, durably and visibly for its owner.
func (s *server) drain(ctx context.Context, d drainRun) (drainResult, error) {
	if err := s.AddJob(ctx, d.job, d.pool); err != nil {
		return drainResult{}, err
	}
	tasks := load{job: d.job, tasks: d.tasks, size: 100, connections: 4, line: d.line}
	if d.queued {
		if err := s.disable(ctx, d.job); err != nil {
			return drainResult{}, err
		}
		if err := s.addTasks(ctx, tasks); err != nil {
			return drainResult{}, err
		}
	}
	before, err := s.used()
	if err != nil {
		return drainResult{}, err
	}
	done, err := s.worked(ctx)
	if err != nil {
		return drainResult{}, err
	}
	begun := time.Now()
	if d.queued {
		err = s.enable(ctx, d.job)
	} else {
		err = s.addTasks(ctx, tasks)
	}
	if err != nil {
		return drainResult{}, err
	}
	if err := s.drained(ctx, d.job, d.tasks); err != nil {
		return drainResult{}, err
	}
	took := time.Since(begun)
	after, err := s.used()
	if err != nil {
		return drainResult{}, err
	}
	all, err := s.worked(ctx)
	if err != nil {
		return drainResult{}, err
	}
	return drainResult{float64(d.tasks) / took.Seconds(), after.minus(before), all.minus(done)}, s.removeJob(ctx, d.job)
}

// besides runs while another load of that many tasks a second, in a job of lower
// priority of the same pool, is submitted. It tells how many a second were.
func (s *server) besides(ctx context.Context, pool batch.PoolID, job batch.JobID, rate float64, run func() error) (float64, error) {
	_, err := s.Call(ctx, http.MethodPost, "/jobs", nil, map[string]any{
		"id": job, "priority": -100, "poolInfo": map[string]any{"poolId": pool},
	}, nil)
	if err != nil {
		return 0, err
	}
	loading, stop := context.WithCancel(ctx)
	defer stop()
	var added int
	counted := make(chan int, 64)
	counting := make(chan struct{})
	go func() {
		defer close(counting)
		for n := range counted {
			added += n
		}
	}()
	loaded := make(chan error, 1)
	begun := time.Now()
	go func() {
		loaded <- s.addTasks(loading, load{
			job: job, tasks: 100_000_000, size: 100, connections: 4, line: "/bin/true", rate: rate,
			acknowledged: func(_, count int) { counted <- count },
		})
	}()
	err = run()
	took := time.Since(begun)
	stop()
	if stopped := <-loaded; !errors.Is(stopped, context.Canceled) {
		err = errors.Join(err, stopped)
	}
	close(counted)
	<-counting
	return float64(added) / took.Seconds(), errors.Join(err, s.removeJob(ctx, job))
}

// drains are the rounds of the rows about running tasks, those of one round
// taken in turn because the machine changes from one minute to the next.
type drains struct {
	xargs, spawned, noops []spawned
	plain, static, busy   []drainResult
	submitted             []float64
}

// measureDraining runs many tasks that do nothing on one node of two slots.
func (b *bench) measureDraining(ctx context.Context) (err error) {
	s, err := b.startServer(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	if err := s.pool(ctx, "bench", 1, 2); err != nil {
		return err
	}
	if _, err := s.drain(ctx, drainRun{pool: "bench", job: "warm", tasks: min(200, b.tasks), line: "/bin/true"}); err != nil {
		return err
	}
	var d drains
	for round := range b.rounds {
		if err := b.drainRound(ctx, s, &d, round); err != nil {
			return err
		}
	}
	return errors.Join(b.addPlain(ctx, s, d), b.addStatic(ctx, s, d), b.addBusy(ctx, s, d))
}

func (b *bench) drainRound(ctx context.Context, s *server, d *drains, round int) error {
	if b.wants("1") || b.wants("4") || b.wants("15") {
		peer, err := runXargs(ctx, "/bin/true", b.tasks)
		if err != nil {
			return err
		}
		raw, err := spawn(ctx, "/bin/true", max(1, b.tasks/4), true)
		if err != nil {
			return err
		}
		ours, err := s.drain(ctx, b.drainOf(fmt.Sprintf("true-%d", round), "/bin/true"))
		if err != nil {
			return err
		}
		d.xargs, d.spawned, d.plain = append(d.xargs, peer), append(d.spawned, raw), append(d.plain, ours)
	}
	if b.wants("15") {
		ours, submitted, err := b.drainBusy(ctx, s, round)
		if err != nil {
			return err
		}
		d.busy, d.submitted = append(d.busy, ours), append(d.submitted, submitted)
	}
	if b.wants("2") {
		raw, err := spawn(ctx, s.program, max(1, b.tasks/4), true)
		if err != nil {
			return err
		}
		ours, err := s.drain(ctx, b.drainOf(fmt.Sprintf("static-%d", round), s.program))
		if err != nil {
			return err
		}
		d.noops, d.static = append(d.noops, raw), append(d.static, ours)
	}
	return nil
}

func (b *bench) drainOf(job, line string) drainRun {
	return drainRun{pool: "bench", job: batch.JobID(job), tasks: b.tasks, line: line}
}

// busyRate is how many tasks a second are submitted in row 15.
const busyRate = 5000

func (b *bench) drainBusy(ctx context.Context, s *server, round int) (ours drainResult, submitted float64, err error) {
	submitted, err = s.besides(ctx, "bench", batch.JobID(fmt.Sprintf("more-%d", round)), busyRate, func() (err error) {
		ours, err = s.drain(ctx, b.drainOf(fmt.Sprintf("busy-%d", round), "/bin/true"))
		return err
	})
	return ours, submitted, err
}

// addPlain adds rows 1 and 4.
func (b *bench) addPlain(ctx context.Context, s *server, d drains) error {
	if len(d.plain) == 0 {
		return nil
	}
	ours, xargs := ratesOf(d.plain), spawnRates(d.xargs)
	rate, ratio := median(ours), median(ratios(ours, xargs))
	last := d.plain[len(d.plain)-1]
	one := figure{
		row: "1", what: "no-op tasks end to end", goal: "≥ 1.0 / 1.15 × xargs",
		value:   fmt.Sprintf("%.0f/s, %.2f × `xargs -P2`", rate, ratio),
		verdict: atLeast(ratio, 1, 1.15),
		cpu:     fmt.Sprintf("%.0f µs", median(d.costs(b.tasks))),
		how: fmt.Sprintf("%d × `/bin/true`, one node of two slots, submission included; %s; the last round: %s; %s",
			b.tasks, spread("%.0f", ours), last.used.split(b.tasks), last.work.split(b.tasks)),
	}
	if b.wants("1") {
		b.add(one)
		b.add(figure{
			row: "1", what: "the same by `xargs -P2`", value: fmt.Sprintf("%.0f/s", median(xargs)),
			cpu: fmt.Sprintf("%.0f µs", median(spawnCosts(d.xargs))), how: fmt.Sprintf("in turn with ours; processors idle %.0f µs a task; %s", median(spawnIdle(d.xargs)), spread("%.0f", xargs)),
		})
	}
	if b.wants("1") {
		b.addIdle(d)
	}
	var beyond, beyondXargs, shares []float64
	for i, cost := range d.costs(b.tasks) {
		beyond = append(beyond, cost-d.spawned[i].cpu)
		shares = append(shares, (cost-d.spawned[i].cpu)/d.spawned[i].cpu)
		beyondXargs = append(beyondXargs, cost-d.xargs[i].cpu)
	}
	cost, share := median(beyond), median(shares)
	four := figure{
		row: "4", what: "service beyond the spawn, server and agent", goal: "≤ 0.45 / 0.25 of the raw spawn's",
		value: fmt.Sprintf("%.2f, %.0f µs a task", share, cost), verdict: atMost(share, 0.45, 0.25), cpu: fmt.Sprintf("%.0f µs", cost),
		how: fmt.Sprintf("row 1 less a raw spawn with directories and files in turn (%.0f µs); less `xargs` it is %.0f µs; %s",
			median(spawnCosts(d.spawned)), median(beyondXargs), spread("%.0f", beyond)),
	}
	if b.wants("4") {
		b.add(four)
	}
	one.verdict = worst(one.verdict, four.verdict)
	return b.explain(one, func() error {
		return s.profiled(ctx, b.profiles, "row-1", func() error {
			_, err := s.drain(ctx, b.drainOf("true-profile", "/bin/true"))
			return err
		})
	})
}

// costs are the processor times of all parts of the service and of the tasks.
func (d drains) costs(tasks int) []float64 {
	var all []float64
	for _, r := range d.plain {
		all = append(all, each(r.used.total(), tasks))
	}
	return all
}

// addStatic adds row 2.
func (b *bench) addStatic(ctx context.Context, s *server, d drains) error {
	if len(d.static) == 0 {
		return nil
	}
	ours := ratesOf(d.static)
	rate, last := median(ours), d.static[len(d.static)-1]
	ratio := median(ratios(ours, spawnRates(d.noops)))
	f := figure{
		row: "2", what: "static no-op end to end", goal: "≥ 0.4 / 0.5 × the raw spawn in folders",
		value: fmt.Sprintf("%.0f/s, %.2f × raw", rate, ratio), verdict: atLeast(ratio, 0.4, 0.5),
		cpu: fmt.Sprintf("%.0f µs", each(last.used.total(), b.tasks)),
		how: fmt.Sprintf("%d tasks as in row 1; raw spawn with directories in turn %.0f/s, %.0f µs; %s; the last round: %s; %s",
			b.tasks, median(spawnRates(d.noops)), median(spawnCosts(d.noops)), spread("%.0f", ours), last.used.split(b.tasks), last.work.split(b.tasks)),
	}
	b.add(f)
	return b.explain(f, func() error {
		return s.profiled(ctx, b.profiles, "row-2", func() error {
			_, err := s.drain(ctx, b.drainOf("static-profile", s.program))
			return err
		})
	})
}

// addBusy adds row 15.
func (b *bench) addBusy(ctx context.Context, s *server, d drains) error {
	if len(d.busy) == 0 {
		return nil
	}
	ours := ratesOf(d.busy)
	ratio, last := median(ratios(ours, ratesOf(d.plain))), d.busy[len(d.busy)-1]
	submitted := median(d.submitted)
	verdict := atLeast(ratio, 0.70, 0.85)
	if submitted < 0.95*busyRate {
		verdict = missed // what is drained is not disturbed as it should be
	}
	f := figure{
		row: "15", what: fmt.Sprintf("row 1 while %d tasks a second are submitted", busyRate), goal: "≥ 70 % / 85 % of row 1",
		value: fmt.Sprintf("%.0f %% (%.0f/s)", ratio*100, median(ours)), verdict: verdict,
		cpu: fmt.Sprintf("%.0f µs", each(last.used.total(), b.tasks)),
		how: fmt.Sprintf("in turn with row 1; really submitted %.0f a second, 100 a call, to a job of lower priority of the same pool; %s; the last round: %s; %s",
			submitted, spread("%.0f", ours), last.used.split(b.tasks), last.work.split(b.tasks)),
	}
	b.add(f)
	return b.explain(f, func() error {
		return s.profiled(ctx, b.profiles, "row-15", func() error {
			_, _, err := b.drainBusy(ctx, s, b.rounds)
			return err
		})
	})
}

// addIdle tells how long the processors had nothing to do for each task.
func (b *bench) addIdle(d drains) {
	var ours []float64
	for _, r := range d.plain {
		ours = append(ours, each(r.work.idle, b.tasks))
	}
	idle := median(ours)
	b.add(figure{
		row: "1", what: "processors idle during row 1", goal: "≤ 100 µs / 75 µs a task",
		value: fmt.Sprintf("%.0f µs a task", idle), verdict: atMost(idle, 100, 75),
		how: fmt.Sprintf("of all processors together; beside `xargs` %.0f µs; %s", median(spawnIdle(d.xargs)), spread("%.0f", ours)),
	})
}

func ratesOf(all []drainResult) []float64 {
	var rates []float64
	for _, r := range all {
		rates = append(rates, r.rate)
	}
	return rates
}

func spawnRates(all []spawned) []float64 {
	var rates []float64
	for _, r := range all {
		rates = append(rates, r.rate)
	}
	return rates
}

func spawnIdle(all []spawned) []float64 {
	var idle []float64
	for _, r := range all {
		idle = append(idle, r.idle)
	}
	return idle
}

func spawnCosts(all []spawned) []float64 {
	var costs []float64
	for _, r := range all {
		costs = append(costs, r.cpu)
	}
	return costs
}
