package control_test

import (
	"sync"
	"testing"
	"time"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/control"
	"github.com/batchyard/batchyard/store"
	"github.com/batchyard/batchyard/store/storetest"
)

// hands are the clocks of a machine: a date that is set and a clock that is not.
type hands struct {
	mu  sync.Mutex // guards all below
	now store.Reading
}

func newHands() *hands {
	return &hands{now: store.Reading{Wall: time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC), Boot: "boot", Up: time.Hour}}
}

func (m *hands) read() store.Reading {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.now
}

// pass lets time pass, set sets the date, and neither ever takes no time at all.
func (m *hands) pass(d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now.Wall, m.now.Up = m.now.Wall.Add(d), m.now.Up+d
}

func (m *hands) set(d time.Duration) {
	m.pass(time.Second)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now.Wall = m.now.Wall.Add(d)
}

func TestDateThatIsSetBackLosesNothing(t *testing.T) {
	t.Parallel()
	storetest.Each(t, func(t *testing.T, url string) {
		m := newHands()
		y := newYardAt(t, url, m.read)
		y.prepare(1, 1)
		node := y.handNode()
		y.addTasks("job", "t", 2)
		created := y.task("job", "t-000").CreationTime
		y.assign(node, "t-000")
		node.sync()
		node.start("t-000")
		node.of("t-000").Start.Time = m.read().Wall
		node.sync()
		m.set(-time.Hour)
		node.end("t-000", 0)
		node.of("t-000").Outcome.End = batch.At(m.read().Wall)
		node.sync()
		t.Run("in lists by time of creation", func(t *testing.T) {
			page, err := y.Tasks(ctx(t), acct, "job", control.Query{Filter: "creationTime ge datetime'" + created.Format(time.RFC3339Nano) + "'"})
			y.check(err)
			if len(page.Items) != 2 {
				t.Errorf("%d tasks are listed that were created then, want 2", len(page.Items))
			}
		})
		t.Run("and what a task went through has the order in which it was", func(t *testing.T) {
			got := y.task("job", "t-000")
			times := []time.Time{
				got.CreationTime, got.ExecutionInfo.StartTime.Time, got.PreviousStateTransitionTime,
				got.ExecutionInfo.EndTime.Time, got.StateTransitionTime,
			}
			for i := range times[1:] {
				if times[i+1].Before(times[i]) {
					t.Errorf("times go back: %v", times)
				}
			}
		})
	})
}

// TestLimitsOfTimeDoNotMoveWithTheDate sets the date on and back, and looks whether a
// job and the files of a task have the hour that they were given, and no more.
func TestLimitsOfTimeDoNotMoveWithTheDate(t *testing.T) {
	t.Parallel()
	for name, set := range map[string]time.Duration{"on": 24 * time.Hour, "back": -10 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			storetest.Each(t, func(t *testing.T, url string) { setDate(t, url, set) })
		})
	}
}

func setDate(t *testing.T, url string, set time.Duration) {
	m := newHands()
	y := newYardAt(t, url, m.read)
	y.prepare(2, 1)
	spec := jobSpec("limited")
	hour := batch.Hour
	spec.Constraints = &batch.JobConstraints{MaxWallClockTime: &hour}
	_, err := y.AddJob(ctx(t), acct, spec)
	y.check(err)
	node := y.handNode()
	y.addTasks("job", "t", 1, func(s *batch.TaskSpecification) { s.Constraints = &batch.TaskConstraints{RetentionTime: &hour} })
	y.assign(node, "t-000")
	node.sync()
	node.end("t-000", 0)
	node.sync()

	look := func() (job batch.JobState, gone bool) {
		t.Helper()
		next, err := y.ExpireJobs(ctx(t))
		y.check(err)
		if !next.IsZero() && !next.After(y.db.Now()) {
			t.Errorf("a job is due at %v, and now it is %v", next, y.db.Now())
		}
		_, err = y.RemoveExpiredFiles(ctx(t))
		y.check(err)
		return y.job("limited").State, y.task("job", "t-000").FilesRemoved
	}
	m.set(set)
	if job, gone := look(); job != batch.JobActive || gone {
		t.Errorf("right after the date was set the job is %s and files are removed: %v", job, gone)
	}
	m.pass(time.Hour)
	if job, gone := look(); job != batch.JobCompleted || !gone {
		t.Errorf("an hour later the job is %s and files are removed: %v", job, gone)
	}
}
