package upkeep_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/control"
	"github.com/batchyard/batchyard/upkeep"
)

// yard is a pool and its nodes while time goes in steps and things happen to
// them. What Step decides is done to them.
type yard struct {
	*rapid.T
	pool  batch.Pool
	nodes []batch.Node
	made  int
	now   time.Time
	gone  bool
}

func newYard(t *rapid.T) *yard {
	y := &yard{T: t, now: time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)}
	spec := batch.PoolSpecification{
		ID: "pool", VMSize: "custom_4c_4g", TargetDedicatedNodes: rapid.IntRange(0, 4).Draw(t, "dedicated"),
		TargetLowPriorityNodes: rapid.IntRange(0, 3).Draw(t, "low"),
		VirtualMachineConfiguration: &batch.VirtualMachineConfiguration{
			NodeAgentSKUID: "batch.node.debian 12", ImageReference: batch.ImageReference{Publisher: "debian", Offer: "debian-12"},
		},
	}
	if err := spec.Normalize(); err != nil {
		t.Fatal(err)
	}
	y.pool = batch.NewPool("acct", spec, y.now)
	return y
}

// happen is anything that users, nodes and time do.
func (y *yard) happen() {
	y.now = y.now.Add(time.Duration(rapid.IntRange(0, 400).Draw(y.T, "seconds")) * time.Second)
	target := func(name string) *int { return new(rapid.IntRange(0, 5).Draw(y.T, name)) }
	switch rapid.IntRange(0, 9).Draw(y.T, "what") {
	case 0:
		_ = y.pool.Resize(batch.PoolResize{TargetDedicatedNodes: target("dedicated"), TargetLowPriorityNodes: target("low")}, y.now)
	case 1:
		_ = y.pool.StopResize(y.now)
	case 2:
		if rapid.IntRange(0, 5).Draw(y.T, "rarely") == 0 {
			_ = y.pool.Delete(y.now)
		}
	default:
		if len(y.nodes) == 0 {
			return
		}
		n := &y.nodes[rapid.IntRange(0, len(y.nodes)-1).Draw(y.T, "node")]
		n.State = rapid.SampledFrom([]batch.NodeState{
			batch.NodeCreating, batch.NodeIdle, batch.NodeRunning, batch.NodeUnknown, batch.NodeStartTaskFailed, batch.NodeRebooting,
		}).Draw(y.T, "state")
		n.BoundTasks = rapid.IntRange(0, 2).Draw(y.T, "tasks")
	}
}

// staying counts the nodes of a kind that are not asked to leave.
func (y *yard) staying(dedicated bool) (n int) {
	for i := range y.nodes {
		if y.nodes[i].Dedicated == dedicated && y.nodes[i].Leaving == "" {
			n++
		}
	}
	return n
}

// step does what Step decides, after it has held that against the rules, and
// tells whether that was anything.
func (y *yard) step() bool {
	s := upkeep.Step(&y.pool, y.nodes, y.now)
	y.check(s)
	if s.Delete {
		y.gone = true
		return true
	}
	for i := range s.AddDedicated + s.AddLowPriority {
		y.made++
		y.nodes = append(y.nodes, batch.Node{
			ID: batch.NodeID(fmt.Sprintf("n%03d", y.made)), State: batch.NodeCreating, Dedicated: i < s.AddDedicated, AllocationTime: y.now,
		})
	}
	for i := range y.nodes {
		if slices.Contains(s.Leave, y.nodes[i].ID) {
			y.nodes[i].Leaving = batch.DeallocateRequeue
		}
	}
	if s.Settle {
		y.pool.Settle(s.Errors, y.now)
	}
	return s.AddDedicated+s.AddLowPriority+len(s.Leave) > 0 || s.Settle
}

// check holds a decision against the rules of a resize.
func (y *yard) check(s control.PoolStep) {
	dedicated, low := y.staying(true), y.staying(false)
	leaves := map[bool]int{}
	for _, id := range s.Leave {
		at := slices.IndexFunc(y.nodes, func(n batch.Node) bool { return n.ID == id })
		if at < 0 || y.nodes[at].Leaving != "" {
			y.Fatalf("%s is asked to leave, which it does or has done", id)
		}
		leaves[y.nodes[at].Dedicated]++
	}
	moving, deleting := y.pool.AllocationState != batch.AllocationSteady, y.pool.State == batch.PoolDeleting
	onTarget := dedicated == y.pool.TargetDedicatedNodes && low == y.pool.TargetLowPriorityNodes
	leaving := len(y.nodes) - dedicated - low
	for _, rule := range []struct {
		holds bool
		says  string
	}{
		{!s.Delete || deleting && len(y.nodes) == 0, "a pool is gone only when asked for and empty"},
		{moving || deleting || !s.Settle && len(s.Leave)+s.AddDedicated+s.AddLowPriority == 0, "a steady pool is left alone"},
		{s.AddDedicated == 0 || dedicated+s.AddDedicated <= y.pool.TargetDedicatedNodes, "no more dedicated nodes are made than wanted"},
		{s.AddLowPriority == 0 || low+s.AddLowPriority <= y.pool.TargetLowPriorityNodes, "no more low-priority nodes are made than wanted"},
		{!deleting || s.AddDedicated+s.AddLowPriority == 0, "a pool that goes gets no nodes"},
		{s.AddDedicated == 0 || leaves[true] == 0, "none is made while one of its kind is sent away"},
		{s.Settle || deleting || leaves[true] <= max(0, dedicated-y.pool.TargetDedicatedNodes), "no more dedicated nodes leave than are too many"},
		{s.Settle || deleting || leaves[false] <= max(0, low-y.pool.TargetLowPriorityNodes), "no more low-priority nodes leave than are too many"},
		{!s.Settle || len(s.Errors) > 0 || onTarget && leaving == 0, "a resize that ends short of its target says why"},
		{len(s.Errors) == 0 || s.Settle, "an error ends a resize"},
	} {
		if !rule.holds {
			y.Fatalf("it does not hold that %s: %+v of %d dedicated and %d low-priority nodes, target %d and %d, %s, %s",
				rule.says, s, dedicated, low, y.pool.TargetDedicatedNodes, y.pool.TargetLowPriorityNodes, y.pool.AllocationState, y.pool.State)
		}
	}
}

// TestStepKeepsItsRules has users and nodes do anything in between steps. Once
// they are quiet, nodes come up and leave as they are asked to, and the pool
// arrives: at its target, or gone.
func TestStepKeepsItsRules(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		y := newYard(t)
		for range rapid.IntRange(0, 30).Draw(t, "events") {
			y.happen()
			if y.step(); y.gone {
				return
			}
		}
		y.pool.ResizeDeadline = y.now.Add(time.Hour)
		stopped := y.pool.AllocationState == batch.AllocationStopping
		resized := y.pool.AllocationState == batch.AllocationResizing && !stopped
		for range 10 {
			y.nodes = slices.DeleteFunc(y.nodes, func(n batch.Node) bool { return n.Leaving != "" })
			for i := range y.nodes {
				y.nodes[i].State = batch.NodeIdle
			}
			y.step()
		}
		switch {
		case y.pool.State == batch.PoolDeleting:
			if !y.gone {
				t.Fatalf("the pool to be deleted is there with %d nodes", len(y.nodes))
			}
		case y.pool.AllocationState != batch.AllocationSteady:
			t.Fatalf("the pool is %s with %d nodes after all is quiet", y.pool.AllocationState, len(y.nodes))
		case resized && (y.staying(true) != y.pool.TargetDedicatedNodes || y.staying(false) != y.pool.TargetLowPriorityNodes):
			t.Fatalf("the pool has %d and %d nodes, wanted are %d and %d", y.staying(true), y.staying(false), y.pool.TargetDedicatedNodes, y.pool.TargetLowPriorityNodes)
		}
	})
}
