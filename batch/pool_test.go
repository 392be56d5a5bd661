package batch_test

import (
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/batchyard/batchyard/batch"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// TestRandomVerbsKeepAPoolSound: what is refused changes nothing, states move as they may, each
// change has its time, and a resize that runs has an end.
func TestRandomVerbsKeepAPoolSound(t *testing.T) {
	t.Parallel()
	moves := map[batch.AllocationState][]batch.AllocationState{
		batch.AllocationSteady:   {batch.AllocationSteady, batch.AllocationResizing},
		batch.AllocationResizing: {batch.AllocationResizing, batch.AllocationSteady, batch.AllocationStopping},
		batch.AllocationStopping: {batch.AllocationStopping, batch.AllocationSteady, batch.AllocationResizing}, // the last to be deleted
	}
	verbs := map[string]func(*batch.Pool, *rapid.T, time.Time) error{
		"resize": func(p *batch.Pool, r *rapid.T, now time.Time) error {
			target := rapid.IntRange(-1, 5).Draw(r, "target")
			return p.Resize(batch.PoolResize{TargetDedicatedNodes: &target}, now)
		},
		"remove": func(p *batch.Pool, r *rapid.T, now time.Time) error {
			listed := rapid.IntRange(0, 2).Draw(r, "listed")
			return p.RemoveNodes(&batch.NodeRemoval{NodeList: make([]batch.NodeID, listed)}, listed, 0, now)
		},
		"stop":   func(p *batch.Pool, _ *rapid.T, now time.Time) error { return p.StopResize(now) },
		"settle": func(p *batch.Pool, _ *rapid.T, now time.Time) error { p.Settle(nil, now); return nil },
		"delete": func(p *batch.Pool, _ *rapid.T, now time.Time) error { return p.Delete(now) },
	}
	names := slices.Sorted(maps.Keys(verbs))
	rapid.Check(t, func(r *rapid.T) {
		spec := batch.PoolSpecification{
			ID: "pool", VMSize: "custom_2c_2g", TargetDedicatedNodes: rapid.IntRange(0, 2).Draw(r, "nodes"),
			VirtualMachineConfiguration: &batch.VirtualMachineConfiguration{
				NodeAgentSKUID: "batch.node.debian 12", ImageReference: batch.ImageReference{Publisher: "debian", Offer: "debian-12"},
			},
		}
		must(t, spec.Normalize())
		now := start
		pool := batch.NewPool("account", spec, now)
		for range rapid.IntRange(1, 20).Draw(r, "verbs") {
			before := pool
			now = now.Add(time.Minute)
			name := rapid.SampledFrom(names).Draw(r, "verb")
			if err := verbs[name](&pool, r, now); err != nil {
				if diff := cmp.Diff(before, pool); diff != "" {
					r.Fatalf("%s was refused (%v) and changed the pool:\n%s", name, err, diff)
				}
				continue
			}
			moved := pool.AllocationState != before.AllocationState
			switch {
			case !slices.Contains(moves[before.AllocationState], pool.AllocationState):
				r.Fatalf("%s moved the pool from %s to %s", name, before.AllocationState, pool.AllocationState)
			case moved && !pool.AllocationStateTransitionTime.Equal(now):
				r.Fatalf("%s moved the pool to %s at %v, which says %v", name, pool.AllocationState, now, pool.AllocationStateTransitionTime)
			case moved && pool.Stamp <= before.Stamp:
				r.Fatalf("%s moved the pool and left its stamp at %v", name, pool.Stamp)
			case moved && pool.AllocationState == batch.AllocationResizing && !pool.ResizeDeadline.After(now):
				r.Fatalf("%s began a resize at %v that ends at %v", name, now, pool.ResizeDeadline)
			case before.State == batch.PoolDeleting && pool.State != batch.PoolDeleting:
				r.Fatalf("%s brought a deleted pool back", name)
			case pool.TargetDedicatedNodes < 0:
				r.Fatalf("%s set a target of %d", name, pool.TargetDedicatedNodes)
			}
		}
	})
}
