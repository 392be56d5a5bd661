package storetest_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/store"
	"github.com/batchyard/batchyard/store/storetest"
)

// queued is a job with tasks of some slots each, in the order of their numbers.
func queued(t *testing.T, db *store.DB, id batch.JobID, pool batch.PoolID, priority int, first int64, slots ...int) batch.Job {
	t.Helper()
	job := newJob(t, "acct", id, pool)
	job.Priority = priority
	var tasks []batch.Task
	var queues []store.QueueRef
	for i, n := range slots {
		task := newTask(t, &job, batch.TaskID(fmt.Sprintf("T-%d", first+int64(i))), first+int64(i))
		task.RequiredSlots = n
		tasks, queues = append(tasks, task), append(queues, store.QueueRef{Job: id, Slots: n})
	}
	seen := map[int]bool{}
	once := queues[:0]
	for _, q := range queues {
		if !seen[q.Slots] {
			once = append(once, q)
		}
		seen[q.Slots] = true
	}
	update(t, db, func(tx *store.Tx) error {
		_, err := tx.InsertTasks(tasks)
		return errors.Join(tx.InsertJob(&job), err, tx.TendQueues("acct", once))
	})
	return job
}

func TestQueues(t *testing.T) {
	t.Parallel()
	storetest.EachOpen(t, func(t *testing.T, db *store.DB) {
		pool := newPool(t, "acct", "Pool")
		node := newNode(&pool, 1)
		update(t, db, func(tx *store.Tx) error {
			return errors.Join(tx.InsertPool(&pool), tx.InsertNodes([]batch.Node{node}))
		})
		low := queued(t, db, "Low", "POOL", -3, 10, 1, 1, 4, 2)
		queued(t, db, "Old", "Pool", 0, 20, 1, 1)
		queued(t, db, "New", "Pool", 0, 21, 1)
		queued(t, db, "Else", "other", 9, 5, 1, 3)

		open := func(slots, limit int) (names []string) {
			t.Helper()
			for _, q := range view(t, db, func(tx *store.Tx) ([]store.Queue, error) { return tx.OpenQueues("acct", "pool", slots, limit) }) {
				names = append(names, fmt.Sprintf("%s %d@%d", q.Job, q.Head, q.Priority))
			}
			return names
		}
		sizes := func() []int {
			t.Helper()
			return view(t, db, func(tx *store.Tx) ([]int, error) { return tx.QueueSlots("acct", "pool") })
		}
		diff(t, []int{1, 2, 4}, sizes())
		diff(t, []string{"Old 20@0", "New 21@0", "Low 10@-3"}, open(1, 9))
		diff(t, []string{"Old 20@0", "New 21@0"}, open(1, 2))
		diff(t, []string{"Low 12@-3"}, open(4, 9))

		t.Run("heads and what follows them", func(t *testing.T) {
			queues := view(t, db, func(tx *store.Tx) ([]store.Queue, error) { return tx.OpenQueues("acct", "pool", 1, 9) })
			heads := view(t, db, func(tx *store.Tx) ([]store.ReadyTask, error) { return tx.HeadTasks("acct", queues) })
			if len(heads) != 3 {
				t.Errorf("heads of three queues: %+v", heads)
			}
			rest := view(t, db, func(tx *store.Tx) ([]store.ReadyTask, error) {
				return tx.QueuedTasks("acct", store.QueueRef{Job: "old", Slots: 1}, 21, 9)
			})
			diff(t, []store.ReadyTask{{TaskRef: store.TaskRef{Job: "old", Task: "T-21"}, Sequence: 21, Slots: 1}}, rest)
			waiting := view(t, db, func(tx *store.Tx) ([]batch.Task, error) {
				return tx.WaitingTasks("acct", store.QueueRef{Job: "Low", Slots: 1}, 9)
			})
			if len(waiting) != 2 || waiting[0].ID != "T-10" || waiting[1].ID != "T-11" {
				t.Errorf("tasks that wait: %+v", waiting)
			}
		})

		t.Run("a queue goes on to its next task, and is no more without one", func(t *testing.T) {
			bind := func(id batch.TaskID) {
				t.Helper()
				update(t, db, func(tx *store.Tx) error {
					_, err := tx.BindTasks("acct", "Pool", []store.Binding{{TaskRef: store.TaskRef{Job: "Old", Task: id}, Node: node.ID}})
					return errors.Join(err, tx.TendQueues("acct", []store.QueueRef{{Job: "Old", Slots: 1}}))
				})
			}
			bind("T-20")
			diff(t, []string{"New 21@0", "Old 21@0", "Low 10@-3"}, sorted(open(1, 9), 2))
			bind("T-21")
			diff(t, []string{"New 21@0", "Low 10@-3"}, open(1, 9))
		})

		t.Run("a job takes its queues along", func(t *testing.T) {
			low.Priority, low.MaxParallelTasks = 5, ptr(2)
			update(t, db, func(tx *store.Tx) error { return tx.UpdateJob(&low) })
			diff(t, []string{"Low 10@5", "New 21@0"}, open(1, 9))
			diff(t, 4, view(t, db, func(tx *store.Tx) (int, error) { return tx.MostSlots("acct", "low") }))
			update(t, db, func(tx *store.Tx) error { return tx.OpenOrClose("acct", []batch.JobID{"LOW"}, false) })
			diff(t, []int{1}, sizes())
			update(t, db, func(tx *store.Tx) error { return tx.OpenOrClose("acct", []batch.JobID{"LOW"}, true) })
			diff(t, []int{1, 2, 4}, sizes())
			low.Bound = 2 // as many as may be
			update(t, db, func(tx *store.Tx) error { return tx.UpdateJob(&low) })
			diff(t, []string{"New 21@0"}, open(1, 9))
			low.Bound, low.PoolInfo.PoolID = 0, "other"
			update(t, db, func(tx *store.Tx) error { return tx.UpdateJob(&low) })
			diff(t, []int{1}, sizes())
			update(t, db, func(tx *store.Tx) error { return tx.DeleteJob("acct", "Low") })
			diff(t, 0, view(t, db, func(tx *store.Tx) (int, error) { return tx.MostSlots("acct", "low") }))
		})

		t.Run("what no node of a pool has slots for is found", func(t *testing.T) {
			if _, err := unfit(t, db); !errors.Is(err, store.ErrNotFound) {
				t.Errorf("every task fits, got %v", err)
			}
			queued(t, db, "Wide", "Pool", 0, 30, 4, 5)
			got, err := unfit(t, db)
			diff(t, store.UnfitQueue{Account: "acct", QueueRef: store.QueueRef{Job: "wide", Slots: 5}, NodeSlots: 4, Pool: "Pool"}, must(t, got, err))
		})
	})
}

func unfit(t *testing.T, db *store.DB) (q store.UnfitQueue, err error) {
	t.Helper()
	return q, db.View(t.Context(), func(tx *store.Tx) (err error) {
		q, err = tx.UnfitQueue()
		return err
	})
}

// sorted sorts the first n, which are equals.
func sorted(names []string, n int) []string {
	if n == 2 && names[0] > names[1] {
		names[0], names[1] = names[1], names[0]
	}
	return names
}
