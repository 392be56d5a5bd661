package control_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/store"
	"github.com/batchyard/batchyard/store/storetest"
)

// need is a change of a task's specification: it needs so many slots.
func need(slots int) func(*batch.TaskSpecification) {
	return func(s *batch.TaskSpecification) { s.RequiredSlots = slots }
}

// diary is the order in which tasks began, and when.
type diary struct {
	mu    sync.Mutex
	names []string             // guarded by mu
	at    map[string]time.Time // guarded by mu
}

// work runs tasks for as long as their names say, a second if they say nothing,
// and notes that they began.
func (d *diary) work(lengths map[batch.TaskID]time.Duration) func(batch.TaskOrder) (time.Duration, int) {
	d.at = map[string]time.Time{}
	return func(o batch.TaskOrder) (time.Duration, int) {
		d.mu.Lock()
		defer d.mu.Unlock()
		name := nameOf(o.Job, o.Task)
		d.names, d.at[name] = append(d.names, name), time.Now()
		if length := lengths[o.Task]; length > 0 {
			return length, 0
		}
		return time.Second, 0
	}
}

func (d *diary) begun(task string) time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.at["job/"+task]
}

// TestLargeTasksStarveNobody has tasks wait that need more slots than any node
// has free, in front of small ones without an end.
func TestLargeTasksStarveNobody(t *testing.T) {
	t.Parallel()
	url := storetest.SQLite(t)
	synctest.Test(t, func(t *testing.T) {
		y := newYard(t, url)
		y.loops()
		y.prepare(2, 2)
		y.wanted(2)
		var d diary
		y.robots(2, d.work(map[batch.TaskID]time.Duration{"long-000": 100 * time.Second, "long-001": 150 * time.Second}))
		synctest.Wait()
		y.addTasks("job", "long", 2)
		time.Sleep(time.Second)
		began := time.Now()
		y.addTasks("job", "large", 2, need(2))
		y.addTasks("job", "small", 300)
		time.Sleep(10 * time.Second)
		if n := len(slices.DeleteFunc(y.tasks("job"), func(t batch.Task) bool { return t.State != batch.TaskCompleted })); n < 8 {
			t.Errorf("%d small tasks have run in ten seconds beside a large one that waits", n)
		}
		time.Sleep(10 * time.Minute)
		first, second := d.begun("large-000"), d.begun("large-001")
		if first.IsZero() || second.IsZero() {
			t.Fatalf("large tasks began at %v and %v", first, second)
		}
		// The first gets the node that was set aside as soon as the task there
		// ends, which is 99 or 149 s from now; the second one the next.
		if took := first.Sub(began); took > 151*time.Second {
			t.Errorf("the first large task waited %v for its node", took)
		}
		if took := second.Sub(began); took > 153*time.Second {
			t.Errorf("the second large task waited %v", took)
		}
		if counts := y.job("job").Counts; counts.Succeeded != 304 {
			t.Errorf("counts in the end: %+v", counts)
		}
	})
}

// TestFirstInLineIsFreed takes the task away for which a node is set aside. The
// others have the node at once, and do not wait for a look around.
func TestFirstInLineIsFreed(t *testing.T) {
	t.Parallel()
	none := batch.Conditions{}
	for name, act := range map[string]func(y *yard) error{
		"it is deleted": func(y *yard) error { return y.DeleteTask(ctx(y.t), acct, "first", "large-000", none) },
		"it is terminated": func(y *yard) error {
			_, err := y.TerminateTask(ctx(y.t), acct, "first", "large-000", none)
			return err
		},
		"its job is disabled": func(y *yard) error {
			_, err := y.DisableJob(ctx(y.t), acct, "first", batch.DisableTasksWait, none)
			return err
		},
		"its job is terminated": func(y *yard) error {
			_, err := y.TerminateJob(ctx(y.t), acct, "first", "", none)
			return err
		},
		"its job is deleted": func(y *yard) error { return y.DeleteJob(ctx(y.t), acct, "first", none) },
		"its job is less urgent": func(y *yard) error {
			_, err := y.PatchJob(ctx(y.t), acct, "first", batch.JobPatch{Priority: new(-1)}, none)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := storetest.SQLite(t)
			synctest.Test(t, func(t *testing.T) {
				y := newYard(t, url)
				y.loops()
				y.prepare(1, 2)
				y.wanted(1)
				var d diary
				y.robots(2, d.work(map[batch.TaskID]time.Duration{"long-000": time.Hour}))
				y.addTasks("job", "long", 1)
				time.Sleep(40 * time.Second) // past the looks around that follow the start
				_, err := y.AddJob(ctx(t), acct, jobSpec("first"))
				y.check(err)
				y.addTasks("first", "large", 1, need(2))
				y.addTasks("job", "small", 1)
				time.Sleep(time.Second)
				if at := d.begun("small-000"); !at.IsZero() {
					t.Fatal("the slot of the large task was given to a small one")
				}
				y.check(act(y))
				acted := time.Now()
				synctest.Wait()
				if at := d.begun("small-000"); at.IsZero() || at.After(acted) {
					t.Errorf("the small task began at %v, after %v", at, acted)
				}
			})
		})
	}
}

// TestOrderOfManyJobs has one slot and many jobs of one priority, whose tasks
// were added in turn: they run in that order, but for a job that is more urgent
// and one that may run a single task at a time.
func TestOrderOfManyJobs(t *testing.T) {
	t.Parallel()
	jobs := 250
	if raced {
		jobs = 110 // still more than a page of them
	}
	url := storetest.SQLite(t)
	synctest.Test(t, func(t *testing.T) {
		y := newYard(t, url)
		y.loops()
		y.prepare(1, 1)
		y.wanted(1)
		var d diary
		y.robots(1, d.work(nil))
		y.addTasks("job", "first", 1) // keeps the node while the others come
		synctest.Wait()
		var want []string
		for i := range jobs {
			spec := jobSpec(batch.JobID(fmt.Sprintf("j%03d", (i*37)%jobs)))
			_, err := y.AddJob(ctx(t), acct, spec)
			y.check(err)
		}
		for round := range 3 {
			for i := range jobs {
				id := batch.JobID(fmt.Sprintf("j%03d", (i*59)%jobs))
				y.addTasks(id, fmt.Sprintf("r%d", round), 1)
				want = append(want, nameOf(id, batch.TaskID(fmt.Sprintf("r%d-000", round))))
			}
		}
		_, err := y.PatchJob(ctx(t), acct, "j099", batch.JobPatch{Priority: new(1)}, batch.Conditions{})
		y.check(err)
		urgent := []string{"job/first-000", "j099/r0-000", "j099/r1-000", "j099/r2-000"}
		want = append(urgent, slices.DeleteFunc(want, func(name string) bool { return slices.Contains(urgent, name) })...)
		y.restart() // nothing of the order is in memory
		time.Sleep(20 * time.Minute)
		d.mu.Lock()
		defer d.mu.Unlock()
		if diff := cmp.Diff(want, d.names); diff != "" {
			t.Errorf("order of the tasks (-want +got):\n%s", diff)
		}
	})
}

// TestOrderBeyondLimits has a job whose limit of parallel tasks keeps most of
// its tasks back, before a job without a limit.
func TestOrderBeyondLimits(t *testing.T) {
	t.Parallel()
	url := storetest.SQLite(t)
	synctest.Test(t, func(t *testing.T) {
		y := newYard(t, url)
		y.loops()
		y.prepare(2, 2)
		y.wanted(2)
		var d diary
		y.robots(2, d.work(nil))
		limited := jobSpec("limited")
		limited.Priority, limited.MaxParallelTasks = 5, new(1)
		_, err := y.AddJob(ctx(t), acct, limited)
		y.check(err)
		y.addTasks("limited", "t", 2000)
		y.addTasks("job", "t", 30)
		time.Sleep(11 * time.Second) // 4 slots, one of them for the job with a limit
		if got := y.job("job").Counts.Succeeded; got != 30 {
			t.Errorf("%d of 30 tasks behind a job at its limit have run", got)
		}
		if got := y.job("limited").Counts; got.Succeeded < 10 || got.Succeeded > 11 || got.Running > 1 {
			t.Errorf("the job with a limit of one has counts %+v after 11 s", got)
		}
		_, err = y.PatchJob(ctx(t), acct, "limited", batch.JobPatch{MaxParallelTasks: new(4)}, batch.Conditions{})
		y.check(err)
		synctest.Wait()
		if got := y.job("limited").Counts.Running; got != 4 {
			t.Errorf("%d tasks run at once after the limit was raised to 4", got)
		}
	})
}

// TestWhatCanNeverRun is told so wherever it can be known, and stands in nobody's
// way.
func TestWhatCanNeverRun(t *testing.T) {
	t.Parallel()
	none := batch.Conditions{}
	url := storetest.SQLite(t)
	synctest.Test(t, func(t *testing.T) {
		y := newYard(t, url)
		y.loops()
		y.prepare(1, 2)
		y.wanted(1)
		y.robots(2, seconds(1))
		results, err := y.AddTasks(ctx(t), acct, "job", []batch.TaskSpecification{{ID: "x", CommandLine: "true", RequiredSlots: 3}})
		y.check(err)
		y.refused(results[0].Err, batch.CodeInvalidPropertyValue)

		large := poolSpec("large", 0, 4)
		_, err = y.AddPool(ctx(t), acct, large)
		y.check(err)
		spec := jobSpec("moves")
		spec.PoolInfo.PoolID = "large"
		_, err = y.AddJob(ctx(t), acct, spec)
		y.check(err)
		y.addTasks("moves", "four", 700, need(4))
		y.addTasks("moves", "two", 3, need(2))
		_, err = y.DisableJob(ctx(t), acct, "moves", batch.DisableTasksWait, none)
		y.check(err)
		move := batch.JobPatch{PoolInfo: &batch.PoolInfo{PoolID: "pool"}}
		_, err = y.PatchJob(ctx(t), acct, "moves", move, none)
		y.refused(err, batch.CodeInvalidPropertyValue)
		if got := y.job("moves").PoolInfo.PoolID; got != "large" {
			t.Errorf("the job is on %s after the move was refused", got)
		}
		_, err = y.EnableJob(ctx(t), acct, "moves", none)
		y.check(err)

		// Another pool of that name has smaller nodes.
		y.check(y.DeletePool(ctx(t), acct, "large", none))
		time.Sleep(time.Second)
		_, err = y.AddPool(ctx(t), acct, poolSpec("large", 0, 2))
		y.check(err)
		y.restart()
		synctest.Wait()
		if got := y.job("moves").Counts; got.Failed != 700 || got.Active != 3 {
			t.Errorf("counts of the job on nodes too small: %+v", got)
		}
		task := y.task("moves", "four-699")
		f := task.ExecutionInfo.FailureInfo
		if task.State != batch.TaskCompleted || f == nil || f.Category != batch.UserError || f.Code != batch.FailureMisfit || task.ExecutionInfo.EndTime == nil {
			t.Errorf("a task that can never run is %s with %+v", task.State, f)
		}
		_, err = y.ReactivateTask(ctx(t), acct, "moves", "four-699", none)
		y.refused(err, batch.CodeInvalidPropertyValue)

		_, err = y.DisableJob(ctx(t), acct, "moves", batch.DisableTasksWait, none)
		y.check(err)
		_, err = y.PatchJob(ctx(t), acct, "moves", move, none)
		y.check(err)
		_, err = y.EnableJob(ctx(t), acct, "moves", none)
		y.check(err)
		time.Sleep(time.Minute)
		if got := y.job("moves").Counts; got.Failed != 700 || got.Succeeded != 3 {
			t.Errorf("counts of the job where it fits: %+v", got)
		}
		if got := y.task("moves", "two-000").Pool; got != "pool" {
			t.Errorf("a task of a job that moved ran on pool %s", got)
		}
	})
}

// TestWhatCanNeverRunIsToldWhere moves a job to a pool that comes later, with
// nodes too small: its task says of which pool these are.
func TestWhatCanNeverRunIsToldWhere(t *testing.T) {
	t.Parallel()
	none := batch.Conditions{}
	storetest.Each(t, func(t *testing.T, url string) {
		y := newYard(t, url)
		y.prepare(0, 4)
		y.addTasks("job", "four", 1, need(4))
		_, err := y.DisableJob(ctx(t), acct, "job", batch.DisableTasksWait, none)
		y.check(err)
		_, err = y.PatchJob(ctx(t), acct, "job", batch.JobPatch{PoolInfo: &batch.PoolInfo{PoolID: "Later"}}, none)
		y.check(err)
		_, err = y.EnableJob(ctx(t), acct, "job", none)
		y.check(err)
		_, err = y.AddPool(ctx(t), acct, poolSpec("Later", 0, 1))
		y.check(err)
		for done := false; !done; {
			done, err = y.FailUnfit(ctx(t))
			y.check(err)
		}
		want := batch.NameValue{Name: "Reason", Value: "The compute nodes of pool Later have 1 task slots each"}
		if f := y.task("job", "four-000").ExecutionInfo.FailureInfo; f == nil || !slices.Contains(f.Details, want) {
			t.Errorf("the task failed with %+v, want the detail %v", f, want)
		}
	})
}

// TestUnfitQueueWithoutTasks has a queue that says of a broken database that tasks
// wait in it: the look for what can never run ends all the same.
func TestUnfitQueueWithoutTasks(t *testing.T) {
	t.Parallel()
	storetest.Each(t, func(t *testing.T, url string) {
		y := newYard(t, url)
		y.prepare(0, 1)
		y.check(y.db.Update(ctx(t), func(tx *store.Tx) error {
			_, err := tx.Exec(`INSERT INTO queue (account, job, slots, pool, priority, open, head) VALUES ('acct', 'job', 9, 'pool', 0, TRUE, 1)`)
			return err
		}))
		done := false
		for range 3 {
			var err error
			if done, err = y.FailUnfit(ctx(t)); done {
				break
			}
			y.check(err)
		}
		if !done {
			t.Error("it does not end")
		}
	})
}

// TestQueuesOutliveTheServer restarts the server between the steps of a job's
// life: where its tasks wait is on disk with what was answered.
func TestQueuesOutliveTheServer(t *testing.T) {
	t.Parallel()
	none := batch.Conditions{}
	url := storetest.SQLite(t)
	synctest.Test(t, func(t *testing.T) {
		y := newYard(t, url)
		y.loops()
		y.prepare(0, 2)
		_, err := y.AddPool(ctx(t), acct, poolSpec("other", 0, 2))
		y.check(err)
		y.addTasks("job", "one", 50)
		y.addTasks("job", "two", 50, need(2))
		heads := func(pool batch.PoolID) (all []store.Queue) {
			y.check(y.db.View(ctx(t), func(tx *store.Tx) error {
				for slots := 1; slots <= 2; slots++ {
					queues, err := tx.OpenQueues(acct, pool, slots, 10)
					if err != nil {
						return err
					}
					all = append(all, queues...)
				}
				return nil
			}))
			for i := range all {
				all[i].Head = 0
			}
			return all
		}
		want := func(priority, limit int) []store.Queue {
			return []store.Queue{
				{QueueRef: store.QueueRef{Job: "job", Slots: 1}, Priority: priority, MaxParallel: limit},
				{QueueRef: store.QueueRef{Job: "job", Slots: 2}, Priority: priority, MaxParallel: limit},
			}
		}
		for _, step := range []struct {
			name       string
			do         func() error
			here, away []store.Queue
		}{
			{"added", func() error { return nil }, want(0, -1), nil},
			{"more urgent", func() error {
				_, err := y.PatchJob(ctx(t), acct, "job", batch.JobPatch{Priority: new(9)}, none)
				return err
			}, want(9, -1), nil},
			{"disabled", func() error {
				_, err := y.DisableJob(ctx(t), acct, "job", batch.DisableTasksWait, none)
				return err
			}, nil, nil},
			{"moved", func() error {
				_, err := y.PatchJob(ctx(t), acct, "job", batch.JobPatch{PoolInfo: &batch.PoolInfo{PoolID: "other"}, MaxParallelTasks: new(7)}, none)
				return err
			}, nil, nil},
			{"enabled", func() error { _, err := y.EnableJob(ctx(t), acct, "job", none); return err }, nil, want(9, 7)},
			{"terminated", func() error { _, err := y.TerminateJob(ctx(t), acct, "job", "", none); return err }, nil, nil},
		} {
			y.check(step.do())
			y.restart()
			if diff := cmp.Diff(step.here, heads("pool")); diff != "" {
				t.Errorf("%s, queues of its pool (-want +got):\n%s", step.name, diff)
			}
			if diff := cmp.Diff(step.away, heads("other")); diff != "" {
				t.Errorf("%s, queues of the other pool (-want +got):\n%s", step.name, diff)
			}
		}
	})
}
