package storetest_test

import (
	"errors"
	"testing"
	"time"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/store"
	"github.com/batchyard/batchyard/store/storetest"
)

func TestJobs(t *testing.T) {
	t.Parallel()
	storetest.EachOpen(t, func(t *testing.T, db *store.DB) {
		j := newJob(t, "acct", "MyJob", "Pool")
		update(t, db, func(tx *store.Tx) error { return tx.InsertJob(&j) })
		get := func(tx *store.Tx) (batch.Job, error) { return tx.Job("acct", "MYJOB") }
		diff(t, j, view(t, db, get))
		if err := db.Update(t.Context(), func(tx *store.Tx) error { return tx.InsertJob(&j) }); !store.IsDuplicate(err) {
			t.Errorf("second insert: got error %v", err)
		}

		t.Run("update keeps everything", func(t *testing.T) {
			if err := j.BeginDisable(batch.DisableTasksWait, noon.Add(time.Second)); err != nil {
				t.Fatal(err)
			}
			j.Priority, j.MaxParallelTasks = 7, ptr(3)
			j.Counts = batch.TaskCounts{Active: 1, Running: 2, Succeeded: 3, Failed: 4, ActiveSlots: 5, RunningSlots: 6, SucceededSlots: 7, FailedSlots: 8}
			j.Bound, j.EndTime, j.TerminateReason = 9, noon.Add(time.Hour), "because"
			update(t, db, func(tx *store.Tx) error { return tx.UpdateJob(&j) })
			diff(t, j, view(t, db, get))
			diff(t, []batch.Job{j}, view(t, db, func(tx *store.Tx) ([]batch.Job, error) { return tx.Jobs("acct", store.List{Max: 10}) }))
		})

		t.Run("deleted job is gone", func(t *testing.T) {
			update(t, db, func(tx *store.Tx) error { return tx.DeleteJob("acct", "MyJob") })
			err := db.View(t.Context(), func(tx *store.Tx) error {
				_, err := get(tx)
				return err
			})
			if !errors.Is(err, store.ErrNotFound) {
				t.Errorf("got error %v", err)
			}
		})
	})
}

func TestJobCounts(t *testing.T) {
	t.Parallel()
	storetest.EachOpen(t, func(t *testing.T, db *store.DB) {
		a, b := newJob(t, "acct", "A", "pool"), newJob(t, "acct", "b", "pool")
		a.OnAllTasksComplete = batch.AllTasksTerminateJob
		update(t, db, func(tx *store.Tx) error { return errors.Join(tx.InsertJob(&a), tx.InsertJob(&b)) })
		got := changed(t, db, func(tx *store.Tx) ([]store.JobStanding, error) {
			return tx.AddJobCounts("acct", []store.JobDelta{
				{Job: "a", Counts: batch.TaskCounts{Active: 5, ActiveSlots: 10, Failed: 1, FailedSlots: 2}, Bound: 2},
				{Job: "B", Counts: batch.TaskCounts{Running: 1, RunningSlots: 1}},
				{Job: "gone", Counts: batch.TaskCounts{Running: 1}},
			})
		})
		if len(got) == 2 && got[0].Job != "A" {
			got[0], got[1] = got[1], got[0]
		}
		diff(t, []store.JobStanding{
			{Job: "A", Pool: "pool", State: batch.JobActive, Active: 5, Bound: 2, MaxParallel: -1, OnAll: batch.AllTasksTerminateJob, OnFailure: batch.TaskFailureNoAction},
			{Job: "b", Pool: "pool", State: batch.JobActive, Running: 1, MaxParallel: -1, OnAll: batch.AllTasksNoAction, OnFailure: batch.TaskFailureNoAction},
		}, got)
		changed(t, db, func(tx *store.Tx) ([]store.JobStanding, error) {
			return tx.AddJobCounts("acct", []store.JobDelta{{Job: "A", Counts: batch.TaskCounts{Active: -1, ActiveSlots: -2, Succeeded: 1, SucceededSlots: 2}, Bound: -1}})
		})
		j := view(t, db, func(tx *store.Tx) (batch.Job, error) { return tx.Job("acct", "A") })
		diff(t, batch.TaskCounts{Active: 4, Succeeded: 1, Failed: 1, ActiveSlots: 8, SucceededSlots: 2, FailedSlots: 2}, j.Counts)
		if j.Bound != 1 {
			t.Errorf("got %d bound", j.Bound)
		}
	})
}

func TestJobsThatNeedCare(t *testing.T) {
	t.Parallel()
	storetest.EachOpen(t, func(t *testing.T, db *store.DB) {
		plain, low, high := newJob(t, "acct", "Plain", "Pool"), newJob(t, "acct", "Low", "Pool"), newJob(t, "acct", "High", "POOL")
		low.Counts.Active, high.Counts.Active, high.Counts.Running, high.Bound = 3, 4, 1, 2
		high.Priority, high.MaxParallelTasks = 10, ptr(5)
		high.Constraints.MaxWallClockTime = ptr(batch.Hour)
		elsewhere := newJob(t, "acct", "Elsewhere", "Other")
		elsewhere.Counts.Active = 1
		ending := newJob(t, "other", "Ending", "Pool")
		ending.Counts.Active = 1
		if err := ending.BeginTerminate("r", noon); err != nil {
			t.Fatal(err)
		}
		update(t, db, func(tx *store.Tx) error {
			return errors.Join(tx.InsertJob(&plain), tx.InsertJob(&low), tx.InsertJob(&high), tx.InsertJob(&elsewhere), tx.InsertJob(&ending))
		})
		diff(t, []store.JobRef{{Account: "other", Job: "Ending"}}, view(t, db, (*store.Tx).EndingJobs))

		type next struct {
			At time.Time
			Ok bool
		}
		expiry := func(tx *store.Tx) (n next, err error) {
			n.At, n.Ok, err = tx.NextJobExpiry()
			return n, err
		}
		expiring := func(by time.Time) []store.JobRef {
			t.Helper()
			return view(t, db, func(tx *store.Tx) ([]store.JobRef, error) { return tx.ExpiringJobs(by) })
		}
		end := noon.Add(time.Hour)
		diff(t, next{end, true}, view(t, db, expiry))
		diff(t, []store.JobRef(nil), expiring(end.Add(-time.Microsecond)))
		diff(t, []store.JobRef{{Account: "acct", Job: "High"}}, expiring(end))
		if err := high.BeginTerminate("r", noon); err != nil {
			t.Fatal(err)
		}
		update(t, db, func(tx *store.Tx) error { return tx.UpdateJob(&high) })
		diff(t, next{}, view(t, db, expiry))
		diff(t, []store.JobRef(nil), expiring(end))
	})
}
