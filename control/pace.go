package control

import (
	"math"
	"time"

	"github.com/batchyard/batchyard/batch"
)

// A node that completes tasks quickly is given some ahead of time, see package
// scheduler. How many follows from its pace: the tasks a second it completed
// lately.
const (
	ahead    = 100 * time.Millisecond // of a node's work
	maxAhead = 512                    // tasks
)

// PaceAt is what is left at a later time of the pace that a node had at a time.
// It halves in about 0.7 seconds, so a node that has come to a long task soon
// has none.
func PaceAt(pace float64, at, now time.Time) float64 {
	return pace * math.Exp(-max(0, now.Sub(at).Seconds()))
}

// WorthAhead is how many tasks a node completes in the time for which it may be
// given some ahead.
func WorthAhead(had float64, at, now time.Time) int {
	return min(maxAhead, int(PaceAt(had, at, now)*ahead.Seconds()))
}

// TopUp is how many slots of tasks a node is given ahead of time, when some wait
// there already: it is filled up when it has come down to half, so that this
// takes few transactions.
func TopUp(worth, waiting int) int {
	if waiting > worth/2 {
		return 0
	}
	return worth - waiting
}

// hungry tells whether the scheduler would give the node more, if there is more.
func hungry(n *batch.Node, now time.Time) bool {
	waiting := n.BoundSlots - n.Slots
	return waiting < 0 || TopUp(WorthAhead(n.Pace, n.PaceTime, now), waiting) > 0
}
