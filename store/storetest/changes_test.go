package storetest_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

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

func TestWatchHearsOtherServers(t *testing.T) {
	t.Parallel()
	url := storetest.PostgreSQL(t)
	here := storetest.Open(t, store.Options{URL: url})
	there := storetest.Open(t, store.Options{URL: url})
	w, silent := here.Watch("node/o'brien"), here.Watch("else")
	defer w.Close()
	defer silent.Close()
	update(t, there, func(tx *store.Tx) error {
		for range 2000 {
			tx.Changed("a topic of some length to fill more than one notification")
			tx.Changed("topic " + tx.Now().String())
		}
		tx.Changed("node/o'brien")
		return nil
	})
	<-w.C
	if woken(silent) {
		t.Error("a topic that did not change was announced")
	}
}

func TestLease(t *testing.T) {
	t.Parallel()

	t.Run("with SQLite it is always ours", func(t *testing.T) {
		t.Parallel()
		db := storetest.Open(t, store.Options{URL: storetest.SQLite(t)})
		lease := db.Lease("scheduler", time.Minute)
		want := errors.New("end of loop")
		err := lease.Run(t.Context(), func(context.Context) error {
			update(t, db, lease.Guard)
			return want
		})
		if !errors.Is(err, want) {
			t.Errorf("got error %v", err)
		}
	})

	t.Run("one server at a time, and the next when it ends", func(t *testing.T) {
		t.Parallel()
		url := storetest.PostgreSQL(t)
		var inside, turns atomic.Int32
		done := make(chan error, 3)
		for range 3 {
			db := storetest.Open(t, store.Options{URL: url})
			go func() {
				lease := db.Lease("scheduler", time.Minute) // too long to wait for
				done <- lease.Run(t.Context(), func(ctx context.Context) error {
					if inside.Add(1) != 1 {
						return errors.New("two hold the lease")
					}
					defer inside.Add(-1)
					turns.Add(1)
					return db.Update(ctx, lease.Guard)
				})
			}()
		}
		for range 3 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if turns.Load() != 3 {
			t.Errorf("got %d turns", turns.Load())
		}
	})

	t.Run("dead holder is followed, and its updates are refused", func(t *testing.T) {
		t.Parallel()
		url := storetest.PostgreSQL(t)
		first := storetest.Open(t, store.Options{URL: url})
		second := storetest.Open(t, store.Options{URL: url})
		const length = 300 * time.Millisecond
		held, lost := make(chan struct{}), make(chan struct{})
		old := first.Lease("scheduler", length)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		ended := make(chan error, 1)
		go func() {
			ended <- old.Run(ctx, func(inner context.Context) error {
				select {
				case <-held: // a second turn: only ctx ends it
					<-inner.Done()
					return nil
				default:
				}
				close(held)
				<-inner.Done()
				close(lost)
				return nil
			})
		}()
		<-held
		// Death as the others see it: the row no longer moves, because someone
		// else's name is in it and nobody renews that.
		update(t, second, func(tx *store.Tx) error {
			_, err := tx.Exec(`UPDATE lease SET holder = 'dead'`)
			return err
		})
		<-lost
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if err := first.Update(t.Context(), old.Guard); !errors.Is(err, store.ErrLeaseLost) {
			t.Errorf("guard: got error %v", err)
		}
		next := second.Lease("scheduler", length)
		start := time.Now()
		err := next.Run(t.Context(), func(ctx context.Context) error {
			if waited := time.Since(start); waited < length {
				t.Errorf("took over after %v", waited)
			}
			return second.Update(ctx, next.Guard)
		})
		if err != nil {
			t.Error(err)
		}
	})
}
