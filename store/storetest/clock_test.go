package storetest_test

import (
	"testing"
	"time"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/store"
	"github.com/batchyard/batchyard/store/storetest"
)

// machine is a machine whose date is set, and which is started anew, as a test
// likes.
type machine struct {
	t    *testing.T
	url  string
	db   *store.DB
	wall time.Time
	boot string
	up   time.Duration
}

func newMachine(t *testing.T, url string) *machine {
	t.Helper()
	m := &machine{t: t, url: url, wall: noon, boot: "first", up: time.Hour}
	m.open()
	t.Cleanup(func() { _ = m.db.Close() })
	return m
}

func (m *machine) open() {
	m.t.Helper()
	db, err := store.Open(m.t.Context(), store.Options{URL: m.url, Clock: func() store.Reading {
		return store.Reading{Wall: m.wall, Boot: m.boot, Up: m.up}
	}})
	m.db = must(m.t, db, err)
}

// pass lets time pass, and set sets the date; a negative one goes back.
func (m *machine) pass(d time.Duration) { m.wall, m.up = m.wall.Add(d), m.up+d }
func (m *machine) set(d time.Duration)  { m.wall = m.wall.Add(d) }

// restart is a new life of the server after some time; with boot the machine was
// started anew, too.
func (m *machine) restart(after time.Duration, boot bool) {
	m.t.Helper()
	if err := m.db.Close(); err != nil {
		m.t.Fatal(err)
	}
	m.pass(after)
	if boot {
		m.boot, m.up = m.boot+"'", time.Second
	}
	m.open()
}

// commit commits and returns the date of that.
func (m *machine) commit() time.Time {
	m.t.Helper()
	return changed(m.t, m.db, func(tx *store.Tx) (time.Time, error) { return tx.Now(), nil })
}

func TestDatesNeverGoBack(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		do   func(m *machine)
		want time.Duration // of the date, after the machine's, at the end
	}{
		"they follow the date of the machine":        {func(m *machine) { m.pass(time.Hour) }, 0},
		"and go on with it when it is set on":        {func(m *machine) { m.set(24 * time.Hour) }, 0},
		"they stay when it is set back":              {func(m *machine) { m.set(-time.Hour) }, time.Hour},
		"and go on at half speed":                    {func(m *machine) { m.set(-time.Hour); m.commit(); m.pass(time.Minute) }, time.Hour - time.Minute/2},
		"until it has caught up":                     {func(m *machine) { m.set(-time.Hour); m.commit(); m.pass(2 * time.Hour) }, 0},
		"a restart does not take them back":          {func(m *machine) { m.restart(10*time.Second, false); m.set(-time.Hour) }, time.Hour},
		"nor does setting the date while all is off": {func(m *machine) { m.set(-time.Hour); m.restart(0, false) }, time.Hour + time.Second},
		"nor a machine that wakes in the past":       {func(m *machine) { m.set(-time.Hour); m.restart(0, true) }, time.Hour + time.Second},
		"a restart costs a second at most":           {func(m *machine) { m.restart(time.Millisecond, false) }, time.Second - time.Millisecond},
		"and nothing when it takes longer":           {func(m *machine) { m.restart(time.Minute, false) }, 0},
		"and nothing when the machine was put back":  {func(m *machine) { m.up -= time.Hour; m.restart(time.Minute, false); m.pass(time.Minute) }, 0},
		"also while the server runs":                 {func(m *machine) { m.up -= time.Hour; m.pass(time.Minute); m.commit(); m.pass(time.Minute) }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			storetest.Each(t, func(t *testing.T, url string) {
				m := newMachine(t, url)
				before := m.commit()
				c.do(m)
				after := m.commit()
				if after.Before(before) {
					t.Errorf("a commit at %v is followed by one at %v", before, after)
				}
				// Within what the clock lets pass as the same.
				if got := after.Sub(m.wall); (got - c.want).Abs() > 50*time.Millisecond {
					t.Errorf("the date is %v after the machine's, want %v", got, c.want)
				}
			})
		})
	}
}

// TestWhatIsDueWaitsForItsTime sets the date and looks when a job that may take an
// hour, files that stay for an hour, a resize with an hour and a node that waits for
// an hour are due.
func TestWhatIsDueWaitsForItsTime(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		do   func(m *machine)
		left time.Duration // until they are due
	}{
		"an hour is an hour":                     {func(m *machine) { m.pass(20 * time.Minute) }, 40 * time.Minute},
		"when the date is set on":                {func(m *machine) { m.set(24 * time.Hour) }, time.Hour},
		"when it is set back":                    {func(m *machine) { m.set(-30 * time.Minute); m.commit(); m.pass(20 * time.Minute) }, 40 * time.Minute},
		"when it is set both ways":               {func(m *machine) { m.set(5 * time.Hour); m.commit(); m.set(-7 * time.Hour); m.pass(time.Minute) }, 59 * time.Minute},
		"over a restart":                         {func(m *machine) { m.restart(10*time.Minute, false) }, 50 * time.Minute},
		"when the date was set during a restart": {func(m *machine) { m.set(24 * time.Hour); m.restart(10*time.Minute, false) }, 50 * time.Minute},
		"when it was set back during a restart":  {func(m *machine) { m.set(-24 * time.Hour); m.restart(10*time.Minute, false) }, 50 * time.Minute},
		"over a start of the machine":            {func(m *machine) { m.restart(10*time.Minute, true) }, 50 * time.Minute},
		"which nobody knows the length of":       {func(m *machine) { m.set(-time.Hour); m.restart(0, true) }, time.Hour},
		"when the machine was put back":          {func(m *machine) { m.up -= 30 * time.Minute; m.restart(10*time.Minute, false) }, 50 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			storetest.Each(t, func(t *testing.T, url string) {
				m := newMachine(t, url)
				insertDue(t, m)
				c.do(m)
				if got := m.due(); len(got) > 0 {
					t.Errorf("due at once: %v", got)
				}
				m.pass(c.left - time.Second)
				if got := m.due(); len(got) > 0 {
					t.Errorf("due a second early: %v", got)
				}
				m.pass(2 * time.Second)
				diff(t, []string{"job", "files", "resize", "node", "block"}, m.due())
			})
		})
	}
}

// insertDue makes what is due an hour from now.
func insertDue(t *testing.T, m *machine) {
	t.Helper()
	y := newYard(t, m.db, 1)
	limited := newJob(t, "acct", "limited", "Pool")
	limited.Constraints.MaxWallClockTime = ptr(batch.Hour)
	update(t, m.db, func(tx *store.Tx) error {
		now := tx.Now()
		limited.StartTime = now
		if err := tx.InsertJob(&limited); err != nil {
			return err
		}
		task := &y.tasks[0]
		task.Constraints.RetentionTime = ptr(batch.Hour)
		if err := task.Bind(y.nodes[0].ID); err != nil {
			return err
		}
		if err := task.Finish(now, batch.Outcome{End: batch.At(now), ExitCode: ptr(0)}, now); err != nil {
			return err
		}
		if err := tx.UpdateTask(task); err != nil {
			return err
		}
		y.pool.ResizeDeadline, y.nodes[0].HoldUntil = now.Add(time.Hour), now.Add(time.Hour)
		if err := tx.UpdatePool(&y.pool); err != nil {
			return err
		}
		if err := tx.UpdateNode(&y.nodes[0]); err != nil {
			return err
		}
		_, err := tx.PutBlobBlock("container", "blob", store.BlobBlock{Block: "block", File: "file"})
		return err
	})
	if got := m.due(); len(got) > 0 {
		t.Fatalf("due from the beginning: %v", got)
	}
}

// due names what is due.
func (m *machine) due() (due []string) {
	m.t.Helper()
	err := m.db.View(m.t.Context(), func(tx *store.Tx) error {
		jobs, err := tx.ExpiringJobs(tx.Now())
		if err != nil {
			return err
		}
		if next, ok, err := tx.NextJobExpiry(); err != nil || !ok || !next.After(tx.Now()) != (len(jobs) > 0) {
			m.t.Errorf("a job is next due %v (%v, %v), and %d are now, at %v", next, ok, err, len(jobs), tx.Now())
		}
		if len(jobs) > 0 {
			due = append(due, "job")
		}
		tasks, err := tx.ExpiredTasks(tx.Now(), 10)
		if err != nil {
			return err
		}
		if until, kept, err := tx.RetainedUntil("tvmps_001_d"); err != nil || kept || !until.After(tx.Now()) != (len(tasks) > 0) {
			m.t.Errorf("files are kept until %v (%v), and of %d tasks they go now, at %v", until, err, len(tasks), tx.Now())
		}
		if len(tasks) > 0 {
			due = append(due, "files")
		}
		p, err := tx.Pool("acct", "pool")
		if err != nil {
			return err
		}
		if !tx.Now().Before(p.ResizeDeadline) {
			due = append(due, "resize")
		}
		n, err := tx.Node("tvmps_001_d")
		if err != nil {
			return err
		}
		if !tx.Now().Before(n.HoldUntil) {
			due = append(due, "node")
		}
		return nil
	})
	if err != nil {
		m.t.Fatal(err)
	}
	freed := changed(m.t, m.db, func(tx *store.Tx) ([]string, error) {
		freed, _, err := tx.ExpireBlobBlocks(tx.Now().Add(-time.Hour), 10)
		return freed, err
	})
	if len(freed) > 0 {
		due = append(due, "block")
	}
	return due
}
