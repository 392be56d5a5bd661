package storetest_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/store"
	"github.com/batchyard/batchyard/store/storetest"
)

// BenchmarkAddTasks adds tasks by 100 an update, from four callers at once.
func BenchmarkAddTasks(b *testing.B) {
	eachKind(b, func(b *testing.B, db *store.DB) {
		job := benchYard(b, db)
		var next atomic.Int64
		var wait sync.WaitGroup
		b.ResetTimer()
		for range 4 {
			wait.Go(func() {
				for first := next.Add(100); first <= int64(b.N)+99; first = next.Add(100) {
					tasks := benchTasks(job, first, 100)
					err := db.Update(context.Background(), func(tx *store.Tx) error {
						if _, err := tx.Job("acct", "job"); err != nil {
							return err
						}
						if _, err := tx.InsertTasks(tasks); err != nil {
							return err
						}
						_, err := tx.AddJobCounts("acct", []store.JobDelta{{Job: "job", Counts: batch.TaskCounts{Active: 100, ActiveSlots: 100}}})
						return err
					})
					if err != nil {
						b.Error(err)
						return
					}
				}
			})
		}
		wait.Wait()
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tasks/s")
	})
}

// BenchmarkRunTasks takes tasks through binding, start and end, eight at a time
// as two nodes with prefetch would.
func BenchmarkRunTasks(b *testing.B) {
	const group = 8
	eachKind(b, func(b *testing.B, db *store.DB) {
		job := benchYard(b, db)
		for first := int64(0); first < int64(b.N)+group; first += 100 {
			benchUpdate(b, db, func(tx *store.Tx) error {
				_, err := tx.InsertTasks(benchTasks(job, first, 100))
				return err
			})
		}
		b.ResetTimer()
		for done := 0; done < b.N; done += group {
			bindGroup(b, db, group)
			runGroup(b, db)
		}
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tasks/s")
	})
}

func bindGroup(b *testing.B, db *store.DB, n int) {
	var ready []store.ReadyTask
	err := db.View(context.Background(), func(tx *store.Tx) (err error) {
		ready, err = tx.QueuedTasks("acct", store.QueueRef{Job: "job", Slots: 1}, 0, n)
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	benchUpdate(b, db, func(tx *store.Tx) error {
		bindings := make([]store.Binding, len(ready))
		for i, t := range ready {
			bindings[i] = store.Binding{TaskRef: t.TaskRef, Node: "tvmps_001_d"}
		}
		bound, err := tx.BindTasks("acct", "pool", bindings)
		if err != nil {
			return err
		}
		return tx.BindNodes("acct", []store.NodeLoad{{Node: "tvmps_001_d", Tasks: len(bound), Slots: len(bound)}})
	})
}

// runGroup ends all that the node holds, as one report of it.
func runGroup(b *testing.B, db *store.DB) {
	benchUpdate(b, db, func(tx *store.Tx) error {
		n, err := tx.Node("tvmps_001_d")
		if err != nil {
			return err
		}
		tasks, err := tx.BoundTasks(n.ID)
		if err != nil {
			return err
		}
		for i := range tasks {
			if err := tasks[i].Finish(tx.Now(), batch.Outcome{End: batch.At(tx.Now()), ExitCode: ptr(0)}, tx.Now()); err != nil {
				return err
			}
		}
		if err := tx.SaveRuns(tasks); err != nil {
			return err
		}
		n.BoundTasks, n.BoundSlots, n.TotalTasksRun = 0, 0, n.TotalTasksRun+len(tasks)
		if err := tx.UpdateNode(&n); err != nil {
			return err
		}
		done := int64(len(tasks))
		_, err = tx.AddJobCounts("acct", []store.JobDelta{{Job: "job", Counts: batch.TaskCounts{Active: -done, Succeeded: done}}})
		return err
	})
}

func eachKind(b *testing.B, bench func(b *testing.B, db *store.DB)) {
	for _, kind := range []struct {
		name string
		url  func(testing.TB) string
	}{{"sqlite", storetest.SQLite}, {"postgres", storetest.PostgreSQL}} {
		b.Run(kind.name, func(b *testing.B) {
			bench(b, storetest.Open(b, store.Options{URL: kind.url(b)}))
		})
	}
}

func benchUpdate(b *testing.B, db *store.DB, fn func(tx *store.Tx) error) {
	if err := db.Update(context.Background(), fn); err != nil {
		b.Fatal(err)
	}
}

func benchYard(b *testing.B, db *store.DB) *batch.Job {
	pool := newPool(b, "acct", "pool")
	job := newJob(b, "acct", "job", "pool")
	benchUpdate(b, db, func(tx *store.Tx) error {
		if err := tx.InsertPool(&pool); err != nil {
			return err
		}
		if err := tx.InsertNodes([]batch.Node{newNode(&pool, 1)}); err != nil {
			return err
		}
		return tx.InsertJob(&job)
	})
	return &job
}

func benchTasks(job *batch.Job, first int64, n int) []batch.Task {
	tasks := make([]batch.Task, n)
	for i := range tasks {
		s := batch.TaskSpecification{
			ID: batch.TaskID(fmt.Sprintf("task-%09d", first+int64(i))), CommandLine: "/bin/true with some arguments to fill the line a bit",
			EnvironmentSettings: []batch.EnvironmentSetting{{Name: "INPUT", Value: "https://storage.example/container/a-file-of-some-name"}},
		}
		if err := s.Normalize(&job.JobSpecification); err != nil {
			panic(err)
		}
		tasks[i] = batch.NewTask(job, s, first+int64(i), noon)
	}
	return tasks
}

// BenchmarkView reads one task, as a request with a context of its own does.
func BenchmarkView(b *testing.B) {
	eachKind(b, func(b *testing.B, db *store.DB) {
		job := benchYard(b, db)
		benchUpdate(b, db, func(tx *store.Tx) error {
			_, err := tx.InsertTasks(benchTasks(job, 0, 100))
			return err
		})
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		b.ResetTimer()
		for b.Loop() {
			err := db.View(ctx, func(tx *store.Tx) error {
				_, err := tx.Task("acct", "job", "task-000000042")
				return err
			})
			if err != nil {
				b.Fatal(err)
			}
		}
	})
}
