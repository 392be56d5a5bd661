package gate_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/batchyard/batchyard/gate"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
)

func TestClass(t *testing.T) {
	t.Parallel()

	t.Run("a request beyond places and line is refused at once", func(t *testing.T) {
		t.Parallel()
		c := gate.New(gate.Options{Places: 1})
		if err := c.Enter(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		if !c.Full() {
			t.Error("a class without a free place and without a line is not full")
		}
		if err := c.Enter(t.Context(), "b"); !errors.Is(err, gate.ErrBusy) {
			t.Errorf("got %v, want busy", err)
		}
		c.Leave()
		if err := c.Enter(t.Context(), "b"); err != nil {
			t.Errorf("after the place is free: %v", err)
		}
		if diff := cmp.Diff(c.State(), gate.State{Running: 1, Refused: 1}); diff != "" {
			t.Errorf("state (-got +want):\n%s", diff)
		}
	})

	t.Run("one that waits gives up after its patience, or with its context", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			c := gate.New(gate.Options{Places: 1, Line: 4, Patience: time.Second})
			if err := c.Enter(t.Context(), "a"); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			if err := c.Enter(t.Context(), "a"); !errors.Is(err, gate.ErrBusy) || time.Since(began) != time.Second {
				t.Errorf("got %v after %s", err, time.Since(began))
			}
			hasty, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			defer cancel()
			if err := c.Enter(hasty, "a"); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v", err)
			}
			if diff := cmp.Diff(c.State(), gate.State{Running: 1, Queued: 2, Refused: 2}); diff != "" {
				t.Errorf("state (-got +want):\n%s", diff)
			}
		})
	})

	t.Run("callers take turns, and one cannot fill the line", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			c := gate.New(gate.Options{Places: 1, Line: 8, Patience: time.Hour})
			if err := c.Enter(t.Context(), "greedy"); err != nil {
				t.Fatal(err)
			}
			var order []string
			var mu sync.Mutex
			var group sync.WaitGroup
			enter := func(who string) {
				group.Go(func() {
					if err := c.Enter(t.Context(), who); err != nil {
						who += " refused"
					}
					mu.Lock()
					order = append(order, who)
					mu.Unlock()
				})
				synctest.Wait()
			}
			for range 7 {
				enter("greedy")
			}
			enter("modest")
			for range 7 {
				c.Leave()
				synctest.Wait()
			}
			group.Wait()
			want := []string{"greedy refused", "greedy", "modest", "greedy", "greedy", "greedy", "greedy", "greedy"}
			if diff := cmp.Diff(order, want); diff != "" {
				t.Errorf("order (-got +want):\n%s", diff)
			}
		})
	})

	t.Run("whatever happens, no more than the places run and none is lost", func(t *testing.T) {
		t.Parallel()
		seed := rand.Uint64()
		t.Logf("seed %d", seed)
		c := gate.New(gate.Options{Places: 3, Line: 10, Patience: 50 * time.Microsecond})
		var running, most atomic.Int64
		var group sync.WaitGroup
		for i := range 32 {
			random := rand.New(rand.NewPCG(seed, uint64(i)))
			group.Go(func() {
				for range 300 {
					ctx, cancel := context.WithTimeout(t.Context(), time.Duration(random.IntN(100))*time.Microsecond)
					if c.Enter(ctx, fmt.Sprint(random.IntN(4))) == nil {
						if n := running.Add(1); n > most.Load() {
							most.Store(n)
						}
						for range random.IntN(1000) {
							_ = ctx.Err()
						}
						running.Add(-1)
						c.Leave()
					}
					cancel()
				}
			})
		}
		group.Wait()
		if most.Load() > 3 {
			t.Errorf("%d ran at a time, want at most 3", most.Load())
		}
		s := c.State()
		if s.Running != 0 || s.Waiting != 0 {
			t.Errorf("at the end %d run and %d wait", s.Running, s.Waiting)
		}
	})
}

func TestBudget(t *testing.T) {
	t.Parallel()
	b := gate.NewBudget(100)
	if !b.Take(60) || b.Take(41) || !b.Take(40) {
		t.Error("a budget of 100 gives 60, then not 41, then 40")
	}
	b.Give(40)
	if got := b.Used(); got != 60 {
		t.Errorf("%d bytes are taken, want 60", got)
	}
	var none *gate.Budget
	if !none.Take(1 << 40) {
		t.Error("no budget refuses")
	}
	none.Give(1 << 40)
}

func TestMetricsOfSeveralClassesGoTogether(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(gate.New(gate.Options{Name: "a"}), gate.New(gate.Options{Name: "b"}), gate.NewBudget(1))
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	if len(families) != 8 {
		t.Errorf("%d metrics, want 5 of classes and 3 of the budget", len(families))
	}
}
