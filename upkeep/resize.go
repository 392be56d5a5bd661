package upkeep

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/control"
)

// maxAdded bounds the nodes that one transaction makes.
const maxAdded = 250

// resize moves pools towards their targets: it adds rows of nodes, which
// package fleet turns into nodes, and chooses those that leave.
func (u *Upkeep) resize() duty {
	return duty{name: "resize", topics: []string{control.TopicResize}, do: u.resizePools}
}

func (u *Upkeep) resizePools(ctx context.Context) (next time.Time, err error) {
	pools, err := u.control.ResizingPools(ctx)
	if err != nil {
		return next, err
	}
	var failures []error
	for i := range pools {
		p := &pools[i]
		if err := u.control.StepPool(ctx, p.Account, p.ID, Step); err != nil {
			failures = append(failures, fmt.Errorf("resize pool %s of %s: %w", p.ID, p.Account, err))
		}
		if p.State == batch.PoolActive {
			next = earlier(next, p.ResizeDeadline)
		}
	}
	return next, errors.Join(failures...)
}

// Step decides what a pool does next on its way to its target. Whoever does it
// announces control.TopicResize, so that the next step follows.
func Step(p *batch.Pool, nodes []batch.Node, now time.Time) control.PoolStep {
	dedicated, low := census{target: p.TargetDedicatedNodes}, census{target: p.TargetLowPriorityNodes}
	for i := range nodes {
		if n := &nodes[i]; n.Dedicated {
			dedicated.count(n)
		} else {
			low.count(n)
		}
	}
	switch {
	case p.State == batch.PoolDeleting && len(nodes) == 0:
		return control.PoolStep{Delete: true}
	case p.State == batch.PoolDeleting:
		return control.PoolStep{Leave: slices.Concat(
			ids(dedicated.staying), ids(dedicated.retaining), ids(low.staying), ids(low.retaining))}
	case p.AllocationState == batch.AllocationSteady:
		return control.PoolStep{}
	case p.AllocationState == batch.AllocationStopping:
		return giveUp(dedicated, low, batch.ResizeError{
			Code: batch.ResizeStopped, Message: "The resize was stopped by a user.",
		})
	case dedicated.reached() && low.reached():
		return control.PoolStep{Settle: true}
	case !p.ResizeDeadline.IsZero() && !now.Before(p.ResizeDeadline):
		return giveUp(dedicated, low, batch.ResizeError{
			Code: batch.ResizeTimedOut, Message: "The pool did not reach its target within its resize timeout.",
		})
	}
	added := min(maxAdded, dedicated.missing())
	return control.PoolStep{
		AddDedicated: added, AddLowPriority: min(maxAdded-added, low.missing()),
		Leave: append(ids(dedicated.surplus()), ids(low.surplus())...),
	}
}

// giveUp ends a resize where it stands. Nodes that nobody has heard of yet will
// not come; those that are leaving go on to leave.
func giveUp(dedicated, low census, reason batch.ResizeError) control.PoolStep {
	return control.PoolStep{
		Leave:  append(ids(dedicated.awaited), ids(low.awaited)...),
		Settle: true, Errors: []batch.ResizeError{reason},
	}
}

// census is the nodes of one kind in a pool.
type census struct {
	target  int
	staying []*batch.Node // those not asked to leave
	awaited []*batch.Node // of these, those nobody has heard of yet
	leaving int
	// retaining are those of the leaving that wait for files.
	retaining []*batch.Node
}

func (c *census) count(n *batch.Node) {
	switch {
	case n.Leaving != "":
		c.leaving++
		if n.Retains() {
			c.retaining = append(c.retaining, n)
		}
	case n.State == batch.NodeCreating:
		c.awaited = append(c.awaited, n)
		c.staying = append(c.staying, n)
	default:
		c.staying = append(c.staying, n)
	}
}

func (c *census) reached() bool {
	return len(c.staying) == c.target && len(c.awaited) == 0 && c.leaving == 0
}

func (c *census) missing() int { return max(0, c.target-len(c.staying)) }

// surplus are the nodes to go: first those of no use, then idle ones, then
// those with the fewest tasks; of equals the newest.
func (c *census) surplus() []*batch.Node {
	n := len(c.staying) - c.target
	if n <= 0 {
		return nil
	}
	ordered := slices.Clone(c.staying)
	slices.SortFunc(ordered, func(a, b *batch.Node) int {
		return cmp.Or(cmp.Compare(worth(a), worth(b)), cmp.Compare(a.BoundTasks, b.BoundTasks),
			b.AllocationTime.Compare(a.AllocationTime), cmp.Compare(a.ID, b.ID))
	})
	return ordered[:n]
}

func worth(n *batch.Node) int {
	if n.State == batch.NodeUnusable && n.InContact() && n.RunningTasks > 0 {
		return 2 // what runs there may finish
	}
	switch n.State {
	case batch.NodeUnknown, batch.NodeUnusable, batch.NodeCreating, batch.NodeStartTaskFailed, batch.NodePreempted:
		return 0
	case batch.NodeRunning:
		return 2
	}
	return 1
}

func ids(nodes []*batch.Node) []batch.NodeID {
	var all []batch.NodeID
	for _, n := range nodes {
		all = append(all, n.ID)
	}
	return all
}
