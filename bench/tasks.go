package main

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/client"
	"golang.org/x/sync/errgroup"
)

// runTasks runs many tasks that do nothing on one node of two slots, in turn
// with xargs -P2, and takes the processor time of every part.
func runTasks(ctx context.Context, s *server, o options) ([]row, error) {
	if err := s.addPool(ctx, "bench", 2); err != nil {
		return nil, err
	}
	var ours, xargs, overhead []float64
	var last usage
	for round := range o.rounds {
		peer, err := runXargs(ctx, o.tasks)
		if err != nil {
			return nil, err
		}
		xargs = append(xargs, peer.rate)
		before, err := s.used()
		if err != nil {
			return nil, err
		}
		took, err := s.runJob(ctx, o, batch.JobID(fmt.Sprintf("run-%d", round)))
		if err != nil {
			return nil, err
		}
		after, err := s.used()
		if err != nil {
			return nil, err
		}
		last = after.minus(before)
		ours = append(ours, float64(o.tasks)/took.Seconds())
		total := last.server + last.agent + last.keeper + last.tasks
		overhead = append(overhead, float64((total-peer.cpu).Microseconds())/float64(o.tasks))
	}
	each := func(d time.Duration) string { return fmt.Sprintf("%.0f", float64(d.Microseconds())/float64(o.tasks)) }
	return []row{
		{"1. no-op tasks end to end", fmt.Sprintf("%.0f/s", median(ours)), fmt.Sprintf("%d × /bin/true, one node, two slots, submission included", o.tasks)},
		{"1. the same by xargs -P2", fmt.Sprintf("%.0f/s, ratio %.2f", median(xargs), median(ours)/median(xargs)), "in turn on the same machine"},
		{"4. processor time beyond xargs", fmt.Sprintf("%.0f µs a task", median(overhead)), fmt.Sprintf(
			"last round, a task: server %s, agent %s, keeper %s, tasks themselves %s µs",
			each(last.server), each(last.agent), each(last.keeper), each(last.tasks))},
	}, s.removePool(ctx, "bench")
}

// peerRun is what xargs took.
type peerRun struct {
	rate float64
	cpu  time.Duration
}

func runXargs(ctx context.Context, tasks int) (peerRun, error) {
	var input bytes.Buffer
	for n := range tasks {
		input.WriteString(strconv.Itoa(n) + "\n")
	}
	command := exec.CommandContext(ctx, "xargs", "-P2", "-n1", "/bin/true")
	command.Stdin = &input
	begun := time.Now()
	if err := command.Run(); err != nil {
		return peerRun{}, fmt.Errorf("run xargs: %w", err)
	}
	took := time.Since(begun)
	used, _ := command.ProcessState.SysUsage().(*syscall.Rusage)
	return peerRun{
		rate: float64(tasks) / took.Seconds(),
		cpu:  time.Duration(used.Utime.Nano() + used.Stime.Nano()),
	}, nil
}

// runJob adds the tasks and waits until the last has completed.
func (s *server) runJob(ctx context.Context, o options, job batch.JobID) (time.Duration, error) {
	if err := s.AddJob(ctx, job, "bench"); err != nil {
		return 0, err
	}
	var profiling errgroup.Group
	if o.profiles != "" {
		profiling.Go(func() error { return s.profile(ctx, o.profiles, string(job), 5*time.Second) })
	}
	begun := time.Now()
	if err := s.add(ctx, job, o.tasks, 100, 4, "/bin/true"); err != nil {
		return 0, err
	}
	err := client.WaitFor(ctx, func(ctx context.Context) (bool, error) {
		counts, err := s.TaskCounts(ctx, job)
		if counts.Failed > 0 {
			return false, fmt.Errorf("%d tasks failed", counts.Failed)
		}
		return counts.Completed == int64(o.tasks), err
	})
	took := time.Since(begun)
	if err != nil {
		return 0, err
	}
	if err := profiling.Wait(); err != nil {
		return 0, err
	}
	return took, s.DeleteJob(ctx, job)
}

// startLatency starts tasks one by one on an idle node; each says when it
// began.
func startLatency(ctx context.Context, s *server, o options) ([]row, error) {
	if err := s.addPool(ctx, "latency", 2); err != nil {
		return nil, err
	}
	if err := s.AddJob(ctx, "latency", "latency"); err != nil {
		return nil, err
	}
	var starts, ends []time.Duration
	for n := range o.latency {
		id := batch.TaskID(fmt.Sprintf("t%d", n))
		begun := time.Now()
		if err := s.AddTask(ctx, "latency", map[string]any{"id": id, "commandLine": "/bin/date +%s%N"}); err != nil {
			return nil, err
		}
		if err := s.awaitTask(ctx, "latency", id); err != nil {
			return nil, err
		}
		ends = append(ends, time.Since(begun))
		text, err := s.TaskFile(ctx, "latency", id, "stdout.txt")
		if err != nil {
			return nil, err
		}
		began, err := strconv.ParseInt(string(bytes.TrimSpace(text)), 10, 64)
		if err != nil {
			return nil, err
		}
		starts = append(starts, time.Unix(0, began).Sub(begun))
	}
	show := func(d []time.Duration) string {
		return fmt.Sprintf("p50 %.1f ms, p99 %.1f ms", percentile(d, 0.5).Seconds()*1000, percentile(d, 0.99).Seconds()*1000)
	}
	return []row{
		{"7. submit to start, idle node", show(starts), fmt.Sprintf("%d tasks, from before the call to the task's own clock, its loading included", o.latency)},
		{"7. submit to seen completed", show(ends), "asked for every 0.5 ms"},
	}, s.removePool(ctx, "latency")
}

func (s *server) awaitTask(ctx context.Context, job batch.JobID, id batch.TaskID) error {
	for {
		task, err := s.Task(ctx, job, id)
		if err != nil {
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
