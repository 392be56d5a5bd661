package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/batchyard/batchyard/batch"
)

// variant is row 1 under another condition, in turn with xargs.
type variant struct {
	row, what string
	hold, aim float64 // as a share of xargs
	tasks     int
	binary    string
	// delay is by how much longer than the disk each commit takes.
	delay time.Duration
	// rest is how long all is left alone before each round.
	rest time.Duration
}

// restBefore is after how long a node's pace is forgotten, as it is when the
// first task of a day comes.
const restBefore = 8 * time.Second

// measureFirstSecond runs few enough tasks that how soon a node is given enough
// of them counts.
func (b *bench) measureFirstSecond(ctx context.Context) error {
	return b.measureVariant(ctx, variant{
		row: "1a", what: "the first second of row 1", hold: 0.9, aim: 1, tasks: b.first, binary: b.binary, rest: restBefore,
	})
}

// measureSlowCommits has each commit take longer than the disk does.
func (b *bench) measureSlowCommits(ctx context.Context) error {
	if _, err := os.Stat(b.slow); err != nil {
		return fmt.Errorf("the program with slow commits, built with -tags slowcommit, is not there: %w", err)
	}
	var failed error
	for _, v := range []variant{
		{row: "1b", what: "row 1 with commits slowed by 0.5 ms", hold: 0.9, aim: 1, delay: 500 * time.Microsecond},
		{row: "1c", what: "row 1 with commits slowed by 2 ms", hold: 0.75, aim: 0.9, delay: 2 * time.Millisecond},
	} {
		if v.tasks, v.binary = b.tasks, b.slow; b.wants(v.row) {
			failed = errors.Join(failed, b.measureVariant(ctx, v))
		}
	}
	return failed
}

func (b *bench) measureVariant(ctx context.Context, v variant) (err error) {
	var env []string
	if v.delay > 0 {
		env = []string{"BATCHYARD_SLOW_COMMIT=" + v.delay.String()}
	}
	s, err := newServer(ctx, v.binary, b.data, env...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	if err := s.pool(ctx, "variant", 1, 2); err != nil {
		return err
	}
	var ours []drainResult
	var theirs []spawned
	for round := range b.rounds {
		peer, err := runXargs(ctx, "/bin/true", v.tasks)
		if err != nil {
			return err
		}
		if err := pause(ctx, v.rest); err != nil {
			return err
		}
		job := batch.JobID(fmt.Sprintf("variant-%d", round))
		one, err := s.drain(ctx, drainRun{pool: "variant", job: job, tasks: v.tasks, line: "/bin/true"})
		if err != nil {
			return err
		}
		theirs, ours = append(theirs, peer), append(ours, one)
	}
	rates := ratesOf(ours)
	ratio, last := median(ratios(rates, spawnRates(theirs))), ours[len(ours)-1]
	b.add(figure{
		row: v.row, what: v.what, goal: fmt.Sprintf("≥ %.2g / %.2g × xargs", v.hold, v.aim),
		value:   fmt.Sprintf("%.0f/s, %.2f × `xargs -P2`", median(rates), ratio),
		verdict: atLeast(ratio, v.hold, v.aim), cpu: fmt.Sprintf("%.0f µs", each(last.used.total(), v.tasks)),
		how: fmt.Sprintf("%d × `/bin/true`, in turn with `xargs` (%.0f/s)%s; %s; the last round: %s; %s", v.tasks,
			median(spawnRates(theirs)), v.after(), spread("%.0f", rates), last.used.split(v.tasks), last.work.split(v.tasks)),
	})
	return nil
}

func (v variant) after() string {
	if v.rest == 0 {
		return ""
	}
	return fmt.Sprintf(", each round after %.0f s of nothing", v.rest.Seconds())
}
