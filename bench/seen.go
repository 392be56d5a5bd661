package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/batchyard/batchyard/batch"
)

const (
	// probeRate is how many tasks a second tell when they ended.
	probeRate = 50
	// probeOften is how often a client asks which of them have completed.
	probeOften = 3 * time.Millisecond
)

// measureSeen tells how long after its end a client sees a task completed while
// row 1 runs. The tasks that are watched write the time as the last thing that
// they do, in a job of higher priority, so that they do not wait behind the load;
// a client asks again and again which are complete.
func (b *bench) measureSeen(ctx context.Context) (err error) {
	s, err := b.startServer(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	if err := s.pool(ctx, "seen", 1, 2); err != nil {
		return err
	}
	var half, most []float64
	count := 0
	for round := range b.rounds {
		delays, err := s.seenUnder(ctx, round, b.tasks)
		if err != nil {
			return err
		}
		count += len(delays)
		half = append(half, milliseconds(percentile(delays, 0.5)))
		most = append(most, milliseconds(percentile(delays, 0.99)))
	}
	b.add(figure{
		row: "17", what: "completion seen by a client under full load", goal: "p99 ≤ 250 ms / 120 ms after the process ended",
		value:   fmt.Sprintf("p50 %.0f ms, p99 %.0f ms", median(half), median(most)),
		verdict: atMost(median(most), 250, 120),
		how: fmt.Sprintf("%d tasks, %d a second beside row 1, from the clock of the task's own `date` to the answer of a list that is asked for every %d ms; p99 %s",
			count, probeRate, probeOften.Milliseconds(), spread("%.0f", most)),
	})
	return nil
}

// seenUnder runs row 1 and, as long as that takes, tasks that are watched.
func (s *server) seenUnder(ctx context.Context, round, tasks int) ([]time.Duration, error) {
	probes := batch.JobID(fmt.Sprintf("probes-%d", round))
	_, err := s.Call(ctx, http.MethodPost, "/jobs", nil, map[string]any{
		"id": probes, "priority": 100, "poolInfo": map[string]any{"poolId": "seen"},
	}, nil)
	if err != nil {
		return nil, err
	}
	var seen []time.Time
	loaded, over := context.WithCancel(ctx)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() (err error) {
		defer over()
		_, err = s.drain(ctx, drainRun{pool: "seen", job: batch.JobID(fmt.Sprintf("load-%d", round)), tasks: tasks, line: "/bin/true"})
		return err
	})
	added := make(chan int, 1)
	group.Go(func() (err error) {
		seen, err = s.watchProbes(ctx, probes, added)
		return err
	})
	group.Go(func() error {
		n, err := s.addProbes(ctx, loaded, probes)
		added <- n
		return err
	})
	if err := group.Wait(); err != nil {
		return nil, err
	}
	delays, err := s.delays(context.WithoutCancel(ctx), probes, seen)
	return delays, errors.Join(err, s.removeJob(context.WithoutCancel(ctx), probes))
}

// addProbes adds tasks at their rate until the load is over, and tells how many.
func (s *server) addProbes(ctx, loaded context.Context, job batch.JobID) (int, error) {
	line, err := s.line(ctx)
	if err != nil {
		return 0, err
	}
	defer line.close()
	probe := load{job: job, size: 1, line: "/bin/date +%s%N", rate: probeRate}
	begun := time.Now()
	for n := 0; ; n++ {
		if !probe.await(loaded, begun, n) {
			return n, ctx.Err()
		}
		if err := probe.send(ctx, line, n, 1); err != nil {
			return n, err
		}
	}
}

// watchProbes asks for the completed tasks behind the last of those that are all
// completed, until as many are as were added, and tells when each was first seen.
func (s *server) watchProbes(ctx context.Context, job batch.JobID, added <-chan int) (seen []time.Time, err error) {
	line, err := s.line(ctx)
	if err != nil {
		return nil, err
	}
	defer line.close()
	all, count, whole := -1, 0, 0
	for all < 0 || count < all {
		select {
		case all = <-added:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(probeOften):
		}
		path := fmt.Sprintf("/jobs/%s/tasks?$filter=id%%20ge%%20'%s'%%20and%%20state%%20eq%%20'completed'&$select=id", job, taskID(whole))
		if err := line.call(ctx, http.MethodGet, path, nil); err != nil {
			return nil, err
		}
		now := time.Now()
		var page struct{ Value []struct{ ID string } }
		if err := json.Unmarshal(line.body, &page); err != nil {
			return nil, err
		}
		for _, task := range page.Value {
			var n int
			if _, err := fmt.Sscanf(task.ID, "task-%d", &n); err != nil {
				return nil, fmt.Errorf("task %q is none of ours: %w", task.ID, err)
			}
			seen = append(seen, make([]time.Time, max(0, n+1-len(seen)))...)
			if seen[n].IsZero() {
				seen[n] = now
				count++
			}
		}
		for whole < len(seen) && !seen[whole].IsZero() {
			whole++
		}
	}
	return seen, nil
}

// delays reads when each task ended by its own word, and compares.
func (s *server) delays(ctx context.Context, job batch.JobID, seen []time.Time) ([]time.Duration, error) {
	line, err := s.line(ctx)
	if err != nil {
		return nil, err
	}
	defer line.close()
	var delays []time.Duration
	for n, at := range seen {
		if err := line.call(ctx, http.MethodGet, fmt.Sprintf("/jobs/%s/tasks/%s/files/stdout.txt", job, taskID(n)), nil); err != nil {
			return nil, err
		}
		ended, err := strconv.ParseInt(string(bytes.TrimSpace(line.body)), 10, 64)
		if err != nil {
			return nil, err
		}
		delays = append(delays, at.Sub(time.Unix(0, ended)))
	}
	if len(delays) == 0 {
		return nil, errors.New("no task was watched")
	}
	return delays, nil
}
