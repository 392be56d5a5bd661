package control_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/store/storetest"
)

func TestResizing(t *testing.T) {
	t.Parallel()
	url := storetest.SQLite(t)
	synctest.Test(t, func(t *testing.T) {
		y := newYard(t, url)
		y.loops()
		y.prepare(4, 1)
		y.wanted(4)
		y.robots(1, seconds(60))
		y.addTasks("job", "t", 2)
		time.Sleep(time.Second)
		pool := func() batch.Pool {
			p, err := y.Pool(ctx(t), acct, "pool")
			y.check(err)
			return p
		}
		resize := func(n int) error {
			_, err := y.ResizePool(ctx(t), acct, "pool", batch.PoolResize{TargetDedicatedNodes: &n}, batch.Conditions{})
			return err
		}
		y.check(resize(2))
		time.Sleep(time.Second)
		if p := pool(); p.AllocationState != batch.AllocationSteady || p.CurrentDedicatedNodes != 2 {
			t.Errorf("shrunk pool is %s with %d nodes", p.AllocationState, p.CurrentDedicatedNodes)
		}
		if counts := y.job("job").Counts; counts.Running != 2 {
			t.Errorf("nodes with tasks went before idle ones: %+v", counts)
		}
		y.check(resize(5))
		y.refused(resize(6), batch.CodePoolBeingResized)
		time.Sleep(16 * time.Minute) // nobody makes the new nodes
		p := pool()
		if p.AllocationState != batch.AllocationSteady || p.CurrentDedicatedNodes != 2 || len(p.ResizeErrors) != 1 || p.ResizeErrors[0].Code != batch.ResizeTimedOut {
			t.Errorf("after its timeout the pool is %s with %d nodes, %+v", p.AllocationState, p.CurrentDedicatedNodes, p.ResizeErrors)
		}
		y.check(resize(5))
		time.Sleep(time.Second)
		_, err := y.StopResize(ctx(t), acct, "pool", batch.Conditions{})
		y.check(err)
		time.Sleep(time.Second)
		if p := pool(); p.AllocationState != batch.AllocationSteady || p.ResizeErrors[0].Code != batch.ResizeStopped {
			t.Errorf("stopped pool is %s, %+v", p.AllocationState, p.ResizeErrors)
		}
	})
}
