package conversation

import (
	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/store"
)

// maxGone bounds the attempts that are remembered after a node was to drop them.
const maxGone = 1024

// account is what a node should be doing at a revision of its orders, and since
// when. Once it is remembered it is never changed: advance makes the next one.
type account struct {
	revision int64 // 0: nothing is known
	// floor is the lowest revision since which changes are known.
	floor int64
	holds []held // in the order of their sequences
	gone  []gone // in the order in which they went
	level level
	// levelAt is the revision at which the level changed last.
	levelAt int64
}

// held is an attempt that the node should hold since one revision, and as it is
// now since another.
type held struct {
	store.HeldTask
	added, changed int64
}

// gone is an attempt that the node should no longer hold since a revision.
type gone struct {
	batch.AttemptRef
	at int64
}

// level is what orders say of the node as a whole.
type level struct {
	boot, image int
	leave       bool
	settings    int64
}

// tasks are what the node should hold.
func (a *account) tasks() []store.HeldTask {
	tasks := make([]store.HeldTask, len(a.holds))
	for i := range a.holds {
		tasks[i] = a.holds[i].HeldTask
	}
	return tasks
}

// advance makes the account of a revision from what the node should hold there,
// in the order of sequences. Settled are sequences of attempts that are over by
// the node's own word: it need not be told.
func (a *account) advance(revision int64, tasks []store.HeldTask, settled map[int64]bool, now level) *account {
	next := &account{revision: revision, floor: a.floor, level: now, levelAt: a.levelAt, gone: a.gone, holds: make([]held, 0, len(tasks))}
	before := a.holds
	if a.revision == 0 || revision < a.revision { // the database has gone back, or nobody knows
		before, next.floor, next.gone, next.levelAt = nil, revision, nil, revision
	}
	if now != a.level {
		next.levelAt = revision
	}
	drop := func(h *held) {
		if !settled[h.Sequence] {
			next.gone = append(next.gone[:len(next.gone):len(next.gone)], gone{batch.AttemptRef{Job: h.Job, Task: h.Task, Attempt: h.Attempt}, revision})
		}
	}
	at := 0
	for _, t := range tasks {
		for ; at < len(before) && before[at].Sequence < t.Sequence; at++ {
			drop(&before[at])
		}
		entry := held{HeldTask: t, added: revision, changed: revision}
		if at < len(before) && before[at].Sequence == t.Sequence {
			switch was := &before[at]; {
			case was.Attempt != t.Attempt:
				drop(was)
			case was.Release == t.Release:
				entry.added, entry.changed = was.added, was.changed
			default:
				entry.added = was.added
			}
			at++
		}
		next.holds = append(next.holds, entry)
	}
	for ; at < len(before); at++ {
		drop(&before[at])
	}
	if extra := len(next.gone) - maxGone; extra > 0 {
		next.floor = next.gone[extra-1].at
		next.gone = next.gone[extra:]
	}
	return next
}

// takeStarts takes over which attempts have begun from another account of this
// revision: that an attempt begins does not raise it.
func (a *account) takeStarts(other *account) {
	for i := range a.holds {
		h := &a.holds[i]
		if i < len(other.holds) && other.holds[i].Sequence == h.Sequence && other.holds[i].State == batch.TaskRunning {
			h.State = batch.TaskRunning
		}
	}
}

// fits tells whether what changed since a revision is known.
func (a *account) fits(since int64) bool { return since >= a.floor && since <= a.revision }
