package control

import (
	"context"
	"errors"
	"slices"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/store"
)

// Node returns a node of a pool with its recent tasks; NodeNotFound if there is
// none.
func (s *Service) Node(ctx context.Context, account batch.AccountName, pool batch.PoolID, node batch.NodeID) (batch.Node, error) {
	var n batch.Node
	err := s.db.View(ctx, func(tx *store.Tx) (err error) {
		if n, err = findNode(tx, account, pool, node); err != nil {
			return err
		}
		return fillRecent(tx, account, []*batch.Node{&n})
	})
	return n, err
}

// Nodes returns a page of a pool's nodes, ordered by id.
func (s *Service) Nodes(ctx context.Context, account batch.AccountName, pool batch.PoolID, q Query) (Page[batch.Node], error) {
	list, err := q.list(nodeFields, maxPage)
	if err != nil {
		return Page[batch.Node]{}, err
	}
	var nodes []batch.Node
	err = s.db.View(ctx, func(tx *store.Tx) (err error) {
		if _, err := parentPool(tx, account, pool); err != nil {
			return err
		}
		if nodes, err = tx.Nodes(account, pool, list); err != nil {
			return err
		}
		all := make([]*batch.Node, len(nodes))
		for i := range nodes {
			all[i] = &nodes[i]
		}
		return fillRecent(tx, account, all)
	})
	return page(nodes, list, func(n *batch.Node) string { return batch.Key(n.ID) }), err
}

// fillRecent adds to the names of recent tasks what became of them, as it is
// now. Tasks that are gone are left out.
func fillRecent(tx *store.Tx, account batch.AccountName, nodes []*batch.Node) error {
	var refs []store.TaskRef
	for _, n := range nodes {
		for _, r := range n.Recent {
			refs = append(refs, store.TaskRef{Job: r.Job, Task: r.Task})
		}
	}
	if len(refs) == 0 {
		return nil
	}
	tasks, err := tx.TasksByRef(account, refs)
	if err != nil {
		return err
	}
	byKey := make(map[taskKey]*batch.Task, len(tasks))
	for i := range tasks {
		byKey[keyOf(tasks[i].Job, tasks[i].ID)] = &tasks[i]
	}
	for _, n := range nodes {
		n.Recent = slices.DeleteFunc(n.Recent, func(r batch.RecentTask) bool { return byKey[keyOf(r.Job, r.Task)] == nil })
		for i := range n.Recent {
			t := byKey[keyOf(n.Recent[i].Job, n.Recent[i].Task)]
			n.Recent[i].State, n.Recent[i].ExecutionInfo = t.State, t.ExecutionInfo
		}
	}
	return nil
}

// taskKey is how tasks are looked up in memory.
type taskKey struct{ job, task string }

func keyOf(job batch.JobID, task batch.TaskID) taskKey {
	return taskKey{batch.Key(job), batch.Key(task)}
}

// RebootNode boots a node anew; the option says what becomes of its tasks.
func (s *Service) RebootNode(ctx context.Context, account batch.AccountName, pool batch.PoolID, node batch.NodeID, option batch.RebootOption) error {
	if err := batch.NormalizeRebootOption("nodeRebootOption", &option); err != nil {
		return err
	}
	return s.reboot(ctx, account, pool, node, option, false)
}

// ReimageNode wipes a node and boots it anew.
func (s *Service) ReimageNode(ctx context.Context, account batch.AccountName, pool batch.PoolID, node batch.NodeID, option batch.RebootOption) error {
	if err := batch.NormalizeRebootOption("nodeReimageOption", &option); err != nil {
		return err
	}
	return s.reboot(ctx, account, pool, node, option, true)
}

func (s *Service) reboot(ctx context.Context, account batch.AccountName, pool batch.PoolID, node batch.NodeID, option batch.RebootOption, reimage bool) error {
	return s.changeNode(ctx, account, pool, node, func(l *Ledger, n *batch.Node) error {
		if err := mayReboot(n); err != nil {
			return err
		}
		how := drainOf(option)
		if err := l.drain(n.ID, how, "The task was ended because its compute node is rebooted."); err != nil {
			return err
		}
		n.PendingReboot, n.PendingReimage = option, reimage
		if how == drainWait {
			return nil // it boots when it holds nothing, see proceed
		}
		p, err := parentPool(l.tx, account, pool)
		n.Reboot(&p, reimage, s.take(1, l.tx.Now()), l.tx.Now())
		return err
	})
}

func mayReboot(n *batch.Node) error {
	switch {
	case n.State == batch.NodeReimaging || n.PendingReimage:
		return batch.Errorf(batch.CodeNodeBeingReimaged, "The specified compute node is being reimaged.")
	case n.State == batch.NodeRebooting || n.PendingReboot != "":
		return batch.Errorf(batch.CodeNodeBeingRebooted, "The specified compute node is being rebooted.")
	case n.State == batch.NodeCreating || n.State == batch.NodeLeavingPool:
		return batch.Errorf(batch.CodeOperationNotValidOnNode, "The operation is not valid on a compute node in state %s.", n.State)
	}
	return nil
}

// DisableScheduling keeps new tasks off a node; the option says what becomes of
// those it has.
func (s *Service) DisableScheduling(ctx context.Context, account batch.AccountName, pool batch.PoolID, node batch.NodeID, option batch.DisableSchedulingOption) error {
	if err := batch.NormalizeDisableOption(&option); err != nil {
		return err
	}
	return s.changeNode(ctx, account, pool, node, func(l *Ledger, n *batch.Node) error {
		if n.SchedulingState == batch.SchedulingDisabled {
			return batch.Errorf(batch.CodeSchedulingAlreadyEnabled, "The scheduling of the specified compute node is disabled already.")
		}
		n.SchedulingState = batch.SchedulingDisabled
		return l.drain(n.ID, drainOf(option), "The task was ended because its compute node was taken out of scheduling.")
	})
}

// EnableScheduling lets a node take tasks again.
func (s *Service) EnableScheduling(ctx context.Context, account batch.AccountName, pool batch.PoolID, node batch.NodeID) error {
	return s.changeNode(ctx, account, pool, node, func(l *Ledger, n *batch.Node) error {
		if n.SchedulingState == batch.SchedulingEnabled {
			return batch.Errorf(batch.CodeSchedulingAlreadyEnabled, "The scheduling of the specified compute node is enabled already.")
		}
		n.SchedulingState = batch.SchedulingEnabled
		l.tx.Changed(ReadyTopic(account, pool))
		return nil
	})
}

// changeNode runs a change of one node, tasks included, and writes it.
func (s *Service) changeNode(ctx context.Context, account batch.AccountName, pool batch.PoolID, node batch.NodeID,
	change func(*Ledger, *batch.Node) error,
) error {
	return s.db.Update(ctx, func(tx *store.Tx) error {
		n, err := findNode(tx, account, pool, node)
		if err != nil {
			return err
		}
		l := s.Ledger(tx, account)
		l.Hold(&n)
		l.Touch(n.ID)
		if err := change(l, &n); err != nil {
			return err
		}
		return l.CloseHeld(&n)
	})
}

// CloseHeld closes the ledger and writes the node that it holds.
func (l *Ledger) CloseHeld(n *batch.Node) error {
	if err := l.Close(); err != nil {
		return err
	}
	if _, err := l.Proceed(n); err != nil {
		return err
	}
	return l.tx.UpdateNode(n)
}

// findNode reads a node that the caller named.
func findNode(tx *store.Tx, account batch.AccountName, pool batch.PoolID, id batch.NodeID) (batch.Node, error) {
	n, err := tx.Node(id)
	if errors.Is(err, store.ErrNotFound) || err == nil && (n.Account != account || batch.Key(n.Pool) != batch.Key(pool)) {
		if _, err := parentPool(tx, account, pool); err != nil {
			return batch.Node{}, err
		}
		return batch.Node{}, batch.NotFound("compute node", id)
	}
	return n, err
}
