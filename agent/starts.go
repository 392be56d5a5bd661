package agent

import (
	"fmt"
	"sync"
	"time"

	"github.com/batchyard/batchyard/batch"
)

// starts looks after how many attempts in a row could not begin. A node on
// which nothing begins is free again at once, and would use up all tasks there
// are. So it is set aside for a while, and tried again with one task after the
// other; the while gets longer as long as none of them begins.
type starts struct {
	agent *Agent

	mu   sync.Mutex           // guards all below
	row  int                  // that did not begin, since the last that did
	own  int                  // of these, for a reason that is the node's
	jobs map[batch.JobID]bool // of these; no more than severalJobs
	// aside is how long the node is set aside the next time.
	aside time.Duration
	rows  int // how many such rows there were
}

const (
	// One job may have a wrong command line in all of its tasks. Of several it
	// is less likely, and of what the node itself is to blame for, there is no
	// doubt.
	severalStarts = 5
	severalJobs   = 3
	severalOwn    = 3

	firstAside   = 5 * time.Second
	longestAside = 10 * time.Minute
)

// began notes that an attempt has begun.
func (s *starts) began() {
	s.mu.Lock()
	before := s.row
	s.row, s.own, s.jobs, s.aside = 0, 0, nil, 0
	if before > 0 {
		s.rows++
	}
	s.mu.Unlock()
	if before > 0 {
		s.agent.health.over(causeStarts)
	}
}

// failed notes that an attempt could not begin, and why; own tells that the
// node is to blame.
func (s *starts) failed(job batch.JobID, own bool, why string) {
	again := !s.agent.health.has(causeStarts)
	s.mu.Lock()
	s.row++
	if own {
		s.own++
	}
	if s.jobs == nil {
		s.jobs = map[batch.JobID]bool{}
	}
	if len(s.jobs) < severalJobs {
		s.jobs[job] = true
	}
	row := s.row
	set := again && (s.own >= severalOwn || row >= severalStarts && len(s.jobs) >= severalJobs)
	if set {
		s.aside = min(max(firstAside, 2*s.aside), longestAside)
	}
	wait, rows := s.aside, s.rows
	s.mu.Unlock()
	if !set {
		return
	}
	message := fmt.Sprintf("The last %d tasks that were to begin on the compute node could not be started.", row)
	reason := detail("Message", why)
	s.agent.Log.Warn("node set aside because tasks do not start", "row", row, "for", wait, "why", why)
	s.agent.health.tell(causeStarts, true, errorNoStarts, message+" It is set aside for "+wait.String()+".", reason)
	s.agent.work.Go(func() {
		if pause(s.agent.working, wait) && s.lasts(rows) {
			s.agent.health.tell(causeStarts, false, errorNoStarts, message+" It is tried again.", reason)
		}
	})
}

// lasts tells whether nothing has begun since there were so many rows.
func (s *starts) lasts(rows int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rows == rows
}
