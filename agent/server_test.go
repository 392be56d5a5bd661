package agent_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/batchyard/batchyard/batch"
)

// server plays the server: it keeps what the node should be doing, takes its
// reports and answers as package control does.
type server struct {
	t testing.TB

	mu       sync.Mutex // guards all below
	news     chan struct{}
	settings batch.NodeSettings
	lease    time.Duration
	orders   batch.NodeOrders // Run is always set
	attempt  int              // the newest
	report   batch.NodeReport // the newest
	agent    batch.AgentInfo
	results  []result
	calls    int
	most     int   // so many are answered, if set
	failed   int   // calls while the server was down
	waiting  int   // the number of the newest call that waits
	down     error // the answer to all calls, if set
	lose     int   // so many answers more are lost
	left     bool
	files    map[string]chan fileAnswer // who waits for answers
	told     map[string]bool            // of which requests the node was told
	stall    chan struct{}              // answers to file requests wait for it, if set
	stalled  int                        // how many have
	instance string
}

// result is an attempt that ended or was given back.
type result struct {
	batch.TaskReport
}

// fileAnswer is an answer to a file request with all its bytes.
type fileAnswer struct {
	batch.FileAnswer
	body string
}

var errDown = errors.New("the server is down")

func newServer(t testing.TB) *server {
	return &server{
		t: t, news: make(chan struct{}), lease: time.Minute, files: map[string]chan fileAnswer{}, told: map[string]bool{},
		orders: batch.NodeOrders{Revision: 1, Boot: 1},
		settings: batch.NodeSettings{
			Version: 1, Account: "myaccount", AccountURL: "https://myaccount.region.example", Pool: "mypool", Node: "tvmps_1_d",
			Dedicated: true, TaskSlots: 2, Size: batch.Size{Cores: 2, Memory: 1 << 30, Disk: 1 << 33},
		},
	}
}

// Sync is the agent's call.
func (s *server) Sync(ctx context.Context, report batch.NodeReport) (batch.NodeOrders, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	if s.down != nil {
		s.failed++
		s.changed()
		return batch.NodeOrders{}, s.down
	}
	if s.most > 0 && s.calls > s.most {
		return batch.NodeOrders{}, errDown
	}
	if s.instance != report.Instance && report.Revision != 0 {
		return batch.NodeOrders{}, batch.Errorf(batch.CodeForbidden, "A newer agent speaks for the node.")
	}
	stale := s.instance == report.Instance && report.Number < s.report.Number
	s.instance = report.Instance
	final := !stale && s.take(report)
	s.changed()
	if !final && !report.NoWait {
		if err := s.hold(ctx, report); err != nil {
			return batch.NodeOrders{}, err
		}
	}
	if s.lose > 0 {
		s.lose--
		return batch.NodeOrders{}, errDown
	}
	return s.answer(report), nil
}

// hold waits for news.
func (s *server) hold(ctx context.Context, report batch.NodeReport) error {
	s.waiting++
	mine := s.waiting
	for s.down == nil && s.waiting == mine && report.Revision == s.orders.Revision &&
		report.Settings == s.settings.Version && !s.asked() {
		news := s.news
		s.mu.Unlock()
		select {
		case <-news:
		case <-ctx.Done():
		}
		s.mu.Lock()
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return s.down
}

// take accepts what a report says and tells whether it must be answered at once.
func (s *server) take(report batch.NodeReport) (final bool) {
	s.report = report
	if report.Agent != nil {
		s.agent = *report.Agent
	}
	for _, t := range report.Tasks {
		at := slices.IndexFunc(s.orders.Tasks, func(o batch.TaskOrder) bool {
			return o.Job == t.Job && o.Task == t.Task && o.Attempt == t.Attempt
		})
		switch {
		case t.Phase == batch.PhaseEnded, t.Phase == batch.PhaseReleased:
			final = true
			if at >= 0 {
				s.orders.Tasks = slices.Delete(s.orders.Tasks, at, at+1)
				s.results = append(s.results, result{t})
			}
		case t.Phase == batch.PhaseRunning && at >= 0:
			s.orders.Tasks[at].Started = true
		}
	}
	for _, id := range report.Removed {
		final = true
		done := func(r batch.Removal) bool { return r.ID == id }
		s.orders.Removals, s.orders.Ahead = slices.DeleteFunc(s.orders.Removals, done), slices.DeleteFunc(s.orders.Ahead, done)
	}
	s.left = s.left || report.Left
	return final || report.Left
}

func (s *server) answer(report batch.NodeReport) batch.NodeOrders {
	orders := s.orders
	orders.Lease = batch.DurationOf(s.lease)
	if report.Settings != s.settings.Version {
		settings := s.settings
		orders.Settings = &settings
	}
	orders.Tasks = slices.Clone(s.orders.Tasks)
	for i := range orders.Tasks {
		o := &orders.Tasks[i]
		if slices.ContainsFunc(report.Tasks, func(t batch.TaskReport) bool {
			return o.Job == t.Job && o.Task == t.Task && o.Attempt == t.Attempt
		}) {
			o.Run = nil
		}
	}
	orders.Removals, orders.Ahead, orders.Files = slices.Clone(s.orders.Removals), slices.Clone(s.orders.Ahead), slices.Clone(s.orders.Files)
	for _, r := range orders.Files {
		s.told[r.ID] = true
	}
	return orders
}

// asked tells whether there is a request for a file that the node does not know.
func (s *server) asked() bool {
	return slices.ContainsFunc(s.orders.Files, func(r batch.FileRequest) bool { return !s.told[r.ID] })
}

// giveUp takes back a request for a file. The caller holds the lock.
func (s *server) giveUp(id string) {
	delete(s.files, id)
	s.orders.Files = slices.DeleteFunc(s.orders.Files, func(r batch.FileRequest) bool { return r.ID == id })
}

// AnswerFile is the agent's answer to a file request.
func (s *server) AnswerFile(_ context.Context, id string, answer batch.FileAnswer, body io.Reader) error {
	var content []byte
	if body != nil {
		var err error
		if content, err = io.ReadAll(body); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if stall := s.stall; stall != nil {
		s.stalled++
		s.changed()
		s.mu.Unlock()
		<-stall
		s.mu.Lock()
	}
	waiting := s.files[id]
	if waiting == nil {
		return batch.Errorf(batch.CodeResourceNotFound, "Nobody waits.")
	}
	s.giveUp(id)
	waiting <- fileAnswer{answer, string(content)}
	return nil
}

// changed wakes whoever waits. The caller holds the lock.
func (s *server) changed() {
	close(s.news)
	s.news = make(chan struct{})
}

// change changes the orders in one revision.
func (s *server) change(do func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	do()
	s.orders.Revision++
	s.changed()
}

// until waits for a condition of what the server knows.
func (s *server) until(what string, met func() bool) {
	s.t.Helper()
	limit := time.NewTimer(testTime)
	defer limit.Stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	for !met() {
		news := s.news
		s.mu.Unlock()
		select {
		case <-news:
		case <-limit.C:
			s.mu.Lock()
			s.t.Fatalf("waited too long for: %s; last report %+v", what, s.report)
		}
		s.mu.Lock()
	}
}

// add binds a task of job j to the node and returns its attempt.
func (s *server) add(task string, run *batch.TaskRun) int {
	var attempt int
	s.change(func() { attempt = s.bind(task, run) })
	return attempt
}

// bind is add within a change.
func (s *server) bind(task string, run *batch.TaskRun) int {
	s.attempt++
	s.orders.Tasks = append(s.orders.Tasks, batch.TaskOrder{Job: "j", Task: batch.TaskID(task), Attempt: s.attempt, Run: run})
	return s.attempt
}

// unbind takes a task away from the node.
func (s *server) unbind(task string) {
	s.orders.Tasks = slices.DeleteFunc(s.orders.Tasks, func(o batch.TaskOrder) bool { return string(o.Task) == task })
}

// release asks for a task back.
func (s *server) release(task string, how batch.Release) {
	s.change(func() {
		for i := range s.orders.Tasks {
			if o := &s.orders.Tasks[i]; string(o.Task) == task {
				o.Release = how
			}
		}
	})
}

// result waits for the end of an attempt.
func (s *server) result(attempt int) batch.TaskReport {
	s.t.Helper()
	var found batch.TaskReport
	s.until(fmt.Sprintf("end of attempt %d", attempt), func() bool {
		at := slices.IndexFunc(s.results, func(r result) bool { return r.Attempt == attempt })
		if at >= 0 {
			found = s.results[at].TaskReport
		}
		return at >= 0
	})
	return found
}

// outcome waits for the outcome of an attempt, which must have one.
func (s *server) outcome(attempt int) batch.Outcome {
	s.t.Helper()
	r := s.result(attempt)
	if r.Phase != batch.PhaseEnded || r.Outcome == nil {
		s.t.Fatalf("attempt %d was reported as %+v, want an outcome", attempt, r)
	}
	return *r.Outcome
}

// run runs a task to its end.
func (s *server) run(task string, run *batch.TaskRun) batch.Outcome {
	s.t.Helper()
	return s.outcome(s.add(task, run))
}

// phase waits until a task is reported in a phase.
func (s *server) phase(task string, phase batch.TaskPhase) {
	s.t.Helper()
	s.until(task+" is "+string(phase), func() bool {
		return slices.ContainsFunc(s.report.Tasks, func(t batch.TaskReport) bool { return string(t.Task) == task && t.Phase == phase })
	})
}

// forgotten waits until the node reports a task no longer.
func (s *server) forgotten(task string) {
	s.t.Helper()
	s.until(task+" is forgotten", func() bool {
		return s.report.Revision > 0 &&
			!slices.ContainsFunc(s.report.Tasks, func(t batch.TaskReport) bool { return string(t.Task) == task })
	})
}

// booted waits for the end of a boot.
func (s *server) booted(number int) batch.NodeReport {
	s.t.Helper()
	var report batch.NodeReport
	s.until(fmt.Sprintf("end of boot %d", number), func() bool {
		report = s.report
		return report.Boot == number && !report.Booting && report.Revision > 0
	})
	return report
}

// ask makes a file request and waits for the answer.
func (s *server) ask(request batch.FileRequest) fileAnswer {
	s.t.Helper()
	answer := make(chan fileAnswer, 1)
	s.mu.Lock()
	s.attempt++
	request.ID = fmt.Sprint("request", s.attempt)
	s.files[request.ID] = answer
	s.orders.Files = append(s.orders.Files, request)
	s.changed()
	s.mu.Unlock()
	select {
	case got := <-answer:
		return got
	case <-time.After(testTime):
		s.t.Fatal("no answer to a file request")
		return fileAnswer{}
	}
}
