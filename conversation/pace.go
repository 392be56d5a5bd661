package conversation

import (
	"math"
	"time"

	"github.com/batchyard/batchyard/control"
)

// How much a node is given ahead of time covers what passes from one of its
// reports to the orders that follow from the next one: as long as reports wait
// for company at the node, as the transactions of report and assignment take,
// and as the orders travel. All of it is measured, at the server and by its
// clock alone, because it is another one on each machine and at each load.
const (
	// A node is filled up when half is left, so half has to last for a round.
	shortestAhead = 200 * time.Millisecond // of a node's work
	longestAhead  = time.Second
	// firstRound is what a round is taken for until one was measured.
	firstRound = 150 * time.Millisecond
	// sameFlow is how far apart reports are at most that follow one another
	// because tasks do.
	sameFlow = time.Second
	// firstAhead and growth bound what is given to a node of which little is
	// known: a few short tasks do not say that all are.
	firstAhead, growth = 8, 4
)

// pace is how quickly a node completes tasks and what a round takes it. It is a
// value, changed in a transaction and kept when that is committed.
type pace struct {
	at time.Time // of the newest report of results
	// done are slots of tasks completed a second, and worked the share of the
	// time that the node worked on them, both as means over about the last
	// second; seen are the same tasks, each counting less as time goes by.
	done, worked, seen float64

	// gap is the time from one report of results to the next. The orders that
	// follow from the newest have a higher revision than after; 0: they have come,
	// or none are waited for.
	gap   time.Duration
	after int64
	// round is a mean of rounds, swing of how far they are from it; zero until
	// one was measured.
	round, swing time.Duration
}

// completed takes a report of results. Busy is how long the node worked on them,
// zero if it had more to do than it had slots for all the time.
func (p pace) completed(slots int, busy time.Duration, at time.Time) pace {
	faded := 0.0
	p.gap = 0
	if !p.at.IsZero() {
		gap := max(0, at.Sub(p.at))
		if busy == 0 || busy > gap {
			busy = gap // what it did before was told before
		}
		if gap < sameFlow {
			p.gap = gap
		}
		faded = math.Exp(-gap.Seconds())
	}
	seconds := max(busy, time.Millisecond).Seconds()
	share := 1 - math.Exp(-seconds)
	p.done = p.done*faded + float64(slots)*share/seconds
	p.worked = p.worked*faded + share
	p.seen = p.seen*faded + float64(slots)
	p.at = at
	return p
}

// heard takes a call of the node, which has orders of a revision.
func (p pace) heard(revision int64, at time.Time) pace {
	if p.after == 0 || revision <= p.after {
		return p
	}
	round := min(p.gap+max(0, at.Sub(p.at)), longestAhead)
	p.after = 0
	if p.round == 0 {
		p.round, p.swing = round, round/2
		return p
	}
	p.swing += ((round - p.round).Abs() - p.swing) / 4
	p.round += (round - p.round) / 8
	return p
}

// ahead is how many slots of tasks are worth having wait on the node.
func (p pace) ahead() float64 {
	if p.worked == 0 {
		return 0
	}
	round := firstRound
	if p.round > 0 {
		round = p.round + 2*p.swing
	}
	lasts := min(max(2*round, shortestAhead), longestAhead)
	return min(p.done/p.worked*lasts.Seconds(), firstAhead+growth*p.seen, control.MaxAhead)
}
