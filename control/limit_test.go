package control_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/store/storetest"
)

// TestNoNodeIsSetAsideForAFullJob has a node set aside for a large task, of whose
// job another task begins on the other node, the last that it may run at once:
// what waits behind has the slot then, and does not wait for a look around.
func TestNoNodeIsSetAsideForAFullJob(t *testing.T) {
	t.Parallel()
	url := storetest.SQLite(t)
	synctest.Test(t, func(t *testing.T) {
		y := newYard(t, url)
		y.loops()
		y.prepare(2, 3)
		y.wanted(2)
		var d diary
		y.robots(3, d.work(map[batch.TaskID]time.Duration{
			"long-000": time.Hour, "long-001": time.Hour, "half-000": 41 * time.Second,
			"rest-000": time.Hour, "rest-001": 55 * time.Second, "second-000": time.Hour,
		}))
		limited := jobSpec("limited")
		limited.MaxParallelTasks = new(1)
		_, err := y.AddJob(ctx(t), acct, limited)
		y.check(err)
		y.addTasks("job", "long", 2)
		y.addTasks("job", "half", 1, need(2))
		y.addTasks("job", "rest", 2)
		synctest.Wait()
		began := time.Now()
		y.addTasks("limited", "large", 1, need(3))
		y.addTasks("limited", "second", 1)
		y.addTasks("job", "small", 1)
		time.Sleep(54 * time.Second)
		if at := d.begun("small-000"); !at.IsZero() {
			t.Fatalf("the slot of the large task was given to a small one after %v", at.Sub(began))
		}
		time.Sleep(time.Minute)
		d.mu.Lock()
		second := d.at["limited/second-000"]
		d.mu.Unlock()
		if at := d.begun("small-000"); second.IsZero() || !at.Equal(second) {
			t.Errorf("the small task began after %v, want %v: when the job of the large one was full", at.Sub(began), second.Sub(began))
		}
	})
}
