package storetest_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/store"
	"github.com/batchyard/batchyard/store/storetest"
)

func TestPools(t *testing.T) {
	t.Parallel()
	storetest.EachOpen(t, func(t *testing.T, db *store.DB) {
		p := newPool(t, "acct", "MyPool")
		update(t, db, func(tx *store.Tx) error { return tx.InsertPool(&p) })
		get := func(tx *store.Tx) (batch.Pool, error) { return tx.Pool("acct", "mYpOOL") }
		diff(t, p, view(t, db, get))

		t.Run("key is taken once in an account", func(t *testing.T) {
			twin := newPool(t, "acct", "mypool")
			if err := db.Update(t.Context(), func(tx *store.Tx) error { return tx.InsertPool(&twin) }); !store.IsDuplicate(err) {
				t.Errorf("got error %v", err)
			}
			other := newPool(t, "other", "mypool")
			update(t, db, func(tx *store.Tx) error { return tx.InsertPool(&other) })
		})

		t.Run("update keeps everything", func(t *testing.T) {
			p.CurrentDedicatedNodes, p.CurrentLowPriorityNodes = 2, 1
			p.Settle([]batch.ResizeError{{Code: batch.ResizeStopped, Message: "m", Values: []batch.NameValue{{Name: "n", Value: "v"}}}}, noon.Add(time.Second))
			p.Metadata = nil
			update(t, db, func(tx *store.Tx) error { return tx.UpdatePool(&p) })
			diff(t, p, view(t, db, get))
		})

		t.Run("only those in motion are resizing", func(t *testing.T) {
			steady := view(t, db, (*store.Tx).ResizingPools)
			if len(steady) != 1 || steady[0].Account != "other" {
				t.Errorf("got %d pools", len(steady))
			}
			if err := p.Delete(noon); err != nil {
				t.Fatal(err)
			}
			update(t, db, func(tx *store.Tx) error { return tx.UpdatePool(&p) })
			if got := view(t, db, (*store.Tx).ResizingPools); len(got) != 2 {
				t.Errorf("got %d pools", len(got))
			}
			diff(t, []store.PoolRef{{Account: "other", Pool: "mypool"}}, view(t, db, (*store.Tx).ActivePools))
		})

		t.Run("deleted pool is gone", func(t *testing.T) {
			update(t, db, func(tx *store.Tx) error { return tx.DeletePool("acct", "MYPOOL") })
			err := db.View(t.Context(), func(tx *store.Tx) error {
				_, err := get(tx)
				return err
			})
			if !errors.Is(err, store.ErrNotFound) {
				t.Errorf("got error %v", err)
			}
			if err := db.Update(t.Context(), func(tx *store.Tx) error { return tx.UpdatePool(&p) }); !errors.Is(err, store.ErrNotFound) {
				t.Errorf("update: got error %v", err)
			}
		})
	})
}

func TestListsAreFilteredAndPaged(t *testing.T) {
	t.Parallel()
	storetest.EachOpen(t, func(t *testing.T, db *store.DB) {
		update(t, db, func(tx *store.Tx) error {
			for i := range 25 {
				p := newPool(t, "acct", batch.PoolID(fmt.Sprintf("P%02d", i)))
				p.DisplayName = fmt.Sprint("name ", i%2)
				if err := tx.InsertPool(&p); err != nil {
					return err
				}
			}
			return nil
		})
		list := store.List{Max: 5, Where: func(first int) (string, []any) {
			return fmt.Sprintf("display_name = $%d OR id = $%d", first, first+1), []any{"name 1", "p04"}
		}}
		var got []batch.PoolID
		for {
			page := view(t, db, func(tx *store.Tx) ([]batch.Pool, error) { return tx.Pools("acct", list) })
			for _, p := range page {
				got = append(got, p.ID)
			}
			if len(page) < list.Max {
				break
			}
			list.After = batch.Key(page[len(page)-1].ID)
		}
		diff(t, []batch.PoolID{"P01", "P03", "P04", "P05", "P07", "P09", "P11", "P13", "P15", "P17", "P19", "P21", "P23"}, got)
	})
}

func TestStatesAreChecked(t *testing.T) {
	t.Parallel()
	storetest.EachOpen(t, func(t *testing.T, db *store.DB) {
		y := newYard(t, db, 1)
		try := func(fn func(tx *store.Tx) error) error { return db.Update(t.Context(), fn) }
		for _, state := range append([]batch.NodeState{"bogus"}, batch.NodeStates...) {
			n := y.nodes[0]
			n.State = state
			if err := try(func(tx *store.Tx) error { return tx.UpdateNode(&n) }); (err != nil) != (state == "bogus") {
				t.Errorf("node %s: got error %v", state, err)
			}
		}
		for _, state := range []batch.JobState{"bogus", batch.JobActive, batch.JobDisabling, batch.JobDisabled, batch.JobEnabling,
			batch.JobTerminating, batch.JobCompleted, batch.JobDeleting} {
			j := y.job
			j.State = state
			if err := try(func(tx *store.Tx) error { return tx.UpdateJob(&j) }); (err != nil) != (state == "bogus") {
				t.Errorf("job %s: got error %v", state, err)
			}
		}
		for _, state := range []batch.TaskState{"bogus", batch.TaskActive, batch.TaskPreparing, batch.TaskRunning, batch.TaskCompleted} {
			task := y.tasks[0]
			task.State = state
			if err := try(func(tx *store.Tx) error { return tx.UpdateTask(&task) }); (err != nil) != (state == "bogus") {
				t.Errorf("task %s: got error %v", state, err)
			}
		}
		for _, state := range []batch.AllocationState{"bogus", batch.AllocationSteady, batch.AllocationResizing, batch.AllocationStopping} {
			p := y.pool
			p.AllocationState = state
			if err := try(func(tx *store.Tx) error { return tx.UpdatePool(&p) }); (err != nil) != (state == "bogus") {
				t.Errorf("pool %s: got error %v", state, err)
			}
		}
	})
}
