package batch_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/batchyard/batchyard/batch"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// newTask makes a task that may be retried so often.
func newTask(t testing.TB, retries int, exit *batch.ExitConditions) batch.Task {
	t.Helper()
	job := batch.JobSpecification{ID: "job", PoolInfo: batch.PoolInfo{PoolID: "pool"}, OnTaskFailure: batch.TaskFailurePerform}
	if err := job.Normalize(); err != nil {
		t.Fatal(err)
	}
	spec := batch.TaskSpecification{
		ID: "task", CommandLine: "true", Constraints: &batch.TaskConstraints{MaxTaskRetryCount: &retries}, ExitConditions: exit,
	}
	if err := spec.Normalize(&job); err != nil {
		t.Fatal(err)
	}
	j := batch.NewJob("account", job, start)
	return batch.NewTask(&j, spec, 1, start)
}

var start = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func outcome(code int) batch.Outcome {
	o := batch.Outcome{End: batch.At(start), ExitCode: &code}
	if code != 0 {
		o.Failure = &batch.FailureInfo{Category: batch.UserError, Code: batch.FailureExitCode}
	}
	return o
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestATaskIsRunOncePerRetryAndOnce(t *testing.T) {
	t.Parallel()
	task := newTask(t, 2, nil)
	var states []batch.TaskState
	for range 3 {
		must(t, task.Bind("node"))
		must(t, task.Finish(start, outcome(7), start))
		states = append(states, task.State)
	}
	want := []batch.TaskState{batch.TaskActive, batch.TaskActive, batch.TaskCompleted}
	if diff := cmp.Diff(states, want); diff != "" {
		t.Errorf("states after three failures (-got +want):\n%s", diff)
	}
	if task.ExecutionInfo.RetryCount != 2 || *task.ExecutionInfo.ExitCode != 7 || task.ExecutionInfo.Result != batch.ResultFailure {
		t.Errorf("execution info is %+v", task.ExecutionInfo)
	}
	if err := task.Bind("node"); err == nil {
		t.Error("a completed task can be bound")
	}
}

// A node's clock may be anything, and what the service shows of a task must have
// an order nevertheless.
func TestTimesOfANodeAreKeptBetweenTheServices(t *testing.T) {
	t.Parallel()
	heard := start.Add(time.Minute)
	for name, c := range map[string]struct{ began, ended, wantBegan, wantEnded time.Duration }{
		"the same clock": {time.Second, 9 * time.Second, time.Second, 9 * time.Second},
		"an hour behind": {-time.Hour, -time.Hour + 9*time.Second, 0, 0},
		"an hour ahead":  {time.Hour, time.Hour + 9*time.Second, time.Minute, time.Minute},
		"set back":       {30 * time.Second, -time.Hour, 30 * time.Second, 30 * time.Second},
		"set on":         {30 * time.Second, 24 * time.Hour, 30 * time.Second, time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			task := newTask(t, 0, nil)
			must(t, task.Bind("node"))
			code := 0
			must(t, task.Finish(start.Add(c.began), batch.Outcome{End: batch.At(start.Add(c.ended)), ExitCode: &code}, heard))
			got := []time.Duration{task.ExecutionInfo.StartTime.Sub(start), task.ExecutionInfo.EndTime.Sub(start)}
			if diff := cmp.Diff([]time.Duration{c.wantBegan, c.wantEnded}, got); diff != "" {
				t.Errorf("begin and end after the task was added (-want +got):\n%s", diff)
			}
		})
	}
}

func TestALostNodeCostsARequeueAndNoRetry(t *testing.T) {
	t.Parallel()
	task := newTask(t, 0, nil)
	must(t, task.Bind("node"))
	must(t, task.Start(start, start))
	must(t, task.Requeue(start))
	info := task.ExecutionInfo
	if task.State != batch.TaskActive || task.Bound || info.RequeueCount != 1 || info.RetryCount != 0 {
		t.Errorf("after a requeue: state %s, bound %t, %+v", task.State, task.Bound, info)
	}
	must(t, task.Bind("node"))
	must(t, task.Requeue(start))
	if task.ExecutionInfo.RequeueCount != 1 {
		t.Error("giving back a task that had not begun counts as a requeue")
	}
}

func TestOnlyFailedTasksAreReactivated(t *testing.T) {
	t.Parallel()
	for code, want := range map[int]batch.Code{0: batch.CodeTaskCompleted, 3: ""} {
		task := newTask(t, 0, nil)
		must(t, task.Bind("node"))
		must(t, task.Finish(start, outcome(code), start))
		if got := batch.CodeOf(task.Reactivate(start)); got != want {
			t.Errorf("reactivating a task that exited with %d gives %q, want %q", code, got, want)
		}
	}
	task := newTask(t, 0, nil)
	if got := batch.CodeOf(task.Reactivate(start)); got != batch.CodeTaskNotCompleted {
		t.Errorf("reactivating an active task gives %q", got)
	}
}

func TestAReactivatedTaskIsNoRetryOfItsLastAttempt(t *testing.T) {
	t.Parallel()
	task := newTask(t, 1, nil)
	attempt := func() int {
		must(t, task.Bind("node"))
		must(t, task.Finish(start, outcome(3), start))
		return task.Attempt
	}
	first := attempt()
	if second := attempt(); second != first+1 {
		t.Errorf("the retry of attempt %d is attempt %d", first, second)
	}
	must(t, task.Reactivate(start))
	if third := attempt(); third <= first+2 {
		t.Errorf("after attempt %d a reactivated task has attempt %d", first+1, third)
	}
}

func TestAFailedUploadIsNoReasonToRunTheCommandAgain(t *testing.T) {
	t.Parallel()
	for code, want := range map[batch.FailureCode]batch.TaskState{
		batch.FailureUpload: batch.TaskCompleted, batch.FailureUploadAccessDenied: batch.TaskCompleted, batch.FailureUploadNoContainer: batch.TaskCompleted,
		batch.FailureExitCode: batch.TaskActive, batch.FailureProgramNotFound: batch.TaskActive, batch.FailureBlobNotFound: batch.TaskActive,
	} {
		task := newTask(t, 3, nil)
		must(t, task.Bind("node"))
		o := outcome(0)
		o.Failure = &batch.FailureInfo{Category: batch.UserError, Code: code}
		must(t, task.Finish(start, o, start))
		if task.State != want {
			t.Errorf("after %s the task is %s, want %s", code, task.State, want)
		}
	}
}

func TestATaskThatIsEndedIsNotRetried(t *testing.T) {
	t.Parallel()
	task := newTask(t, -1, nil)
	must(t, task.Bind("node"))
	must(t, task.Start(start, start))
	must(t, task.End("ended by a user", start))
	if task.State != batch.TaskCompleted || task.ExecutionInfo.FailureInfo.Code != batch.FailureTaskEnded || task.Bound {
		t.Errorf("after the end: %s, bound %t, %+v", task.State, task.Bound, task.ExecutionInfo.FailureInfo)
	}
	if got := batch.CodeOf(task.End("again", start)); got != batch.CodeTaskCompleted {
		t.Errorf("ending it again gives %q", got)
	}
}

func TestExitConditionsMatchCodesThenRangesThenErrorsThenDefault(t *testing.T) {
	t.Parallel()
	conditions := func() *batch.ExitConditions {
		return &batch.ExitConditions{
			ExitCodes: []batch.ExitCodeMapping{{Code: 3, ExitOptions: batch.ExitOptions{JobAction: "Terminate"}}},
			ExitCodeRanges: []batch.ExitCodeRangeMapping{
				{Start: 1, End: 9, ExitOptions: batch.ExitOptions{JobAction: batch.JobActionDisable}},
				{Start: 10, End: 19},
			},
			PreProcessingError: &batch.ExitOptions{JobAction: batch.JobActionTerminate},
			FileUploadError:    &batch.ExitOptions{JobAction: batch.JobActionDisable},
			Default:            &batch.ExitOptions{JobAction: batch.JobActionNone},
		}
	}
	noCode := outcome(1)
	noCode.ExitCode = nil
	upload := outcome(0)
	upload.Failure = &batch.FailureInfo{Code: batch.FailureUploadAccessDenied}
	for name, c := range map[string]struct {
		outcome batch.Outcome
		want    batch.JobAction
	}{
		"a code":              {outcome(3), batch.JobActionTerminate},
		"a code in a range":   {outcome(4), batch.JobActionDisable},
		"no action named":     {outcome(10), batch.JobActionTerminate},
		"any other code":      {outcome(20), batch.JobActionNone},
		"success":             {outcome(0), batch.JobActionNone},
		"could not begin":     {noCode, batch.JobActionTerminate},
		"could not be loaded": {upload, batch.JobActionDisable},
	} {
		task := newTask(t, 0, conditions())
		must(t, task.Bind("node"))
		must(t, task.Finish(start, c.outcome, start))
		if got := task.JobAction(); got != c.want {
			t.Errorf("%s: job action %q, want %q", name, got, c.want)
		}
	}
}

func TestSuccessActsOnTheJobOnlyWhereItsCodeIsListed(t *testing.T) {
	t.Parallel()
	disable := batch.ExitOptions{JobAction: batch.JobActionDisable}
	for name, c := range map[string]struct {
		conditions batch.ExitConditions
		want       batch.JobAction
	}{
		"by its code":       {batch.ExitConditions{ExitCodes: []batch.ExitCodeMapping{{Code: 0, ExitOptions: disable}}}, batch.JobActionDisable},
		"in a range":        {batch.ExitConditions{ExitCodeRanges: []batch.ExitCodeRangeMapping{{Start: 0, End: 9, ExitOptions: disable}}}, batch.JobActionDisable},
		"without an action": {batch.ExitConditions{ExitCodes: []batch.ExitCodeMapping{{Code: 0}}}, batch.JobActionNone},
		"not by default":    {batch.ExitConditions{Default: &disable}, batch.JobActionNone},
	} {
		task := newTask(t, 0, &c.conditions)
		must(t, task.Bind("node"))
		must(t, task.Finish(start, outcome(0), start))
		if got := task.JobAction(); got != c.want {
			t.Errorf("%s: job action %q, want %q", name, got, c.want)
		}
	}
}

func TestExitConditionsNeedAJobThatPerformsThem(t *testing.T) {
	t.Parallel()
	for _, action := range []batch.JobAction{batch.JobActionNone, batch.JobActionDisable, batch.JobActionTerminate} {
		job := batch.JobSpecification{ID: "job", PoolInfo: batch.PoolInfo{PoolID: "pool"}}
		must(t, job.Normalize())
		task := batch.TaskSpecification{
			ID: "task", CommandLine: "true",
			ExitConditions: &batch.ExitConditions{ExitCodes: []batch.ExitCodeMapping{{Code: 1, ExitOptions: batch.ExitOptions{JobAction: action}}}},
		}
		var e *batch.Error
		if err := task.Normalize(&job); !errors.As(err, &e) || e.Code != batch.CodeInvalidPropertyValue ||
			e.Details[0].Value != "exitConditions.exitCodes[0].exitOptions.jobAction" {
			t.Errorf("%s is answered with %+v", action, err)
		}
		job.OnTaskFailure = batch.TaskFailurePerform
		must(t, task.Normalize(&job))
	}
}

// TestRandomVerbsKeepATaskSound fires verbs in any order: whatever is refused
// changes nothing, and what is accepted leaves a state that makes sense.
func TestRandomVerbsKeepATaskSound(t *testing.T) {
	t.Parallel()
	verbs := map[string]func(*batch.Task) error{
		"bind":       func(task *batch.Task) error { return task.Bind("node") },
		"start":      func(task *batch.Task) error { return task.Start(start, start) },
		"succeed":    func(task *batch.Task) error { return task.Finish(start, outcome(0), start) },
		"fail":       func(task *batch.Task) error { return task.Finish(start, outcome(1), start) },
		"requeue":    func(task *batch.Task) error { return task.Requeue(start) },
		"end":        func(task *batch.Task) error { return task.End("ended", start) },
		"reactivate": func(task *batch.Task) error { return task.Reactivate(start) },
	}
	names := slices.Sorted(func(yield func(string) bool) {
		for name := range verbs {
			if !yield(name) {
				return
			}
		}
	})
	rapid.Check(t, func(r *rapid.T) {
		task := newTask(t, rapid.IntRange(-1, 3).Draw(r, "retries"), nil)
		for range rapid.IntRange(1, 40).Draw(r, "verbs") {
			before := task
			name := rapid.SampledFrom(names).Draw(r, "verb")
			if err := verbs[name](&task); err != nil {
				if diff := cmp.Diff(task, before); diff != "" {
					r.Fatalf("%s was refused (%v) and changed the task:\n%s", name, err, diff)
				}
				continue
			}
			switch {
			case task.Attempt < before.Attempt:
				r.Fatalf("%s lowered the attempt", name)
			case task.State == batch.TaskCompleted && (task.Bound || task.ExecutionInfo.Result == "" || task.ExecutionInfo.EndTime == nil):
				r.Fatalf("%s completed the task in part: %+v", name, task)
			case task.State == batch.TaskActive && task.Release != "" && !task.Bound:
				r.Fatalf("%s asks for a task that no node has", name)
			}
		}
	})
}
