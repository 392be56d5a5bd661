package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/batchyard/batchyard/batch"
)

// submission is one way to add tasks.
type submission struct {
	row               string
	what, goal        string
	tasks             int
	size, connections int
	hold, aim         float64
}

// measureSubmission adds tasks of about 500 bytes to jobs whose pool has no
// node.
func (b *bench) measureSubmission(ctx context.Context) (err error) {
	s, err := b.startServer(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	if err := s.emptyPool(ctx, "empty"); err != nil {
		return err
	}
	for _, how := range []submission{
		{"5", "durable submission, 100 a call", "≥ 40,000/s / 60,000/s", b.submit, 100, 4, 40_000, 60_000},
		{"6", "durable submission, 1 a call", "≥ 8,000/s / 12,000/s", b.submit / 5, 1, 32, 8000, 12_000},
	} {
		if !b.wants(how.row) {
			continue
		}
		if err := b.submitRow(ctx, s, how); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) submitRow(ctx context.Context, s *server, how submission) error {
	var rates, cpu []float64
	round := func(n int) error {
		before, err := s.used()
		if err != nil {
			return err
		}
		rate, err := s.submit(ctx, batch.JobID(fmt.Sprintf("row-%s-%d", how.row, n)), how)
		if err != nil {
			return err
		}
		after, err := s.used()
		rates, cpu = append(rates, rate), append(cpu, each(after.minus(before).server, how.tasks))
		return err
	}
	for n := range b.rounds {
		if err := round(n); err != nil {
			return err
		}
	}
	rate := median(rates)
	f := figure{
		row: how.row, what: how.what, goal: how.goal, value: fmt.Sprintf("%.0f/s", rate),
		verdict: atLeast(rate, how.hold, how.aim), cpu: fmt.Sprintf("server %.0f µs", median(cpu)),
		how: fmt.Sprintf("%d tasks of about 500 bytes, %d connections; %s", how.tasks, how.connections, spread("%.0f", rates)),
	}
	b.add(f)
	return b.explain(f, func() error {
		return s.profiled(ctx, b.profiles, "row-"+how.row, func() error { return round(b.rounds) })
	})
}

// submit adds the tasks and removes them again; only the adding counts.
func (s *server) submit(ctx context.Context, job batch.JobID, how submission) (float64, error) {
	if err := s.AddJob(ctx, job, "empty"); err != nil {
		return 0, err
	}
	begun := time.Now()
	err := s.addTasks(ctx, load{job: job, tasks: how.tasks, size: how.size, connections: how.connections, line: longLine()})
	if err != nil {
		return 0, err
	}
	rate := float64(how.tasks) / time.Since(begun).Seconds()
	return rate, s.removeJob(ctx, job)
}
