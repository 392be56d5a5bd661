package scheduler

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/control"
	"github.com/batchyard/batchyard/store"
)

const (
	// safety is how often a pool is looked at although nobody said anything.
	safety = 30 * time.Second
	// retryDelay is the pause after a pass that failed.
	retryDelay = time.Second
)

// Options say what a Scheduler stands on.
type Options struct {
	DB      *store.DB
	Control *control.Service
	Log     *slog.Logger
	// Now reads the clock by which tasks are bound ahead of time; time.Now if
	// nil.
	Now func() time.Time
	// Metrics is where counters are registered; nowhere if nil.
	Metrics prometheus.Registerer
}

// Scheduler binds tasks to nodes.
type Scheduler struct {
	db      *store.DB
	control *control.Service
	log     *slog.Logger
	now     func() time.Time
	passes  prometheus.Histogram
}

// New makes a Scheduler; Run starts it.
func New(o Options) *Scheduler {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now //nolint:forbidigo // the loop is what reads the clock; Plan is told the time
	}
	s := &Scheduler{
		db: o.DB, control: o.Control, log: o.Log, now: o.Now,
		passes: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "batchyard_scheduler_pass_seconds", Help: "How long passes over a pool took, writing included.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .1, .5, 2},
		}),
	}
	if o.Metrics != nil {
		o.Metrics.MustRegister(s.passes)
	}
	return s
}

// Run schedules until ctx ends: it keeps one worker for each pool.
func (s *Scheduler) Run(ctx context.Context) error {
	watch := s.db.Watch(control.TopicPools)
	defer watch.Close()
	workers := make(map[store.PoolRef]context.CancelFunc)
	var running sync.WaitGroup
	defer running.Wait()
	defer func() {
		for _, stop := range workers {
			stop()
		}
	}()
	for {
		pools, err := s.pools(ctx)
		switch {
		case ctx.Err() != nil || errors.Is(err, store.ErrClosed):
			return nil
		case err != nil:
			s.log.Error("cannot list pools", "err", err)
		default:
			s.employ(ctx, workers, pools, &running)
		}
		if !pause(ctx, watch, safety) {
			return nil
		}
	}
}

func (s *Scheduler) pools(ctx context.Context) ([]store.PoolRef, error) {
	var pools []store.PoolRef
	err := s.db.View(ctx, func(tx *store.Tx) (err error) {
		pools, err = tx.ActivePools()
		return err
	})
	return pools, err
}

// employ starts workers for new pools and stops those of pools that are gone.
func (s *Scheduler) employ(ctx context.Context, workers map[store.PoolRef]context.CancelFunc, pools []store.PoolRef, running *sync.WaitGroup) {
	wanted := make(map[store.PoolRef]bool, len(pools))
	for _, pool := range pools {
		wanted[pool] = true
		if workers[pool] != nil {
			continue
		}
		working, stop := context.WithCancel(ctx)
		workers[pool] = stop
		running.Go(func() { s.work(working, pool) })
	}
	for pool, stop := range workers {
		if !wanted[pool] {
			stop()
			delete(workers, pool)
		}
	}
}

// work schedules one pool.
func (s *Scheduler) work(ctx context.Context, pool store.PoolRef) {
	watch := s.db.Watch(control.ReadyTopic(pool.Account, pool.Pool))
	defer watch.Close()
	var known policy
	for {
		var again bool
		err := batch.Guard(func() (err error) { again, err = s.pass(ctx, pool, &known); return err })
		wait := safety
		switch {
		case ctx.Err() != nil || errors.Is(err, store.ErrClosed):
			return
		case err != nil:
			s.log.Error("scheduling failed", "account", pool.Account, "pool", pool.Pool, "err", err)
			wait = retryDelay
		case again:
			continue
		}
		if !pause(ctx, watch, wait) {
			return
		}
	}
}

// pause waits for a change, or for long enough; false when ctx is done.
func pause(ctx context.Context, watch *store.Watch, longest time.Duration) bool {
	timer := time.NewTimer(longest) //nolint:forbidigo // the loop is what waits
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-watch.C:
	case <-timer.C:
	}
	return true
}

// pass reads, plans and writes once, in one transaction: what was planned is
// still so when it is written, and nobody else's commit comes between. It tells
// whether another pass may find more to do at once.
func (s *Scheduler) pass(ctx context.Context, pool store.PoolRef, known *policy) (again bool, err error) {
	began := s.now()
	more, planned := false, 0
	bound, err := s.control.Assign(ctx, pool.Account, func(tx *store.Tx) (control.Decision, error) {
		more, planned = false, 0
		w, err := read(tx, pool, known, began)
		if err != nil {
			return control.Decision{}, err
		}
		d := Plan(w.Snapshot, began)
		if len(d.Assign)+len(d.Recall) == 0 {
			return d, nil
		}
		more, planned = w.more, len(d.Assign)
		return d, nil
	})
	if err != nil {
		return false, err
	}
	s.passes.Observe(s.now().Sub(began).Seconds())
	return more || bound < planned, nil
}
