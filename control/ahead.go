package control

import (
	"math"
	"time"

	"github.com/batchyard/batchyard/batch"
)

// A node that completes tasks quickly is given some ahead of time, see package
// scheduler. How many is said by package conversation, which knows its pace and
// what a round of report and orders takes.

// MaxAhead bounds the slots of tasks that a node is given ahead of time.
const MaxAhead = 2048

// WorthAhead is how many slots of tasks a node is to have ahead of time, when so
// many were worth it at a time. They become half in about 0.7 seconds, so a node
// that has come to a long task soon gets none.
func WorthAhead(worth float64, at, now time.Time) int {
	return int(min(MaxAhead, worth*math.Exp(-max(0, now.Sub(at).Seconds()))))
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
	return waiting < 0 || TopUp(WorthAhead(n.Ahead, n.AheadTime, now), waiting) > 0
}
