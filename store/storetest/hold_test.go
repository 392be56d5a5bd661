package storetest_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/batchyard/batchyard/store"
	"github.com/batchyard/batchyard/store/storetest"
)

// hook is a log that does something when it is written to.
type hook struct {
	slog.Handler
	do func()
}

func (h hook) Enabled(context.Context, slog.Level) bool { return true }
func (h hook) Handle(_ context.Context, r slog.Record) error {
	if r.Level == slog.LevelWarn {
		h.do()
	}
	return nil
}

// TestHeldTasks holds tasks back and waits, as the first server after a restore does.
func TestHeldTasks(t *testing.T) {
	t.Parallel()
	storetest.Each(t, func(t *testing.T, url string) {
		began := func() {}
		db := storetest.Open(t, store.Options{URL: url, Log: slog.New(hook{slog.DiscardHandler, func() { began() }})})
		hold := func() { update(t, db, (*store.Tx).HoldTasks) }
		held := func() bool {
			t.Helper()
			return view(t, db, func(tx *store.Tx) (bool, error) {
				_, held, err := tx.TasksHeld()
				return held, err
			})
		}
		await := func(ctx context.Context, wait time.Duration) time.Duration {
			t.Helper()
			from := time.Now()
			if err := db.AwaitTasks(ctx, wait); err != nil {
				t.Fatal(err)
			}
			return time.Since(from)
		}
		if await(t.Context(), time.Hour); held() {
			t.Error("tasks are held from the beginning")
		}
		hold()
		if took := await(t.Context(), 50*time.Millisecond); took < 50*time.Millisecond || held() {
			t.Errorf("after %v of 50 ms tasks are held: %v", took, held())
		}
		hold()
		stopped, stop := context.WithCancel(t.Context())
		began = stop
		if await(stopped, time.Hour); !held() {
			t.Error("a server that stopped as it waited has let tasks go")
		}
		began = hold
		if await(t.Context(), 10*time.Millisecond); !held() {
			t.Error("that tasks were held once more meanwhile was not heeded")
		}
		began = func() {}
		if await(t.Context(), 10*time.Millisecond); held() {
			t.Error("tasks are held for ever")
		}
	})
}
