package agent

import (
	"time"

	"github.com/batchyard/batchyard/agent/run"
)

// moment is when something began: the date, for people, and what the clock said
// that leases go by. The date may be set while it lasts, the clock may not.
type moment struct{ date, clock time.Time }

// moment is the present one.
func (a *Agent) moment() moment { return moment{a.now(), a.clock()} }

// began is when an execution did, which may have been under an earlier agent.
func (a *Agent) began(s run.Started) moment { return moment{s.At, a.clock().Add(-s.Age)} }

// lasted is how long ago a moment was.
func (a *Agent) lasted(m moment) time.Duration { return a.clock().Sub(m.clock) }

// end is the date of something that began then and ends now. It is not before the
// beginning if the date was set back meanwhile.
func (a *Agent) end(began moment) time.Time {
	now := a.now().Round(0)
	if now.Before(began.date.Round(0)) {
		return began.date.Add(a.lasted(began))
	}
	return now
}
