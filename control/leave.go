package control

import (
	"time"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/store"
)

// drain is what becomes of the tasks of a node that is to be empty.
type drain int

const (
	drainRequeue drain = iota // they are given back and queued again
	drainEnd                  // those that run are ended, the rest given back
	drainWait                 // those that run may finish, the rest is given back
)

func drainOf[T ~string](option T) drain {
	switch string(option) {
	case string(batch.DeallocateTerminate):
		return drainEnd
	case string(batch.DeallocateTaskCompletion), string(batch.DeallocateRetainedData):
		return drainWait
	}
	return drainRequeue
}

// drain asks back, or ends, the tasks that a node holds.
func (l *Ledger) drain(node batch.NodeID, how drain, message string) error {
	tasks, err := l.tx.BoundTasks(node)
	if err != nil {
		return err
	}
	for i := range tasks {
		t := &tasks[i]
		switch {
		case t.State == batch.TaskActive && how == drainWait:
			l.release(t, batch.ReleaseUnstarted)
		case t.State == batch.TaskActive || how == drainRequeue:
			l.release(t, batch.ReleaseAlways)
		case how == drainEnd:
			if err := l.Change(t, func() error { return t.End(message, l.tx.Now()) }); err != nil {
				return err
			}
		}
	}
	return nil
}

// Requeue takes all tasks from a node that can no longer run them.
func (l *Ledger) Requeue(node batch.NodeID) error {
	tasks, err := l.tx.BoundTasks(node)
	if err != nil {
		return err
	}
	for i := range tasks {
		t := &tasks[i]
		if err := l.Change(t, func() error { return t.Requeue(l.tx.Now()) }); err != nil {
			return err
		}
	}
	return nil
}

// leave begins to take nodes out of their pool. A node that nobody is in
// contact with is gone at once; the others go when they have reported that
// they hold nothing more. The caller writes the pool.
func (s *Service) leave(tx *store.Tx, p *batch.Pool, nodes []batch.Node, option batch.NodeDeallocationOption) error {
	l := s.Ledger(tx, p.Account)
	var leaving []*batch.Node
	for i := range nodes {
		n := &nodes[i]
		if n.State == batch.NodeCreating || n.State == batch.NodeUnknown {
			if err := l.drop(p, n); err != nil {
				return err
			}
			continue
		}
		n.Leaving, n.HoldUntil, n.Kept = option, time.Time{}, false
		n.Settle(batch.NoticeRetained)
		n.Move(batch.NodeLeavingPool, tx.Now())
		l.Hold(n)
		l.Touch(n.ID)
		if err := l.drain(n.ID, drainOf(option), "The task was ended because its compute node leaves the pool."); err != nil {
			return err
		}
		leaving = append(leaving, n)
	}
	if err := l.Close(); err != nil {
		return err
	}
	rows := make([]batch.Node, len(leaving))
	for i, n := range leaving {
		rows[i] = *n
	}
	return tx.SaveNodes(rows)
}

// drop removes the row of a node whose tasks nobody runs any more. The caller
// writes the pool and closes the ledger.
func (l *Ledger) drop(p *batch.Pool, n *batch.Node) error {
	if err := l.Requeue(n.ID); err != nil {
		return err
	}
	l.Hold(n)
	if n.Dedicated {
		p.CurrentDedicatedNodes--
	} else {
		p.CurrentLowPriorityNodes--
	}
	l.tx.Changed(TopicNodes, TopicResize)
	return l.tx.DeleteNode(n.ID)
}

// MayLeave tells whether a node is asked to leave now, rather than when its
// tasks are done.
func MayLeave(n *batch.Node, now time.Time) bool {
	return n.Leaving != "" && (drainOf(n.Leaving) != drainWait || n.Vacant(now))
}

// DropNode takes out of its pool a node that holds nothing more, or that nobody
// is in contact with. What is still bound to it is queued again; the caller has
// read the node.
func (l *Ledger) DropNode(n *batch.Node) error {
	p, err := l.tx.Pool(n.Account, n.Pool)
	if err != nil {
		return err
	}
	l.Hold(n)
	if err := l.Close(); err != nil {
		return err
	}
	if err := l.drop(&p, n); err != nil {
		return err
	}
	if err := l.Close(); err != nil {
		return err
	}
	return l.tx.UpdatePool(&p)
}
