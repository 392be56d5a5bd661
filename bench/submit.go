package main

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/batchyard/batchyard/batch"
	"golang.org/x/sync/errgroup"
)

// submitTasks adds tasks of about 500 bytes to a job whose pool has no node:
// in hundreds over four connections, and one by one over 32.
func submitTasks(ctx context.Context, s *server, o options) ([]row, error) {
	if err := s.AddPool(ctx, poolBody("empty", 0, 1)); err != nil {
		return nil, err
	}
	var bulk, single []float64
	var cpu []float64
	for round := range o.rounds {
		before, err := s.used()
		if err != nil {
			return nil, err
		}
		rate, err := s.submit(ctx, batch.JobID(fmt.Sprintf("bulk-%d", round)), o.submit, 100, 4)
		if err != nil {
			return nil, err
		}
		after, err := s.used()
		if err != nil {
			return nil, err
		}
		bulk = append(bulk, rate)
		cpu = append(cpu, float64(after.minus(before).server.Microseconds())/float64(o.submit))
		if rate, err = s.submit(ctx, batch.JobID(fmt.Sprintf("single-%d", round)), o.submit/5, 1, 32); err != nil {
			return nil, err
		}
		single = append(single, rate)
	}
	return []row{
		{"5. durable submission, 100 a call", fmt.Sprintf("%.0f/s", median(bulk)), fmt.Sprintf(
			"%d tasks of about 500 bytes, 4 connections; server %.0f µs of processor time a task", o.submit, median(cpu))},
		{"6. durable submission, 1 a call", fmt.Sprintf("%.0f/s", median(single)), fmt.Sprintf("%d tasks, 32 connections", o.submit/5)},
	}, s.removePool(ctx, "empty")
}

func (s *server) submit(ctx context.Context, job batch.JobID, tasks, size, connections int) (float64, error) {
	if err := s.AddJob(ctx, job, "empty"); err != nil {
		return 0, err
	}
	begun := time.Now()
	if err := s.add(ctx, job, tasks, size, connections, "/bin/sh -c '"+strings.Repeat("x", 400)+"'"); err != nil {
		return 0, err
	}
	rate := float64(tasks) / time.Since(begun).Seconds()
	return rate, s.DeleteJob(ctx, job)
}

// add adds tasks in groups of size over a number of connections.
func (s *server) add(ctx context.Context, job batch.JobID, tasks, size, connections int, line string) error {
	var next atomic.Int64
	group, ctx := errgroup.WithContext(ctx)
	for range connections {
		group.Go(func() error {
			for {
				first := int(next.Add(int64(size))) - size
				if first >= tasks {
					return nil
				}
				if err := s.addSome(ctx, job, first, min(size, tasks-first), line); err != nil {
					return err
				}
			}
		})
	}
	return group.Wait()
}

func (s *server) addSome(ctx context.Context, job batch.JobID, first, count int, line string) error {
	if count == 1 {
		return s.AddTask(ctx, job, map[string]any{"id": fmt.Sprintf("t%d", first), "commandLine": line})
	}
	tasks := make([]map[string]any, count)
	for i := range tasks {
		tasks[i] = map[string]any{"id": fmt.Sprintf("t%d", first+i), "commandLine": line}
	}
	results, err := s.AddTasks(ctx, job, tasks)
	if err != nil {
		return err
	}
	for _, r := range results {
		if r.Error != nil {
			return fmt.Errorf("task %s: %s", r.TaskID, r.Status)
		}
	}
	return nil
}
