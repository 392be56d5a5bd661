package storetest_test

import (
	"errors"
	"testing"

	"github.com/batchyard/batchyard/store"
	"github.com/batchyard/batchyard/store/storetest"
)

func woken(w *store.Watch) bool {
	select {
	case <-w.C:
		return true
	default:
		return false
	}
}

func TestWatch(t *testing.T) {
	t.Parallel()
	storetest.EachOpen(t, func(t *testing.T, db *store.DB) {
		change := func(topics ...string) {
			t.Helper()
			update(t, db, func(tx *store.Tx) error {
				tx.Changed(topics...)
				return nil
			})
		}
		t.Run("wakes who watches one of the topics", func(t *testing.T) {
			one, both, other := db.Watch("job/a/1"), db.Watch("job/a/1", "ready"), db.Watch("job/a/10")
			defer one.Close()
			defer both.Close()
			defer other.Close()
			change("job/a/1")
			if !woken(one) || !woken(both) || woken(other) {
				t.Error("the wrong ones were woken")
			}
			change("ready", "nothing")
			if woken(one) || !woken(both) || woken(other) {
				t.Error("the wrong ones were woken the second time")
			}
		})
		t.Run("merges wake-ups", func(t *testing.T) {
			w := db.Watch("ready")
			defer w.Close()
			for range 5 {
				change("ready", "ready")
			}
			if !woken(w) || woken(w) {
				t.Error("got not exactly one wake-up")
			}
		})
		t.Run("is silent after a failed update and after close", func(t *testing.T) {
			w := db.Watch("ready")
			defer w.Close()
			failed := errors.New("failed")
			err := db.Update(t.Context(), func(tx *store.Tx) error {
				tx.Changed("ready")
				return failed
			})
			if !errors.Is(err, failed) || woken(w) {
				t.Errorf("got error %v, or a wake-up", err)
			}
			w.Close()
			change("ready")
			if woken(w) {
				t.Error("woken after close")
			}
		})
	})
}
