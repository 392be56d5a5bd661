package scheduler

import (
	"errors"
	"time"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/control"
	"github.com/batchyard/batchyard/store"
)

// Bounds of one pass.
const (
	maxSlots = 1000 // slots that it fills
	maxNodes = 500
	// paceAge is after how long without a completed task a node has no pace.
	paceAge = 5 * time.Second
)

// window is a snapshot, and whether more was cut off than it shows.
type window struct {
	Snapshot
	more bool
}

// policy is what a worker remembers of its pool, to read it only when it has
// changed.
type policy struct {
	stamp batch.Stamp
	pool  batch.PoolID
	slots int // of each node
	fill  batch.NodeFillType
}

// update reads the pool if need be, and tells whether it takes tasks.
func (y *policy) update(tx *store.Tx, pool store.PoolRef) (bool, error) {
	stamp, state, err := tx.PoolVersion(pool.Account, pool.Pool)
	if errors.Is(err, store.ErrNotFound) || err == nil && state != batch.PoolActive {
		return false, nil
	}
	if err != nil || stamp == y.stamp {
		return err == nil, err
	}
	p, err := tx.Pool(pool.Account, pool.Pool)
	if err == nil {
		*y = policy{p.Stamp, p.ID, p.TaskSlotsPerNode, p.TaskSchedulingPolicy.NodeFillType}
	}
	return err == nil, err
}

// read takes what the next pass over a pool decides on. Everything it does
// costs as much as there are free slots, however many tasks, jobs and nodes
// there are.
func read(tx *store.Tx, pool store.PoolRef, known *policy, now time.Time) (window, error) {
	takes, err := known.update(tx, pool)
	if err != nil || !takes {
		return window{}, err
	}
	w := window{Snapshot: Snapshot{Pool: known.pool, Fill: known.fill}}
	pack := w.Fill == batch.FillPack
	limit := maxNodes
	if pack {
		limit = batch.MaxNodesPerPool // the first ones may be too full for a large task
	}
	if w.Nodes, err = tx.FreeNodes(pool.Account, pool.Pool, limit, pack); err != nil {
		return w, err
	}
	w.more = len(w.Nodes) == limit
	room, most := 0, 0
	for _, n := range w.Nodes {
		room, most = room+n.Slots-n.BoundSlots, max(most, n.Slots-n.BoundSlots)
	}
	r := reader{tx: tx, pool: pool, jobs: make(map[string]bool)}
	if err := r.readSizes(known.slots, room); err != nil {
		return w, err
	}
	ahead := room == 0 && len(r.sizes) > 0
	if ahead {
		most = known.slots
		if room, err = w.readQuick(tx, pool, now); err != nil {
			return w, err
		}
		if room == 0 {
			return w, w.readSlow(tx, pool, now)
		}
	}
	if err := r.read(most, min(room, maxSlots)); err != nil {
		return w, err
	}
	w.Tasks, w.Jobs = r.tasks, r.found
	if r.fitting == 0 && !ahead {
		w.more = false
		return w, w.readHeld(tx, pool)
	}
	// Full slots may be followed by what is given ahead of time, and that by
	// nothing.
	w.more = w.more || r.cut && (!ahead || room >= maxSlots)
	return w, w.readNear(tx)
}

// readQuick makes the nodes those that complete tasks quickly, and says how many
// slots of work it is worth for them to have ahead.
func (w *window) readQuick(tx *store.Tx, pool store.PoolRef, now time.Time) (room int, err error) {
	if w.Nodes, err = tx.QuickNodes(pool.Account, pool.Pool, now.Add(-paceAge)); err != nil {
		return 0, err
	}
	for _, n := range w.Nodes {
		room += control.TopUp(control.WorthAhead(n.Ahead, n.AheadTime, now), max(0, n.BoundSlots-n.Slots))
	}
	return room, nil
}

// readNear adds nodes that tasks have an affinity to and which the window does
// not have.
func (w *window) readNear(tx *store.Tx) error {
	have := make(map[batch.NodeID]bool, len(w.Nodes))
	for _, n := range w.Nodes {
		have[n.Node] = true
	}
	for _, t := range w.Tasks {
		id := batch.NodeID(t.Affinity)
		if id == "" || have[id] || len(w.Nodes) < maxNodes {
			continue
		}
		have[id] = true
		n, err := tx.FreeNode(id)
		if errors.Is(err, store.ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		w.Nodes = append(w.Nodes, n)
	}
	return nil
}

// readHeld reads tasks that wait on nodes, as many as free nodes have room for.
func (w *window) readHeld(tx *store.Tx, pool store.PoolRef) error {
	room := 0
	for _, n := range w.Nodes {
		room += n.Slots - n.BoundSlots
	}
	if room == 0 {
		return nil
	}
	crowded, err := tx.CrowdedNodes(pool.Account, pool.Pool)
	if err != nil {
		return err
	}
	w.more = false
	for _, n := range crowded {
		if room <= 0 {
			return nil
		}
		tasks, err := tx.HeldTasks(n.Node)
		if err != nil {
			return err
		}
		w.Nodes = append(w.Nodes, n)
		room -= n.BoundSlots - n.Slots
		w.Held = append(w.Held, notBegun(n.Node, tasks)...)
	}
	return nil
}

// readSlow reads tasks that wait on nodes which have come to long ones, while
// others, perhaps more urgent, wait for a node.
func (w *window) readSlow(tx *store.Tx, pool store.PoolRef, now time.Time) error {
	slow, err := tx.SlowNodes(pool.Account, pool.Pool, now.Add(-paceAge))
	if err != nil {
		return err
	}
	w.Nodes, w.more = slow, false
	for _, n := range slow {
		tasks, err := tx.HeldTasks(n.Node)
		if err != nil {
			return err
		}
		if w.Slow = append(w.Slow, notBegun(n.Node, tasks)...); len(w.Slow) >= maxSlots {
			return nil
		}
	}
	return nil
}

// notBegun are those of the tasks on a node that have not begun.
func notBegun(node batch.NodeID, tasks []store.HeldTask) []HeldTask {
	var waiting []HeldTask
	for i := range tasks {
		if t := &tasks[i]; t.State == batch.TaskActive {
			waiting = append(waiting, HeldTask{
				TaskRef: t.TaskRef, Node: node, Sequence: t.Sequence, Slots: t.Slots, Recalled: t.Release != "",
			})
		}
	}
	return waiting
}
