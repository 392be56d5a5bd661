package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

// spawned is how fast processes were started and waited for, and what that
// cost: the starting, the program, its end.
type spawned struct {
	rate float64
	cpu  float64 // microseconds of processor time a process
	idle float64 // microseconds a process that processors had nothing to do; 0 is not measured
}

// spawn starts a program many times from two threads, the cheapest way there
// is without anything around it: sharing memory with the child until it runs
// the program (vfork). With folders each gets a directory, a working directory
// in it and files for its output, in memory, and a process group of its own,
// as a task has.
func spawn(ctx context.Context, program string, count int, folders bool) (s spawned, err error) {
	root, err := os.MkdirTemp(memoryFolder, "batchyard-spawn-")
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(root)) }()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return s, err
	}
	defer func() { _ = null.Close() }()
	attributes := os.ProcAttr{Dir: "/", Files: []*os.File{null, null, null}, Env: []string{}}
	var next atomic.Int64
	before, begun := ownUsage(), time.Now()
	group, ctx := errgroup.WithContext(ctx)
	for range 2 {
		group.Go(func() error {
			for {
				n := int(next.Add(1))
				if n > count || ctx.Err() != nil {
					return ctx.Err()
				}
				start := startBare
				if folders {
					start = startInFolder
				}
				if err := start(program, attributes, filepath.Join(root, strconv.Itoa(n))); err != nil {
					return err
				}
			}
		})
	}
	if err := group.Wait(); err != nil {
		return s, err
	}
	took := time.Since(begun)
	return spawned{rate: float64(count) / took.Seconds(), cpu: each(ownUsage()-before, count)}, nil
}

func startBare(program string, attributes os.ProcAttr, _ string) error {
	process, err := os.StartProcess(program, []string{program}, &attributes)
	if err != nil {
		return err
	}
	state, err := process.Wait()
	if err == nil && !state.Success() {
		err = fmt.Errorf("%s: %s", program, state)
	}
	return err
}

func startInFolder(program string, attributes os.ProcAttr, folder string) error {
	attributes.Dir = filepath.Join(folder, "wd")
	attributes.Sys = &syscall.SysProcAttr{Setpgid: true}
	if err := errors.Join(os.Mkdir(folder, 0o700), os.Mkdir(attributes.Dir, 0o700)); err != nil {
		return err
	}
	stdout, err := os.Create(filepath.Join(folder, "stdout.txt"))
	if err != nil {
		return err
	}
	defer func() { _ = stdout.Close() }()
	stderr, err := os.Create(filepath.Join(folder, "stderr.txt"))
	if err != nil {
		return err
	}
	defer func() { _ = stderr.Close() }()
	attributes.Files = []*os.File{attributes.Files[0], stdout, stderr}
	return startBare(program, attributes, folder)
}

// ownUsage is the processor time of this program and of those that it has
// started and waited for.
func ownUsage() time.Duration {
	var sum int64
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var u syscall.Rusage
		if err := syscall.Getrusage(who, &u); err == nil {
			sum += u.Utime.Nano() + u.Stime.Nano()
		}
	}
	return time.Duration(sum)
}

// runXargs starts a program many times by xargs, two at once.
func runXargs(ctx context.Context, program string, count int) (spawned, error) {
	return runList(ctx, count, "xargs", "-P2", "-n1", program)
}

// runList runs a command that starts something for each line of its input.
func runList(ctx context.Context, count int, name string, args ...string) (spawned, error) {
	var input bytes.Buffer
	for n := range count {
		input.WriteString(strconv.Itoa(n) + "\n")
	}
	command := exec.CommandContext(ctx, name, args...)
	command.Stdin = &input
	before, err := idleTime()
	if err != nil {
		return spawned{}, err
	}
	begun := time.Now()
	if output, err := command.CombinedOutput(); err != nil {
		return spawned{}, fmt.Errorf("%s: %w: %.300s", name, err, output)
	}
	took := time.Since(begun)
	after, err := idleTime()
	if err != nil {
		return spawned{}, err
	}
	return spawned{
		idle: each(after-before, count),
		rate: float64(count) / took.Seconds(),
		cpu:  each(command.ProcessState.UserTime()+command.ProcessState.SystemTime(), count),
	}, nil
}

// measureSpawning measures what this machine needs to start a process.
func (b *bench) measureSpawning(ctx context.Context) (err error) {
	folder, err := os.MkdirTemp(b.data, "batchyard-noop-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	noop, err := writeNoop(folder)
	if err != nil {
		return err
	}
	count := max(1, b.tasks/4)
	for _, c := range []struct {
		what    string
		program string
		folders bool
	}{
		{"raw spawn, `/bin/true`", "/bin/true", false},
		{"raw spawn, `/bin/true`, directories and files", "/bin/true", true},
		{"raw spawn, static no-op", noop, false},
		{"raw spawn, static no-op, directories and files", noop, true},
	} {
		var rates, cpu []float64
		for range b.rounds {
			s, err := spawn(ctx, c.program, count, c.folders)
			if err != nil {
				return err
			}
			rates, cpu = append(rates, s.rate), append(cpu, s.cpu)
		}
		b.add(figure{
			row: "0", what: c.what, value: fmt.Sprintf("%.0f/s", median(rates)), cpu: fmt.Sprintf("%.0f µs", median(cpu)),
			how: fmt.Sprintf("%d by two threads, vfork; %s", count, spread("%.0f", rates)),
		})
	}
	return nil
}
