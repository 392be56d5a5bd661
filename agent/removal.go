package agent

import (
	"github.com/batchyard/batchyard/batch"
)

// covers tells whether a removal takes the directory of an attempt.
func covers(r batch.Removal, id attemptID) bool {
	return r.Job == id.job && (r.Task == "" || r.Task == id.task)
}

// takeRemovals starts removals that are new and forgets those whose receipt has come.
// The caller holds the lock.
func (d *desk) takeRemovals(orders batch.NodeOrders) {
	wanted := make(map[int64]bool, len(orders.Removals))
	for _, r := range orders.Removals {
		wanted[r.ID] = true
		d.removals = max(d.removals, r.ID)
		d.takeRemoval(r)
	}
	for _, r := range orders.Ahead { // and again when it is their turn
		wanted[r.ID] = true
		d.takeRemoval(r)
	}
	for id := range d.removed {
		if !wanted[id] && d.epoch == "" { // else by receipt
			delete(d.removed, id)
		}
	}
}

func (d *desk) takeRemoval(r batch.Removal) {
	if _, busy := d.removing[r.ID]; busy || d.removed[r.ID] {
		return
	}
	leaving, staying := d.holding(r)
	if staying {
		// Someone wanted is in the directory, so this removal was done for
		// those before and its receipt was lost.
		d.removed[r.ID] = true
		d.agent.note(whenever)
		return
	}
	d.removing[r.ID] = r
	d.agent.work.Go(func() { d.remove(r, leaving) })
}

// holding are the attempts in the directory that is to be removed: unwanted
// ones that are about to leave it, and whether one is there to stay.
func (d *desk) holding(r batch.Removal) (leaving []*attempt, staying bool) {
	for _, t := range d.attempts {
		switch {
		case !t.alive || !covers(r, t.id):
		case t.unwanted:
			leaving = append(leaving, t)
		default:
			staying = true
		}
	}
	return leaving, staying
}

// remove deletes a directory once those who leave have left, and again until it
// is gone: until then no attempt begins in it.
func (d *desk) remove(r batch.Removal, leaving []*attempt) {
	a := d.agent
	for _, t := range leaving {
		select {
		case <-t.finished:
		case <-a.working.Done():
			return
		}
	}
	delays := retryDelays()
	remove := func() error {
		return a.guard("removal of a directory", func() error { return a.tree.remove(r.Job, r.Task) })
	}
	for err := remove(); err != nil; err = remove() {
		a.Log.Error("directory not removed", "job", r.Job, "task", r.Task, "err", err)
		if !pause(a.working, delays.NextBackOff()) {
			return
		}
	}
	a.disk.removed()
	d.mu.Lock()
	delete(d.removing, r.ID)
	d.removed[r.ID] = true
	d.mu.Unlock()
	d.schedule()
	a.note(whenever)
}
