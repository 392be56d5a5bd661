package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/batchyard/batchyard/batch"
	"github.com/cenkalti/backoff/v5"
)

// Reports wait this long for company: a moment when a slot may be waiting for
// what the server makes of them, longer when the node has more to go on with or
// they only tell that something began, and longest when it has plenty. It is part
// of what the server measures and gives the node enough ahead of time for.
const (
	soonCoalesce    = 2 * time.Millisecond
	endedCoalesce   = 25 * time.Millisecond
	startedCoalesce = 2 * endedCoalesce
	plentyCoalesce  = 80 * time.Millisecond
)

const (
	// holdTime is how long the server holds a call without news, with a margin.
	holdTime = 25 * time.Second
	// shortestLease is what an agent goes by if it is given less.
	shortestLease = time.Second
	// idlePause keeps a node from asking for news again at once when it was
	// answered at once without any.
	idlePause = 50 * time.Millisecond
)

// callTime is how long a call that is answered at once may take. Some fit into
// a lease, so that a call that got lost does not end it.
func callTime(lease time.Duration) time.Duration { return max(lease/4, time.Second) }

// answer is what came of a call.
type answer struct {
	orders batch.NodeOrders
	err    error
	call   call
}

// call is what is remembered of one.
type call struct {
	sent      time.Time
	revision  int64
	reporting bool
	left      bool
	informed  bool // it told about the agent
	whole     bool // it told all that is held
	number    int64
	said      saying
}

// calls are the calls under way: at most one that waits for something new and
// one that reports, so that a node never has to hang up. Only its loop touches
// it.
type calls struct {
	agent              *Agent
	answers            chan answer
	waiting, reporting bool
	informed           bool // the server knows what there is to know of the agent
	// whole is set when the next report is to be of all that is held: until one
	// of at least the number wholeFrom was answered.
	whole     bool
	wholeFrom int64

	// due is when changes are reported, zero if there are none.
	due time.Time
	// again is when a call may be made after one that failed, restAgain when
	// one that waits may be made after one that brought nothing.
	again, restAgain time.Time
	delays           *backoff.ExponentialBackOff
	failing          bool

	// heard is when the newest call was sent that was answered: what the
	// server knows of this node is not older. The lease counts from it.
	heard   time.Time
	lease   time.Duration
	expired bool
	// applied is when the newest call was sent whose orders were applied, risen
	// when the orders' revision was last another.
	applied, risen time.Time
}

func newCalls(a *Agent) *calls {
	return &calls{agent: a, answers: make(chan answer), delays: retryDelays(), due: a.clock()}
}

// serve reports and takes orders until it is told to stop.
func (c *calls) serve(ctx context.Context) error {
	calling, hangUp := context.WithCancel(ctx)
	defer c.finish()
	defer hangUp()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		now := c.agent.clock()
		timer.Reset(c.step(calling, now).Sub(now))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-c.agent.changed:
			c.change(c.agent.clock())
		case <-timer.C:
		case got := <-c.answers:
			err := c.take(got)
			if ctx.Err() != nil && !errors.Is(err, ErrLeft) {
				return ctx.Err()
			}
			if err != nil {
				return err
			}
		}
	}
}

// change makes a report due.
func (c *calls) change(now time.Time) {
	how := urgency(c.agent.pending.Load())
	if how == 0 {
		return // a report has told it meanwhile
	}
	due := now.Add(how.delay())
	if c.due.IsZero() || due.Before(c.due) {
		c.due = due
	}
}

// step makes the call whose time has come, ends what the lease no longer
// covers, and says when there is something to do next unless something
// happens.
func (c *calls) step(ctx context.Context, now time.Time) time.Time {
	end := now.Add(c.lease - now.Sub(c.heard))
	if !now.Before(end) && !c.expired {
		c.expired = true
		c.agent.desk.expire()
	}
	next := end
	if c.expired {
		next = now.Add(c.lease)
	}
	if now.Before(c.again) {
		return earlier(next, c.again)
	}
	// Without word for half a lease, a call of its own finds out whether the
	// one that waits has got lost on the way.
	beat := c.heard.Add(c.lease / 2)
	switch {
	case c.reporting:
		return next
	case !c.due.IsZero() && !now.Before(c.due), !now.Before(beat):
		c.due = time.Time{}
		c.call(ctx, true)
		return next
	case !c.due.IsZero():
		return earlier(next, earlier(beat, c.due))
	case c.waiting:
		return earlier(next, beat)
	case now.Before(c.restAgain):
		return earlier(next, c.restAgain)
	}
	c.call(ctx, false)
	return earlier(next, beat)
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// call starts a call. A reporting one is answered at once, a waiting one when
// there is news; both carry everything.
func (c *calls) call(ctx context.Context, reporting bool) {
	report, said := c.agent.report(c.whole)
	report.NoWait = reporting
	if !c.informed {
		report.Agent = &c.agent.info
	}
	limit := callTime(c.lease)
	if reporting {
		c.reporting = true
	} else {
		c.waiting = true
		limit += holdTime
	}
	made := call{
		sent: c.agent.clock(), revision: report.Revision, reporting: reporting, left: report.Left,
		informed: report.Agent != nil, whole: report.Whole, number: report.Number, said: said,
	}
	go func() { // finish waits for it
		limited, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		var orders batch.NodeOrders
		err := c.agent.guard("call of the server", func() (err error) {
			orders, err = c.agent.Server.Sync(limited, report)
			return err
		})
		c.answers <- answer{orders, err, made}
	}()
}

// report is the state of the node, with attempts and removals as far as they are
// news unless whole, and what it says of these.
func (a *Agent) report(whole bool) (batch.NodeReport, saying) {
	a.pending.Store(0) // before looking: what changes meanwhile is reported again
	a.reports++
	report := batch.NodeReport{Instance: a.instance, Number: a.reports, Settings: a.settings.Load().Version}
	a.boots.report(&report)
	said := a.desk.report(&report, whole)
	a.health.report(&report)
	return report, said
}

// take handles an answer. An error ends the agent.
func (c *calls) take(got answer) error {
	now := c.agent.clock()
	if got.call.reporting {
		c.reporting = false
	} else {
		c.waiting = false
	}
	switch {
	case got.err != nil:
		return c.failed(got, now)
	case got.call.left:
		return ErrLeft
	}
	if c.failing {
		c.agent.Log.Info("server reached again")
	}
	c.failing = false
	c.whole = c.whole && got.call.number < c.wholeFrom
	c.delays.Reset()
	c.informed = c.informed || got.call.informed
	if quick := now.Sub(got.call.sent) < idlePause; quick && !got.call.reporting &&
		got.call.number == c.agent.reports && got.orders.Revision == got.call.revision && len(got.orders.Files) == 0 {
		c.restAgain = now.Add(idlePause)
	}
	got.err = c.agent.guard("orders of the server", func() error { c.apply(got.orders, got.call); return nil })
	if got.err != nil {
		return c.failed(got, now)
	}
	return nil
}

func (c *calls) failed(got answer, now time.Time) error {
	switch {
	case refused(got.err):
		return fmt.Errorf("%w: %w", ErrRefused, got.err)
	case now.Sub(c.heard) > c.lease+cmp.Or(c.agent.Patience, c.lease):
		return fmt.Errorf("%w: %w", ErrLost, got.err)
	case !c.failing && !errors.Is(got.err, context.Canceled):
		c.failing = true
		c.agent.Log.Warn("server not reached", "err", got.err)
	}
	c.askWhole() // it may be another server, or the same after a start
	c.again = now.Add(c.delays.NextBackOff())
	if got.call.reporting && c.due.IsZero() {
		c.due = c.again // what it said must be said again
	}
	return nil
}

// askWhole makes the next report one of all that is held. What is under way is
// not.
func (c *calls) askWhole() { c.whole, c.wholeFrom = true, c.agent.reports+1 }

// finish waits for calls that were hung up.
func (c *calls) finish() {
	for c.waiting || c.reporting {
		if got := <-c.answers; got.call.reporting {
			c.reporting = false
		} else {
			c.waiting = false
		}
	}
}

// apply makes orders the desired state. Calls overlap, and which of two answers
// was given later shows in their revisions. Of two with one revision the newer
// call's counts, because orders follow from the report too. A lower revision
// counts only if the call was sent when the higher one was known: then the
// server has gone back, to a backup. Orders of changes fit only what they follow;
// if some do not, the next report asks for the whole.
func (c *calls) apply(orders batch.NodeOrders, made call) {
	a, sent := c.agent, made.sent
	c.takeLease(orders.Lease.Std(), sent)
	a.files.take(orders.Files, sent)
	a.desk.receipt(made.said, &orders)
	if orders.More {
		c.askWhole()
		c.due = a.clock()
	}
	switch before := a.desk.applied(); {
	case orders.Revision == before && sent.Before(c.applied),
		orders.Revision < before && sent.Before(c.risen):
		return
	case !a.desk.fits(&orders):
		c.askWhole()
		c.due = a.clock()
		return
	case orders.Revision != before:
		c.risen = a.clock()
	}
	if !made.whole && a.desk.anotherEpoch(&orders) {
		// What the server before has taken this one may not know.
		c.askWhole()
		c.due = a.clock()
	}
	if sent.After(c.applied) {
		c.applied = sent
	}
	if orders.Settings != nil {
		a.settings.Store(orders.Settings)
	}
	// In this order: no attempt that is new may begin before a boot that is
	// asked for has shut the node, and the boot ends those that were adopted.
	boot := a.boots.take(orders)
	a.desk.take(orders)
	a.desk.schedule()
	boot()
}

// takeLease renews the lease. It counts from when the call was sent: the server
// cannot have counted from an earlier moment.
func (c *calls) takeLease(lease time.Duration, sent time.Time) {
	if sent.Before(c.heard) {
		return
	}
	c.heard, c.lease = sent, max(lease, shortestLease)
	left := c.lease - c.agent.clock().Sub(sent)
	if left <= 0 {
		return
	}
	c.expired = false
	if err := c.agent.keeper.Lease(left); err != nil {
		c.agent.Log.Error("lease not taken", "err", err)
	}
}
