package upkeep_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/control"
	"github.com/batchyard/batchyard/upkeep"
)

func TestStep(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	pool := func(dedicated, low int, change ...func(*batch.Pool)) batch.Pool {
		p := batch.Pool{
			PoolSpecification: batch.PoolSpecification{ID: "pool", TargetDedicatedNodes: dedicated, TargetLowPriorityNodes: low},
			State:             batch.PoolActive, AllocationState: batch.AllocationResizing, ResizeDeadline: now.Add(time.Minute),
		}
		for _, c := range change {
			c(&p)
		}
		return p
	}
	var count int
	node := func(state batch.NodeState, bound int, change ...func(*batch.Node)) batch.Node {
		count++
		n := batch.Node{
			ID: batch.NodeID(fmt.Sprintf("%s-%d", state, bound)), State: state, BoundTasks: bound, Dedicated: true,
			AllocationTime: now.Add(-time.Duration(count) * time.Second),
		}
		for _, c := range change {
			c(&n)
		}
		return n
	}
	leaving := func(n *batch.Node) { n.Leaving = batch.DeallocateRequeue }
	low := func(n *batch.Node) { n.Dedicated = false }
	late := func(p *batch.Pool) { p.ResizeDeadline = now }
	stopping := func(p *batch.Pool) { p.AllocationState = batch.AllocationStopping }
	deleting := func(p *batch.Pool) { p.State = batch.PoolDeleting }

	for name, c := range map[string]struct {
		pool  batch.Pool
		nodes []batch.Node
		want  control.PoolStep
	}{
		"nodes that are missing are made": {
			pool(3, 2), []batch.Node{node(batch.NodeIdle, 0)}, control.PoolStep{AddDedicated: 2, AddLowPriority: 2},
		},
		"not all of very many at once":                {pool(400, 10), nil, control.PoolStep{AddDedicated: 250}},
		"nodes that were not heard of are waited for": {pool(1, 0), []batch.Node{node(batch.NodeCreating, 0)}, control.PoolStep{}},
		"a target that is reached ends it": {
			pool(1, 1), []batch.Node{node(batch.NodeStarting, 0), node(batch.NodeIdle, 0, low)}, control.PoolStep{Settle: true},
		},
		"of no use goes first, then idle, then the least busy": {
			pool(1, 0),
			[]batch.Node{node(batch.NodeRunning, 3), node(batch.NodeRunning, 1), node(batch.NodeIdle, 0), node(batch.NodeUnknown, 0)},
			control.PoolStep{Leave: []batch.NodeID{"unknown-0", "idle-0", "running-1"}},
		},
		"of equals the newest goes": {
			pool(1, 0),
			[]batch.Node{node(batch.NodeIdle, 0), node(batch.NodeIdle, 0, func(n *batch.Node) { n.ID = "older" })},
			control.PoolStep{Leave: []batch.NodeID{"idle-0"}},
		},
		"nodes that leave are waited for": {
			pool(0, 0), []batch.Node{node(batch.NodeRunning, 1, leaving)}, control.PoolStep{},
		},
		"kinds are counted apart": {
			pool(0, 1), []batch.Node{node(batch.NodeIdle, 0)}, control.PoolStep{AddLowPriority: 1, Leave: []batch.NodeID{"idle-0"}},
		},
		"a timeout gives up nodes that did not come": {
			pool(2, 0, late), []batch.Node{node(batch.NodeCreating, 0), node(batch.NodeIdle, 0)},
			control.PoolStep{Leave: []batch.NodeID{"creating-0"}, Settle: true, Errors: []batch.ResizeError{
				{Code: batch.ResizeTimedOut, Message: "The pool did not reach its target within its resize timeout."},
			}},
		},
		"a stop leaves it where it stands": {
			pool(9, 0, stopping), []batch.Node{node(batch.NodeIdle, 0)},
			control.PoolStep{Settle: true, Errors: []batch.ResizeError{{Code: batch.ResizeStopped, Message: "The resize was stopped by a user."}}},
		},
		"a pool to be deleted loses all nodes": {
			pool(0, 0, deleting, late), []batch.Node{node(batch.NodeRunning, 2), node(batch.NodeIdle, 0, leaving)},
			control.PoolStep{Leave: []batch.NodeID{"running-2"}},
		},
		"also those that wait for files": {
			pool(0, 0, deleting, late), []batch.Node{node(batch.NodeLeavingPool, 0, func(n *batch.Node) { n.Leaving = batch.DeallocateRetainedData })},
			control.PoolStep{Leave: []batch.NodeID{"leavingpool-0"}},
		},
		"and is gone without any": {pool(0, 0, deleting, late), nil, control.PoolStep{Delete: true}},
		"a steady pool stays": {
			pool(5, 0, func(p *batch.Pool) { p.AllocationState = batch.AllocationSteady }), nil, control.PoolStep{},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(c.want, upkeep.Step(&c.pool, c.nodes, now)); diff != "" {
				t.Error(diff)
			}
		})
	}
}
