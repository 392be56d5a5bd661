package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// Reading is what the clocks of a machine say at one moment.
type Reading struct {
	// Wall is the date, which people and programs set, forth and back.
	Wall time.Time
	// Up is how long the machine has been up since the boot that Boot names,
	// asleep or not: nobody sets it. Of another boot it says nothing, and if
	// Boot is empty it says nothing at all.
	Boot string
	Up   time.Duration
}

// since is how long it has been since an earlier reading. After a boot, or when
// the machine was put back to an earlier moment of this one, as from a snapshot,
// only the date can tell, and it is believed unless it went back.
func (r Reading) since(earlier Reading) time.Duration {
	passed := r.Wall.Sub(earlier.Wall)
	if r.Boot != "" && r.Boot == earlier.Boot && r.Up >= earlier.Up {
		passed = r.Up - earlier.Up
	}
	return max(0, passed)
}

// machineClock reads the machine's clocks. If now is no clock of the machine,
// which a time without a monotonic part tells, its date is all there is.
func machineClock(now func() time.Time) func() Reading {
	boot := ""
	if t := now(); t != t.Round(0) { //nolint:revive // whether there is a monotonic part, not whether it is the same moment
		boot = bootName()
	}
	return func() Reading {
		r := Reading{Wall: now().Round(0), Boot: boot}
		if boot != "" {
			r.Up = uptime()
		}
		return r
	}
}

// clock tells transactions the time, by two hands. Dates are for people: they
// follow the machine's, but never go back, so that what comes later in the
// database never has an earlier date. When the machine's date is set back they
// go on at half speed until it has caught up. How long something has lasted is
// for the steady hand, which nobody sets.
//
// Both hands are carried over restarts by a row that is written with the
// commits: see [clock.keep].
type clock struct {
	read func() Reading // under mu, so that readings come in their order
	log  *slog.Logger

	mu     sync.Mutex // guards all below
	last   Reading
	steady time.Time
	lead   time.Duration // by which dates are ahead of the steady hand
	kept   time.Time     // dates after this are not to be committed before the row is
}

// keepStep is by how much the row is ahead of the dates that were given out, and
// so how often a busy database writes it, and how far dates may be ahead of the
// machine's after a kill.
const keepStep = time.Second

// tolerance is how far dates may be from the machine's, so that the lead stays as
// it is while nobody sets the date: the two clocks are not read at one moment.
const tolerance = 50 * time.Millisecond

// setStep is what is worth a line in the log.
const setStep = time.Second

func newClock(read func() Reading, log *slog.Logger) *clock {
	r := read()
	return &clock{read: read, log: log, last: r, steady: r.Wall}
}

// of is a clock that begins with the hands of another, for a copy of its database.
func (c *clock) of(log *slog.Logger) *clock {
	c.mu.Lock()
	defer c.mu.Unlock()
	return &clock{read: c.read, log: log, last: c.last, steady: c.steady, lead: c.lead}
}

// tell returns both hands, UTC, in the microseconds that a column keeps, so that
// a value written and read again is the same.
func (c *clock) tell() (date, steady time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.advance(c.read())
	steady = c.steady.UTC().Truncate(time.Microsecond)
	return steady.Add(c.lead.Truncate(time.Microsecond)), steady
}

// advance moves the hands to a reading. The caller holds the lock.
func (c *clock) advance(r Reading) {
	passed := r.since(c.last)
	if by := r.Wall.Sub(c.last.Wall) - passed; by.Abs() >= setStep {
		c.log.Warn("the date of this machine was set", "by", by.Round(time.Millisecond), "date", r.Wall)
	}
	c.steady = c.steady.Add(passed)
	c.last = r
	switch ahead := c.steady.Add(c.lead).Sub(r.Wall); {
	case ahead < -tolerance:
		c.lead -= ahead
	case ahead > tolerance:
		c.lead -= min(ahead, passed/2)
	}
}

// load takes up what the row says, if there is one.
func (c *clock) load(row *sql.Row) error {
	var date, steady, wall, up int64
	var boot string
	err := row.Scan(&date, &steady, &wall, &boot, &up)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read clock: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kept, c.steady = time.UnixMicro(date), time.UnixMicro(steady)
	c.lead = c.kept.Add(-keepStep).Sub(c.steady)
	c.last = Reading{Wall: time.UnixMicro(wall), Boot: boot, Up: time.Duration(up) * time.Microsecond}
	c.advance(c.read())
	c.lead = max(c.lead, c.kept.Sub(c.steady))
	return nil
}

const selectClock = `SELECT date, steady, wall, boot, up FROM clock`

// keep writes the row if the transaction, which is about to commit, has dates
// that it does not cover. It returns what to call once that is on disk.
func (c *clock) keep(ctx context.Context, s *session) (kept func(), err error) {
	c.mu.Lock()
	date, steady, last := c.steady.Add(c.lead), c.steady, c.last
	until, covered := date.Add(keepStep), !date.After(c.kept)
	c.mu.Unlock()
	if covered {
		return func() {}, nil
	}
	_, err = s.execute(ctx, `
		INSERT INTO clock (name, date, steady, wall, boot, up)
		VALUES ('service', $1, $2, $3, $4, $5)
		ON CONFLICT (name) DO UPDATE
		SET date = excluded.date, steady = excluded.steady, wall = excluded.wall, boot = excluded.boot, up = excluded.up`,
		[]any{until.UnixMicro(), steady.UnixMicro(), last.Wall.UnixMicro(), last.Boot, last.Up.Microseconds()})
	if err != nil {
		return nil, fmt.Errorf("keep clock: %w", err)
	}
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.kept = until
	}, nil
}

// Now is the date of the database at this moment, which deadlines that it gives
// are to be compared with: as in transactions it never goes back, and moments
// that are due move with it when the machine's date is set.
func (db *DB) Now() time.Time {
	date, _ := db.clock.tell()
	return date
}

// due is a moment as a column keeps it that says when something is due: by the
// steady clock, so that setting the date moves nothing. NULL for none.
func (tx *Tx) due(at time.Time) any {
	if at.IsZero() {
		return nil
	}
	return at.Add(-tx.lead).UnixMicro()
}

// dueDate reads what due wrote, as a date to compare with Now.
func (tx *Tx) dueDate(us sql.NullInt64) time.Time {
	if !us.Valid {
		return time.Time{}
	}
	return moment(us).Add(tx.lead)
}
