package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/client"
	"golang.org/x/sync/errgroup"
)

// crowd is what waits in a pool while tasks of it are run: they are of so many
// jobs, and behind them wait others.
type crowd struct{ jobs, behind int }

// passes are those that the scheduler made to have the tasks of a crowd run.
type passes struct {
	count, seconds, tasks float64
	used                  usage
}

// measureQueues has tasks of one job, of a hundred and of ten thousand run, and
// those of one job with a million behind them. A pass shall cost the same.
func (b *bench) measureQueues(ctx context.Context) error {
	crowds := []crowd{{jobs: 1}, {jobs: 100}, {jobs: 10_000}, {jobs: 1, behind: b.million}}
	costs := make([][]float64, len(crowds))
	var last usage
	for range b.rounds {
		for i, c := range crowds {
			p, err := b.drainCrowd(ctx, c)
			if err != nil {
				return err
			}
			costs[i], last = append(costs[i], p.seconds*1e6/p.tasks), p.used
		}
	}
	one := median(costs[0])
	most := 0.0
	var parts []string
	for i, c := range crowds {
		cost := median(costs[i])
		most = max(most, cost/one)
		parts = append(parts, fmt.Sprintf("%d jobs, %d tasks behind: %.0f µs (%s)", c.jobs, c.behind, cost, spread("%.0f", costs[i])))
	}
	b.add(figure{
		row: "18", what: "passes of the scheduler with 10,000 jobs of one pool", goal: "≤ 2 × / 1.25 × one job's",
		value: fmt.Sprintf("%.2f ×", most), verdict: atMost(most, 2, 1.25),
		cpu: fmt.Sprintf("server %.0f µs", each(last.server, 2*b.tasks)),
		how: fmt.Sprintf("time in passes, commits included, for each task bound; %d tasks wait already, 4 nodes of 4 slots that start nothing; %s", 2*b.tasks, strings.Join(parts, "; ")),
	})
	return nil
}

// drainCrowd makes a crowd in a pool without nodes, then gives it nodes.
func (b *bench) drainCrowd(ctx context.Context, c crowd) (p passes, err error) {
	const pool, nodes, slots = "crowd", 4, 4
	self, err := os.Executable()
	if err != nil {
		return p, err
	}
	s, err := newServer(ctx, self, b.data)
	if err != nil {
		return p, err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	if err := errors.Join(s.AddPool(ctx, poolBody(pool, 0, slots)), s.gather(ctx, pool, c, 2*b.tasks)); err != nil {
		return p, err
	}
	before, err := s.used()
	if err != nil {
		return p, err
	}
	begun, err := s.passes(ctx)
	if err != nil {
		return p, err
	}
	if _, err := s.Call(ctx, http.MethodPost, "/pools/"+pool+"/resize", nil, map[string]any{"targetDedicatedNodes": nodes}, nil); err != nil {
		return p, err
	}
	if err := s.ran(ctx, pool, 2*b.tasks); err != nil {
		return p, err
	}
	if p, err = s.passes(ctx); err != nil {
		return p, err
	}
	after, err := s.used()
	p = passes{p.count - begun.count, p.seconds - begun.seconds, p.tasks - begun.tasks, after.minus(before)}
	return p, err
}

// gather adds the jobs of a crowd and their tasks, one task of each job after
// the other as far as calls allow, and what waits behind them.
func (s *server) gather(ctx context.Context, pool batch.PoolID, c crowd, tasks int) error {
	each := tasks / c.jobs
	group, adding := errgroup.WithContext(ctx)
	group.SetLimit(8)
	for i := range c.jobs {
		group.Go(func() error {
			job := batch.JobID(fmt.Sprintf("job-%05d", i))
			return errors.Join(s.AddJob(adding, job, pool),
				s.addTasks(adding, load{job: job, tasks: each, size: min(100, each), connections: 1, line: "/bin/true"}))
		})
	}
	if err := group.Wait(); err != nil || c.behind == 0 {
		return err
	}
	_, err := s.Call(ctx, http.MethodPost, "/jobs", nil, map[string]any{
		"id": "behind", "priority": -100, "poolInfo": map[string]any{"poolId": pool},
	}, nil)
	if err != nil {
		return err
	}
	return s.addTasks(ctx, load{job: "behind", tasks: c.behind, size: 100, connections: 4, line: "/bin/true"})
}

// ran waits until the nodes of a pool have run so many tasks.
func (s *server) ran(ctx context.Context, pool batch.PoolID, tasks int) error {
	limited, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	return client.WaitFor(limited, func(ctx context.Context) (bool, error) {
		nodes, err := s.Nodes(ctx, pool)
		n := 0
		for _, node := range nodes {
			n += node.TotalTasksRun
		}
		return n >= tasks, err
	})
}

// passes are those that the scheduler has made so far.
func (s *server) passes(ctx context.Context) (p passes, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.debug+"/metrics", nil)
	if err != nil {
		return p, err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return p, err
	}
	defer answer.Body.Close()
	lines := bufio.NewScanner(answer.Body)
	found := 0
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), " ")
		to := map[string]*float64{
			"batchyard_scheduler_pass_seconds_sum": &p.seconds, "batchyard_scheduler_pass_seconds_count": &p.count,
			"batchyard_control_tasks_assigned_total": &p.tasks,
		}[name]
		if to == nil {
			continue
		}
		if *to, err = strconv.ParseFloat(value, 64); err != nil {
			return p, err
		}
		found++
	}
	if found < 3 {
		return p, errors.Join(errors.New("the server does not count passes"), lines.Err())
	}
	return p, nil
}
