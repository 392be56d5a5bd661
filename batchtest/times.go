package batchtest

import (
	"time"

	"github.com/batchyard/batchyard/batch"
)

// step is one of the times of a thing, in the order in which they must be.
type step struct {
	what string
	at   time.Time
}

// inOrder finds times of one thing that go back.
func (a *audit) inOrder(thing string, steps ...step) {
	var last step
	for _, s := range steps {
		if s.at.IsZero() {
			continue
		}
		if s.at.Before(last.at) {
			a.wrong("%s has %s at %v and %s at %v", thing, last.what, last.at, s.what, s.at)
		}
		last = s
	}
}

// grows finds a thing whose last change was later when it was seen before.
func (a *audit) grows(thing string, stamp batch.Stamp) {
	if before := a.cluster.stamps[thing]; stamp < before {
		a.wrong("%s was changed at %v, and then at %v", thing, before.Modified(), stamp.Modified())
	}
	a.cluster.stamps[thing] = stamp
}

// times holds the times of a task against one another, and the end of its
// retention against true time.
func (a *audit) times(t *batch.Task) {
	thing, info := "task "+string(t.Job)+"/"+string(t.ID), &t.ExecutionInfo
	a.grows(thing, t.Stamp)
	a.inOrder(thing, step{"creation", t.CreationTime}, step{"the change before", t.PreviousStateTransitionTime}, step{"the last change", t.StateTransitionTime})
	if info.StartTime != nil {
		a.inOrder(thing, step{"creation", t.CreationTime}, step{"start", info.StartTime.Time})
	}
	if info.StartTime != nil && info.EndTime != nil {
		a.inOrder(thing, step{"start", info.StartTime.Time}, step{"end", info.EndTime.Time})
	}
	if t.State == batch.TaskCompleted && info.EndTime != nil {
		a.inOrder(thing, step{"end", info.EndTime.Time}, step{"completion", t.StateTransitionTime})
	}
	if kept := time.Since(a.cluster.Witness.LastEnd(TaskKey{t.Job, t.ID})); t.FilesRemoved && kept < t.Constraints.RetentionTime.Std()-clockGrain {
		a.wrong("the files of %s were removed %v after its end, and are to stay for %v", thing, kept, t.Constraints.RetentionTime)
	}
}

// upkeepTime is how much later than its limit a job has ended: a server that
// takes over, and its rounds.
const upkeepTime = 2 * time.Minute

// jobTimes does the same for a job and its limit of time, if it has one.
func (a *audit) jobTimes(j *batch.Job) {
	thing := "job " + string(j.ID)
	a.grows(thing, j.Stamp)
	a.inOrder(thing, step{"start", j.StartTime}, step{"end", j.EndTime})
	a.inOrder(thing, step{"creation", j.CreationTime}, step{"the change before", j.PreviousStateTransitionTime}, step{"the last change", j.StateTransitionTime})
	limit := *j.Constraints.MaxWallClockTime
	if limit == batch.Unlimited {
		return
	}
	// The job was added when the cluster began, as far as a grain is concerned.
	age := a.cluster.Witness.Age()
	switch ended := j.State == batch.JobTerminating || j.State == batch.JobCompleted; {
	case ended && j.TerminateReason == batch.ReasonMaxWallClock && age < limit.Std()-clockGrain:
		a.wrong("%s was ended %v after it began, and has %v", thing, age, limit)
	case !ended && age > limit.Std()+upkeepTime && a.cluster.upFor() > upkeepTime:
		a.wrong("%s is %s %v after it began, and has %v", thing, j.State, age, limit)
	}
}

// Resized notes that the pool is asked for another size now.
func (c *Cluster) Resized() { c.resized = time.Now() }

// resize finds a resize that was given up too early.
func (a *audit) resize(p *batch.Pool) {
	for _, e := range p.ResizeErrors {
		if took := time.Since(a.cluster.resized); e.Code == batch.ResizeTimedOut && took < p.ResizeTimeout.Std()-clockGrain {
			a.wrong("a resize of %s was given up after at most %v, and has %v", p.ID, took, p.ResizeTimeout)
		}
	}
}

// upFor is how long the server has been up.
func (c *Cluster) upFor() time.Duration {
	if s := c.current(); s != nil {
		return time.Since(s.began)
	}
	return 0
}
