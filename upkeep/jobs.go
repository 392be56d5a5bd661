package upkeep

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/batchyard/batchyard/control"
)

// endings goes on with jobs that are being disabled, terminated or deleted. A
// slice of each in turn, so that a large one does not keep small ones waiting.
func (u *Upkeep) endings() duty {
	return duty{name: "endings", topics: []string{control.TopicEndings}, do: u.endJobs}
}

func (u *Upkeep) endJobs(ctx context.Context) (next time.Time, err error) {
	jobs, err := u.control.EndingJobs(ctx)
	if err != nil {
		return next, err
	}
	var failures []error
	for len(jobs) > 0 {
		left := jobs[:0]
		for _, job := range jobs {
			done, err := u.control.EndJob(ctx, job.Account, job.Job)
			switch {
			case ctx.Err() != nil:
				return next, ctx.Err()
			case err != nil:
				failures = append(failures, fmt.Errorf("end job %s of %s: %w", job.Job, job.Account, err))
			case !done:
				left = append(left, job)
			}
		}
		jobs = left
	}
	return next, errors.Join(failures...)
}

// expiries terminates jobs whose wall clock limit is over.
func (u *Upkeep) expiries() duty {
	return duty{name: "expiries", topics: []string{control.TopicExpiries}, do: u.control.ExpireJobs}
}

// unfit fails tasks that wait for a pool which has no node large enough.
func (u *Upkeep) unfit() duty {
	return duty{name: "unfit", topics: []string{control.TopicUnfit}, do: u.failUnfit}
}

func (u *Upkeep) failUnfit(ctx context.Context) (next time.Time, err error) {
	for {
		if done, err := u.control.FailUnfit(ctx); err != nil || done {
			return next, err
		}
	}
}
