package batch_test

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/batchyard/batchyard/batch"
)

// The tests of this file do random things to a noun, at random times, and hold
// it against the rules that its verbs promise. A failure prints the seed and the
// shortest way there.

// life draws verbs for one noun.
type life struct {
	*rapid.T
	now time.Time
}

func newLife(t *rapid.T) *life {
	return &life{t, time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)}
}

// pass lets time pass, or not.
func (l *life) pass() {
	l.now = l.now.Add(time.Duration(rapid.IntRange(0, 3).Draw(l.T, "seconds")) * time.Second)
}

// fail draws whether something fails, and how.
func (l *life) outcome() batch.Outcome {
	o := batch.Outcome{End: batch.At(l.now), ExitCode: new(rapid.IntRange(0, 2).Draw(l.T, "code"))}
	if code := rapid.SampledFrom([]batch.FailureCode{
		"", batch.FailureExitCode, batch.FailureTaskEnded, batch.FailureUpload, batch.FailureDiskFull,
	}).Draw(l.T, "failure"); code != "" {
		o.Failure = &batch.FailureInfo{Category: batch.UserError, Code: code}
	}
	return o
}

func TestTaskKeepsItsRules(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		l := newLife(rt)
		job := batch.NewJob("acct", jobOf(rt, "job"), l.now)
		spec := batch.TaskSpecification{ID: "task", CommandLine: "true", Constraints: &batch.TaskConstraints{
			MaxTaskRetryCount: new(rapid.IntRange(-1, 2).Draw(rt, "retries")),
		}}
		if err := spec.Normalize(&job.JobSpecification); err != nil {
			rt.Fatal(err)
		}
		task := batch.NewTask(&job, spec, 7, l.now)
		verbs := map[string]func() error{
			"bind":       func() error { return task.Bind("node") },
			"end":        func() error { return task.End("reason", l.now) },
			"misfit":     func() error { return task.Misfit("pool", 1, l.now) },
			"reactivate": func() error { return task.Reactivate(l.now) },
			"update": func() error {
				retries := rapid.IntRange(-2, 2).Draw(rt, "updated retries")
				return task.Update(batch.TaskUpdate{Constraints: &batch.TaskConstraints{MaxTaskRetryCount: &retries}}, &job.JobSpecification, l.now)
			},
		}
		// What only a node says, of the attempt that it holds.
		reports := map[string]func() error{
			"start":   func() error { return task.Start(l.now.Add(-time.Hour), l.now) },
			"finish":  func() error { return task.Finish(l.now.Add(time.Hour), l.outcome(), l.now) },
			"requeue": func() error { return task.Requeue(l.now) },
		}
		for range rapid.IntRange(1, 40).Draw(rt, "steps") {
			l.pass()
			before := task
			possible := names(verbs)
			if task.Bound {
				possible = append(possible, names(reports)...)
			}
			name := rapid.SampledFrom(possible).Draw(rt, "verb")
			verb := verbs[name]
			if verb == nil {
				verb = reports[name]
			}
			if err := verb(); err != nil {
				l.refused(name, err, before, task)
			}
			l.checkTask(name, &before, &task)
		}
	})
}

// names are the keys in order.
func names[T any](verbs map[string]T) []string {
	var all []string
	for name := range verbs {
		all = append(all, name)
	}
	slices.Sort(all)
	return all
}

// refused holds that a verb that was refused said so in words of the protocol
// and changed nothing.
func (l *life) refused(name string, err error, before, after any) {
	if batch.CodeOf(err) == "" {
		l.Fatalf("%s was refused without a code: %v", name, err)
	}
	if diff := cmp.Diff(before, after); diff != "" {
		l.Fatalf("%s was refused (%v) and changed:\n%s", name, err, diff)
	}
}

func (l *life) checkTask(name string, before, after *batch.Task) {
	info := after.ExecutionInfo
	completed := after.State == batch.TaskCompleted
	for _, rule := range []struct {
		holds bool
		says  string
	}{
		{!after.Bound || after.State != batch.TaskCompleted, "no node holds a completed task"},
		{after.Bound || after.State != batch.TaskRunning, "a task that runs has its node"},
		{after.Bound || after.Release == "", "a task that no node holds is asked back from none"},
		{!after.Bound || after.Node != "", "a bound task names its node"},
		{after.Attempt >= before.Attempt, "attempts only grow"},
		{!after.Bound || before.Bound || after.Attempt > before.Attempt, "each binding is another attempt"},
		{!completed || info.EndTime != nil && info.Result != "", "a completed task has an end and a result"},
		{(info.Result == batch.ResultFailure) == (info.FailureInfo != nil), "a failure has its reason, and only that"},
		{after.State != batch.TaskRunning || info.Result == "" && info.StartTime != nil && info.EndTime == nil, "a task that runs has no result yet"},
		{info.StartTime == nil || info.EndTime == nil || !info.EndTime.Before(info.StartTime.Time), "no task ends before it starts"},
		{!after.StateTransitionTime.Before(after.PreviousStateTransitionTime), "times of states go forward"},
		{!after.StateTransitionTime.After(l.now), "nothing happens later than now"},
		{after.Stamp >= before.Stamp, "stamps do not go back"},
		{after.State == before.State || after.Stamp > before.Stamp, "a change of the state is another version"},
		{info.RequeueCount >= before.ExecutionInfo.RequeueCount, "requeues are not taken back"},
		{l.retriesFit(name, before, after), "there are no more retries than allowed"},
		{before.State != batch.TaskCompleted || completed || name == "reactivate", "only reactivating takes a task out of its end"},
		{before.State != batch.TaskCompleted || before.ExecutionInfo.Result != batch.ResultSuccess || completed, "what succeeded is never run again"},
	} {
		if !rule.holds {
			l.Fatalf("after %s it does not hold that %s:\n%+v", name, rule.says, after)
		}
	}
}

// retriesFit tells whether a run was repeated only if that was left to do.
func (l *life) retriesFit(name string, before, after *batch.Task) bool {
	limit := *before.Constraints.MaxTaskRetryCount
	grew := after.ExecutionInfo.RetryCount > before.ExecutionInfo.RetryCount
	return !grew || name == "finish" && (limit < 0 || after.ExecutionInfo.RetryCount <= limit)
}

// jobOf is a job's specification with random settings.
func jobOf(rt *rapid.T, id batch.JobID) batch.JobSpecification {
	spec := batch.JobSpecification{ID: id, PoolInfo: batch.PoolInfo{PoolID: "pool"}}
	spec.OnAllTasksComplete = rapid.SampledFrom([]batch.OnAllTasksComplete{"", batch.AllTasksTerminateJob}).Draw(rt, "at the end")
	if rapid.Bool().Draw(rt, "limited") {
		spec.MaxParallelTasks = new(rapid.IntRange(1, 3).Draw(rt, "limit"))
	}
	if err := spec.Normalize(); err != nil {
		rt.Fatal(err)
	}
	return spec
}

// legalJobMoves are the moves of a job as the protocol has them, between the
// states in which a client can see it.
func legalJobMoves() map[batch.JobState][]batch.JobState {
	const a, d, off, t, c, del = batch.JobActive, batch.JobDisabling, batch.JobDisabled, batch.JobTerminating, batch.JobCompleted, batch.JobDeleting
	return map[batch.JobState][]batch.JobState{
		a: {d, off, t, c, del}, d: {a, off, t, c, del}, off: {a, t, c, del}, t: {c, del}, c: {del}, del: nil,
	}
}

func TestJobKeepsItsRules(t *testing.T) {
	t.Parallel()
	moves := legalJobMoves()
	rapid.Check(t, func(rt *rapid.T) {
		l := newLife(rt)
		job := batch.NewJob("acct", jobOf(rt, "job"), l.now)
		verbs := map[string]func() error{
			"enable":    func() error { return job.Enable(l.now) },
			"terminate": func() error { return job.BeginTerminate("reason", l.now) },
			"delete":    func() error { return job.BeginDelete(l.now) },
			"disable": func() error {
				how := rapid.SampledFrom([]batch.DisableTasks{"", "bogus", batch.DisableTasksRequeue, batch.DisableTasksWait}).Draw(rt, "how")
				return job.BeginDisable(how, l.now)
			},
			"patch":   func() error { return job.Patch(l.jobPatch(), l.now) },
			"replace": func() error { return job.Replace(l.jobPatch(), l.now) },
			"tasks change": func() error {
				job.Counts.Active = int64(rapid.IntRange(0, 2).Draw(rt, "active"))
				job.Counts.Running = int64(rapid.IntRange(0, 2).Draw(rt, "running"))
				job.Bound = job.Counts.Running
				return nil
			},
		}
		for range rapid.IntRange(1, 30).Draw(rt, "steps") {
			l.pass()
			before := job
			name := rapid.SampledFrom(names(verbs)).Draw(rt, "verb")
			if err := verbs[name](); err != nil {
				l.refused(name, err, before, job)
			}
			job.Settle(l.now)
			if job.Settle(l.now) {
				rt.Fatalf("after %s the job settles twice", name)
			}
			if job.State != before.State && !slices.Contains(moves[before.State], job.State) {
				rt.Fatalf("%s took the job from %s to %s", name, before.State, job.State)
			}
			l.checkJob(name, &before, &job)
		}
	})
}

// jobPatch is any change of a job, some of them wrong.
func (l *life) jobPatch() batch.JobPatch {
	var p batch.JobPatch
	if rapid.Bool().Draw(l.T, "priority given") {
		p.Priority = new(rapid.SampledFrom([]int{-1001, -1000, 0, 1000, 1001}).Draw(l.T, "priority"))
	}
	if rapid.Bool().Draw(l.T, "limit given") {
		p.MaxParallelTasks = new(rapid.IntRange(-2, 2).Draw(l.T, "new limit"))
	}
	if rapid.Bool().Draw(l.T, "pool given") {
		p.PoolInfo = &batch.PoolInfo{PoolID: rapid.SampledFrom([]batch.PoolID{"", "pool", "POOL", "other"}).Draw(l.T, "pool")}
	}
	return p
}

func (l *life) checkJob(name string, before, after *batch.Job) {
	open := after.Counts.Active + after.Counts.Running
	limit := int64(*after.MaxParallelTasks)
	for _, rule := range []struct {
		holds bool
		says  string
	}{
		{after.State != batch.JobEnabling, "nobody sees a job that is being enabled"},
		{after.State != batch.JobDisabling || after.Bound > 0, "a job without tasks on nodes is disabled at once"},
		{after.State != batch.JobTerminating || open > 0, "a job without open tasks is completed at once"},
		{after.State != batch.JobCompleted || !after.EndTime.IsZero() && after.TerminateReason != "", "a completed job says when and why"},
		{after.MayStart() == (after.State == batch.JobActive && (limit < 0 || after.Bound < limit)), "a job may start tasks while active and below its limit"},
		{after.Priority >= -1000 && after.Priority <= 1000 && limit != 0 && limit >= -1, "settings are legal"},
		{batch.Key(after.PoolInfo.PoolID) == batch.Key(before.PoolInfo.PoolID) || before.State == batch.JobDisabled, "only a disabled job changes its pool"},
		{!after.StateTransitionTime.Before(before.StateTransitionTime), "times of states go forward"},
		{after.State == before.State || after.Stamp > before.Stamp, "a change of the state is another version"},
		{(after.State == batch.JobDisabling) == (after.Disable != "" && after.State == batch.JobDisabling), "a job that is being disabled says what becomes of its tasks"},
	} {
		if !rule.holds {
			l.Fatalf("after %s it does not hold that %s:\n%+v", name, rule.says, after)
		}
	}
}

func TestPoolKeepsItsRules(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		l := newLife(rt)
		spec := batch.PoolSpecification{
			ID: "pool", VMSize: "custom_4c_4g", TargetDedicatedNodes: rapid.IntRange(0, 3).Draw(rt, "target"),
			VirtualMachineConfiguration: &batch.VirtualMachineConfiguration{
				NodeAgentSKUID: "batch.node.debian 12", ImageReference: batch.ImageReference{Publisher: "debian", Offer: "debian-12"},
			},
		}
		if err := spec.Normalize(); err != nil {
			rt.Fatal(err)
		}
		pool := batch.NewPool("acct", spec, l.now)
		target := rapid.Custom(func(t *rapid.T) *int {
			return rapid.SampledFrom([]*int{nil, new(-1), new(0), new(2), new(1 << 30)}).Draw(t, "nodes")
		})
		verbs := map[string]func() error{
			"resize": func() error {
				return pool.Resize(batch.PoolResize{TargetDedicatedNodes: target.Draw(rt, "dedicated"), TargetLowPriorityNodes: target.Draw(rt, "low")}, l.now)
			},
			"stop":   func() error { return pool.StopResize(l.now) },
			"delete": func() error { return pool.Delete(l.now) },
			"settle": func() error { pool.Settle(nil, l.now); return nil },
			"remove nodes": func() error {
				list := make([]batch.NodeID, rapid.SampledFrom([]int{0, 1, 100, 101}).Draw(rt, "names"))
				return pool.RemoveNodes(&batch.NodeRemoval{NodeList: list}, min(1, len(list)), 0, l.now)
			},
			"patch": func() error {
				return pool.Patch(batch.PoolPatch{TaskSlotsPerNode: new(rapid.IntRange(-1, 20).Draw(rt, "slots"))}, l.now)
			},
		}
		for range rapid.IntRange(1, 30).Draw(rt, "steps") {
			l.pass()
			before := pool
			name := rapid.SampledFrom(names(verbs)).Draw(rt, "verb")
			if err := verbs[name](); err != nil {
				l.refused(name, err, before, pool)
			}
			l.checkPool(name, &before, &pool)
		}
	})
}

func (l *life) checkPool(name string, before, after *batch.Pool) {
	resizing := after.AllocationState != batch.AllocationSteady
	for _, rule := range []struct {
		holds bool
		says  string
	}{
		{after.TargetDedicatedNodes >= 0 && after.TargetLowPriorityNodes >= 0, "targets are not negative"},
		{after.TargetDedicatedNodes < 1<<20 && after.TargetLowPriorityNodes < 1<<20, "targets are bounded"},
		{after.TaskSlotsPerNode >= 1 && after.TaskSlotsPerNode <= 16, "slots are at most four times the cores"},
		{before.State == batch.PoolActive || after.State == batch.PoolDeleting, "no pool comes back"},
		{after.State == batch.PoolActive || after.TargetDedicatedNodes+after.TargetLowPriorityNodes == 0, "a pool that goes wants no nodes"},
		{!resizing || !after.ResizeDeadline.IsZero(), "a resize has an end"},
		{before.TargetDedicatedNodes == after.TargetDedicatedNodes && before.TargetLowPriorityNodes == after.TargetLowPriorityNodes || resizing, "new targets are moved towards"},
		{before.AllocationState == batch.AllocationSteady || name == "delete" || before.TargetDedicatedNodes == after.TargetDedicatedNodes, "targets stay while a resize runs"},
		{after.Stamp >= before.Stamp, "stamps do not go back"},
	} {
		if !rule.holds {
			l.Fatalf("after %s it does not hold that %s:\n%+v", name, rule.says, after)
		}
	}
}
