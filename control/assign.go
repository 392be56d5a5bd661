package control

import (
	"context"
	"maps"
	"slices"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/store"
)

// Assignment gives a task to a node.
type Assignment struct {
	store.TaskRef
	Node batch.NodeID
	// Was is the node where the task ran before, if it did.
	Was batch.NodeID
}

// Recall asks a node to give back a task that it has not begun.
type Recall struct {
	store.TaskRef
	Node batch.NodeID
}

// Decision is what the scheduler decides for a pool.
type Decision struct {
	Pool   batch.PoolID
	Assign []Assignment
	Recall []Recall
}

// Assign binds tasks to nodes of a pool and recalls others, as decide says, in the one
// transaction in which that looks: what it has seen is still so when it is
// written. Assign says how many tasks were bound: those that wait no longer, or
// whose node takes no tasks any more, are passed over.
//
// Decide runs again if the transaction does.
func (s *Service) Assign(ctx context.Context, account batch.AccountName, decide func(*store.Tx) (Decision, error)) (int, error) {
	n, recalled := 0, 0
	err := s.db.Update(ctx, func(tx *store.Tx) error {
		d, err := decide(tx)
		n, recalled = 0, len(d.Recall)
		if err != nil || len(d.Assign)+len(d.Recall) == 0 {
			return err
		}
		l := s.Ledger(tx, account)
		if n, err = l.bind(d.Pool, d.Assign); err != nil {
			return err
		}
		if err := l.recall(d.Recall); err != nil {
			return err
		}
		return l.Close()
	})
	if err != nil {
		return 0, err
	}
	s.metrics.assigned.Add(float64(n))
	s.metrics.recalled.Add(float64(recalled))
	return n, nil
}

// bind writes tasks and nodes itself, in two statements, because it needs to
// read neither.
func (l *Ledger) bind(pool batch.PoolID, assignments []Assignment) (int, error) {
	if len(assignments) == 0 {
		return 0, nil
	}
	bindings := make([]store.Binding, len(assignments))
	was := make(map[taskKey]batch.NodeID)
	for i, a := range assignments {
		bindings[i] = store.Binding{TaskRef: a.TaskRef, Node: a.Node}
		if a.Was != "" {
			was[keyOf(a.Job, a.Task)] = a.Was
		}
	}
	bound, err := l.tx.BindTasks(l.account, pool, bindings)
	if err != nil {
		return 0, err
	}
	loads := make(map[batch.NodeID]*store.NodeLoad)
	for _, b := range bound {
		l.job(b.Job).Bound++
		l.tend(b.Job, b.Slots)
		load := loads[b.Node]
		if load == nil {
			load = &store.NodeLoad{Node: b.Node}
			loads[b.Node] = load
		}
		load.Tasks, load.Slots = load.Tasks+1, load.Slots+b.Slots
		if err := l.leaveBehind(b, was[keyOf(b.Job, b.Task)]); err != nil {
			return 0, err
		}
	}
	rows := make([]store.NodeLoad, 0, len(loads))
	for _, id := range slices.Sorted(maps.Keys(loads)) {
		rows = append(rows, *loads[id])
	}
	return len(bound), l.tx.BindNodes(l.account, rows)
}

// leaveBehind asks the node where a task ran before to remove what it left
// there: its files are on the new node from now on.
func (l *Ledger) leaveBehind(b store.Bound, was batch.NodeID) error {
	if was == "" || was == b.Node {
		return nil
	}
	l.Touch(was)
	return l.tx.AddRemovals([]store.Removal{
		{Node: was, ID: l.service.take(1, l.tx.Now()), Job: b.Job, Task: b.Task},
	})
}

// recall asks for tasks back that their nodes have not begun, as far as is
// known here; the nodes know better and keep what they have begun.
func (l *Ledger) recall(recalls []Recall) error {
	wanted := make(map[batch.NodeID]map[taskKey]bool)
	for _, r := range recalls {
		if wanted[r.Node] == nil {
			wanted[r.Node] = make(map[taskKey]bool)
		}
		wanted[r.Node][keyOf(r.Job, r.Task)] = true
	}
	for _, node := range slices.Sorted(maps.Keys(wanted)) {
		tasks, err := l.tx.BoundTasks(node)
		if err != nil {
			return err
		}
		for i := range tasks {
			if t := &tasks[i]; t.State == batch.TaskActive && wanted[node][keyOf(t.Job, t.ID)] {
				l.release(t, batch.ReleaseUnstarted)
			}
		}
	}
	return nil
}
