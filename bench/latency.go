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

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/client"
)

// measureLatency starts tasks one by one on an idle node. Each writes when its
// command began by its own clock, so that the time is that of everything from
// before the call to the first thing the task does, the loading of its program
// included.
func (b *bench) measureLatency(ctx context.Context) (err error) {
	s, err := b.startServer(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	if err := s.pool(ctx, "latency", 1, 2); err != nil {
		return err
	}
	var p50, p99, ends []float64
	for round := range b.rounds {
		starts, completions, err := s.startOneByOne(ctx, batch.JobID(fmt.Sprintf("latency-%d", round)), b.latency)
		if err != nil {
			return err
		}
		p50 = append(p50, milliseconds(percentile(starts, 0.5)))
		p99 = append(p99, milliseconds(percentile(starts, 0.99)))
		ends = append(ends, milliseconds(percentile(completions, 0.5)))
	}
	half, most := median(p50), median(p99)
	f := figure{
		row: "7", what: "submit to start, idle node", goal: "p50 ≤ 2 ms, p99 ≤ 6 ms / 1.2, 4",
		value:   fmt.Sprintf("p50 %.1f ms, p99 %.1f ms", half, most),
		verdict: worst(atMost(half, 2, 1.2), atMost(most, 6, 4)),
		how: fmt.Sprintf("%d tasks a round, from before the call to the task's own clock, the loading of `date` included; seen completed after %.1f ms; p50 %s, p99 %s",
			b.latency, median(ends), spread("%.1f", p50), spread("%.1f", p99)),
	}
	b.add(f)
	return b.explain(f, func() error {
		return s.profiled(ctx, b.profiles, "row-7", func() error {
			_, _, err := s.startOneByOne(ctx, "latency-profile", b.latency)
			return err
		})
	})
}

func (s *server) startOneByOne(ctx context.Context, job batch.JobID, tasks int) (starts, ends []time.Duration, err error) {
	if err := s.AddJob(ctx, job, "latency"); err != nil {
		return nil, nil, err
	}
	line, err := s.line(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer line.close()
	for n := range tasks {
		path := "/jobs/" + string(job) + "/tasks"
		begun := time.Now()
		body := fmt.Appendf(nil, `{"id":"%s","commandLine":"/bin/date +%%s%%N"}`, taskID(n))
		if err := line.call(ctx, http.MethodPost, path, body); err != nil {
			return nil, nil, err
		}
		path += "/" + taskID(n)
		if err := awaitTask(ctx, line, path); err != nil {
			return nil, nil, err
		}
		ends = append(ends, time.Since(begun))
		if err := line.call(ctx, http.MethodGet, path+"/files/stdout.txt", nil); err != nil {
			return nil, nil, err
		}
		began, err := strconv.ParseInt(string(bytes.TrimSpace(line.body)), 10, 64)
		if err != nil {
			return nil, nil, err
		}
		starts = append(starts, time.Unix(0, began).Sub(begun))
	}
	return starts, ends, s.removeJob(ctx, job)
}

// awaitTask asks for a task every half millisecond until it has completed.
func awaitTask(ctx context.Context, line *line, path string) error {
	for {
		if err := line.call(ctx, http.MethodGet, path, nil); err != nil {
			return err
		}
		var task client.Task
		if err := json.Unmarshal(line.body, &task); err != nil {
			return err
		}
		if task.State == batch.TaskCompleted {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(500 * time.Microsecond):
		}
	}
}
