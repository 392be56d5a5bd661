package scheduler

import (
	"cmp"
	"errors"
	"slices"
	"time"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/control"
	"github.com/batchyard/batchyard/store"
)

// Bounds of one pass.
const (
	maxTasks = 1000
	maxNodes = 500
	maxJobs  = 100
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
		y.stamp, y.fill = p.Stamp, p.TaskSchedulingPolicy.NodeFillType
	}
	return err == nil, err
}

// read takes what the next pass over a pool decides on. Everything it does
// costs as much as there are free slots, however many tasks and nodes there are.
func read(tx *store.Tx, pool store.PoolRef, known *policy, now time.Time) (window, error) {
	takes, err := known.update(tx, pool)
	if err != nil || !takes {
		return window{}, err
	}
	w := window{Snapshot: Snapshot{Fill: known.fill}}
	pack := w.Fill == batch.FillPack
	limit := maxNodes
	if pack {
		limit = batch.MaxNodesPerPool // the first ones may be too full for a large task
	}
	if w.Nodes, err = tx.FreeNodes(pool.Account, pool.Pool, limit, pack); err != nil {
		return w, err
	}
	w.more = len(w.Nodes) == limit
	if w.Jobs, err = tx.ReadyJobs(pool.Account, pool.Pool); err != nil {
		return w, err
	}
	if w.Jobs = slices.DeleteFunc(w.Jobs, mayRunNone); len(w.Jobs) == 0 {
		return w, w.readHeld(tx, pool)
	}
	return w, w.readTasks(tx, pool, now)
}

// mayRunNone tells whether a job has as many tasks on nodes as it may.
func mayRunNone(j store.ReadyJob) bool { return j.MaxParallel >= 0 && j.Bound >= int64(j.MaxParallel) }

// readTasks reads as many tasks as can be bound. Jobs of one priority share the
// window by the age of their tasks, and are read only until the window is full.
func (w *window) readTasks(tx *store.Tx, pool store.PoolRef, now time.Time) error {
	room := 0
	for _, n := range w.Nodes {
		room += n.Slots - n.BoundSlots
	}
	ahead := room == 0
	if ahead {
		busy, err := tx.PacedNodes(pool.Account, pool.Pool, now.Add(-paceAge))
		if err != nil {
			return err
		}
		w.Nodes = busy
		for _, n := range busy {
			room += control.TopUp(control.WorthAhead(n.Pace, n.PaceTime, now), max(0, n.BoundSlots-n.Slots))
		}
	}
	room = min(room, maxTasks)
	for from := 0; from < len(w.Jobs) && len(w.Tasks) < room; {
		to := from
		var tasks []store.ReadyTask
		for ; to < len(w.Jobs) && w.Jobs[to].Priority == w.Jobs[from].Priority && to-from < maxJobs; to++ {
			some, err := tx.ReadyTasks(pool.Account, w.Jobs[to].Job, allowance(w.Jobs[to], room-len(w.Tasks)))
			if err != nil {
				return err
			}
			tasks = append(tasks, some...)
		}
		slices.SortFunc(tasks, func(a, b store.ReadyTask) int { return cmp.Compare(a.Sequence, b.Sequence) })
		w.Tasks = append(w.Tasks, tasks[:min(len(tasks), room-len(w.Tasks))]...)
		from = to
	}
	// Full slots may be followed by what is given ahead of time, and that by
	// nothing.
	w.more = w.more || len(w.Tasks) == room && room > 0 && (!ahead || room == maxTasks)
	return w.readNear(tx)
}

// allowance is how many tasks of the job the window wants at most.
func allowance(j store.ReadyJob, room int) int {
	if j.MaxParallel < 0 {
		return room
	}
	return int(min(int64(room), int64(j.MaxParallel)-j.Bound))
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
		for i := range tasks {
			if t := &tasks[i]; t.State == batch.TaskActive {
				w.Held = append(w.Held, HeldTask{
					TaskRef: t.TaskRef, Node: n.Node, Sequence: t.Sequence, Slots: t.Slots, Recalled: t.Release != "",
				})
			}
		}
	}
	return nil
}
