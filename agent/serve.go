package agent

import (
	"context"
	"errors"
	"time"

	"github.com/batchyard/batchyard/batch"
	"github.com/cenkalti/backoff/v5"
)

// answer is what came of a call.
type answer struct {
	orders    batch.NodeOrders
	err       error
	sent      time.Time
	reporting bool
	left      bool
}

// calls are the calls under way: at most one that waits for something new and
// one that reports. A report ends the waiting call at the server, so that a
// node never has to hang up.
type calls struct {
	agent              *Agent
	answers            chan answer
	waiting, reporting bool
	delays             *backoff.ExponentialBackOff
	lastHeard          time.Time
	lease              time.Duration
}

// serve reports and takes orders until it is told to stop.
func (a *Agent) serve(ctx context.Context) error {
	calling, hangUp := context.WithCancel(ctx)
	c := &calls{agent: a, answers: make(chan answer), delays: retryDelays(), lastHeard: time.Now(), lease: time.Minute}
	defer c.finish()
	defer hangUp()
	var due, retry <-chan time.Time // when a change is reported, when a failed call is made again
	dirty, how := false, whenever
	report := func() {
		if !c.reporting && retry == nil {
			dirty, how = false, whenever
			c.call(calling, true)
		}
	}
	report()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case urgent := <-a.changed:
			dirty, how = true, max(how, urgent)
			due = time.After(a.delay(how))
		case <-due:
			due = nil
			report()
		case <-retry:
			retry = nil
			report()
		case got := <-c.answers:
			wait, err := c.take(got)
			if err != nil {
				return err
			}
			if wait > 0 && retry == nil {
				retry = time.After(wait)
			}
			if retry == nil && dirty && due == nil && !c.reporting {
				due = time.After(a.delay(how))
			}
			if retry == nil && due == nil && !c.reporting && !c.waiting {
				c.call(calling, false)
			}
		}
	}
}

// delay is how long a change waits for company: not at all when the node has
// nothing else to do.
func (a *Agent) delay(how urgency) time.Duration {
	switch {
	case a.desk.idle():
		return 0
	case how == soon:
		return endedCoalesce
	}
	return startedCoalesce
}

// call starts a call. A reporting one carries everything and is answered at
// once if it has results; a waiting one is answered when there is news.
func (c *calls) call(ctx context.Context, reporting bool) {
	report := c.agent.report()
	report.NoWait = reporting
	if reporting {
		c.reporting = true
	} else {
		c.waiting = true
	}
	sent := time.Now()
	go func() {
		orders, err := c.agent.Server.Sync(ctx, report)
		c.answers <- answer{orders, err, sent, reporting, report.Left}
	}()
}

// take handles an answer; a positive duration asks to try again after it.
func (c *calls) take(got answer) (time.Duration, error) {
	if got.reporting {
		c.reporting = false
	} else {
		c.waiting = false
	}
	switch {
	case got.err == nil && got.left:
		return 0, ErrLeft
	case got.err == nil:
		c.delays.Reset()
		c.lastHeard = time.Now()
		c.lease = got.orders.Lease.Std()
		c.agent.apply(got.orders, got.sent)
		return 0, nil
	case refused(got.err):
		return 0, errors.Join(ErrRefused, got.err)
	case c.agent.ExitWhenLost && time.Since(c.lastHeard) > c.lease && c.agent.desk.empty():
		return 0, errors.New("server not reached for a lease, and nothing to do")
	}
	c.agent.Log.Warn("call failed", "err", got.err)
	return max(c.delays.NextBackOff(), time.Millisecond), nil
}

// finish waits for calls that were hung up.
func (c *calls) finish() {
	for c.waiting || c.reporting {
		if got := <-c.answers; got.reporting {
			c.reporting = false
		} else {
			c.waiting = false
		}
	}
}

// report is the whole state of the node.
func (a *Agent) report() batch.NodeReport {
	report := batch.NodeReport{Instance: a.instance, Agent: &a.info, Settings: a.settings.Version}
	a.boots.report(&report)
	a.desk.report(&report)
	return report
}

// apply makes orders the desired state. Calls overlap, so the answer to an
// older call than the one applied last is dropped; the orders of one revision
// may differ, because they follow from the report too.
func (a *Agent) apply(orders batch.NodeOrders, sent time.Time) {
	// The lease counts from when the call was sent: the server cannot have
	// counted from an earlier moment.
	if left := orders.Lease.Std() - time.Since(sent); left > 0 {
		if err := a.keeper.Lease(left); err != nil {
			a.Log.Error("lease not taken", "err", err)
		}
	}
	if sent.Before(a.applied) {
		return
	}
	a.applied = sent
	if orders.Settings != nil {
		a.settings = orders.Settings
		a.users.accounts = orders.Settings.UserAccounts
	}
	a.files.take(orders.Files)
	a.desk.take(orders)
	a.boots.take(orders)
	a.desk.schedule()
}
