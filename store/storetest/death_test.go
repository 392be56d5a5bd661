package storetest_test

import (
	"testing"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/store"
	"github.com/batchyard/batchyard/store/storetest"
)

func TestDeaths(t *testing.T) {
	t.Parallel()
	storetest.EachOpen(t, func(t *testing.T, db *store.DB) {
		die := func(task batch.TaskID, attempt int, node batch.NodeID, crashed bool, want store.Deaths) {
			t.Helper()
			var got store.Deaths
			update(t, db, func(tx *store.Tx) (err error) {
				dead := batch.Task{Account: "acct", Job: "Job", Sequence: 100, Attempt: attempt, Node: node}
				dead.ID = task
				got, err = tx.AddDeath(&dead, crashed)
				return err
			})
			diff(t, want, got)
		}
		die("Task", 90, "old", true, store.Deaths{}) // of an earlier task of this id
		die("Task", 101, "one", true, store.Deaths{Nodes: 1, Crashes: 1})
		die("TASK", 101, "one", true, store.Deaths{Nodes: 1, Crashes: 1})
		die("Task", 102, "one", false, store.Deaths{Nodes: 1, Crashes: 1})
		die("Task", 103, "two", true, store.Deaths{Nodes: 2, Crashes: 2})
		die("Other", 104, "two", false, store.Deaths{Nodes: 1})
		update(t, db, func(tx *store.Tx) error { return tx.ForgetDeaths("acct", "job", "task") })
		die("Task", 105, "one", false, store.Deaths{Nodes: 1})
		die("Other", 106, "one", false, store.Deaths{Nodes: 2})
		update(t, db, func(tx *store.Tx) error { return tx.ForgetDeaths("acct", "job", "") })
		die("Other", 107, "one", true, store.Deaths{Nodes: 1, Crashes: 1})
	})
}
