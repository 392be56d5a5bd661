package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// ErrNotFound says that the row asked for does not exist.
var ErrNotFound = errors.New("not found")

// ErrClosed says that the database has been closed.
var ErrClosed = errors.New("database is closed")

// ErrInUse says that another server works on the database, where there may be
// one only.
var ErrInUse = errors.New("database is in use by another server")

// ErrTaken says that another server has worked on the database since this one
// opened it, so that this one must end.
var ErrTaken = errors.New("database was taken over by another server")

// Options says which database to open and how.
type Options struct {
	// URL is "postgres://…", "sqlite:///absolute/path/file.db" or the plain
	// path of an SQLite file, which is made if it does not exist.
	URL string

	// Now reads the date; time.Now if nil.
	Now func() time.Time

	// Clock reads the date and the clock that nobody sets. If it is nil the
	// date is that of Now, and the other clock the machine's; where Now gives
	// times without a monotonic part, time is played and there is no other.
	Clock func() Reading

	// Log gets slow updates, migrations and trouble with checkpoints and
	// notifications; discarded if nil.
	Log *slog.Logger

	restoring bool   // what is not all there is opened too
	clock     *clock // of the database that this is to be a copy of
}

// DB is an open database. Its methods may be called from many goroutines.
type DB struct {
	dialect *dialect
	clock   *clock
	log     *slog.Logger

	readers chan *session // nil where a connection has yet to be opened
	writer  *writer
	changes *changes

	statements atomic.Uint64 // run in transactions

	full atomic.Bool // the last update found no room on the disk

	stop    context.CancelFunc // ends the background goroutines
	running sync.WaitGroup     // the background goroutines
	closing sync.Once
	closed  chan struct{}
	lost    chan struct{} // closed by taken
	losing  sync.Once
	release []func() error // what Close undoes, last opened first
}

// Open opens the database, brings its schema up to date and starts the writer.
// It fails with ErrInUse if another server has it open: at once with SQLite, and
// with PostgreSQL, which may take a moment to notice that a server has died, after
// five seconds.
func Open(ctx context.Context, o Options) (*DB, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	db := &DB{clock: o.newClock(), log: o.Log, changes: newChanges(), closed: make(chan struct{}), lost: make(chan struct{})}
	if err := db.open(ctx, o); err != nil {
		return nil, errors.Join(fmt.Errorf("open database: %w", err), db.undo())
	}
	if err := db.refuseHalf(ctx, o.restoring); err != nil {
		return nil, errors.Join(fmt.Errorf("open database: %w", err), db.Close())
	}
	return db, nil
}

// newClock is the clock of a database that is opened so, before it has read what
// the database knows of time.
func (o *Options) newClock() *clock {
	switch {
	case o.clock != nil:
		return o.clock.of(o.Log)
	case o.Clock != nil:
		return newClock(o.Clock, o.Log)
	case o.Now != nil:
		return newClock(machineClock(o.Now), o.Log)
	}
	return newClock(machineClock(time.Now), o.Log)
}

// refuseHalf keeps a server from a database whose restore was killed.
func (db *DB) refuseHalf(ctx context.Context, restoring bool) error {
	if restoring || db.Dialect() == SQLite {
		return nil
	}
	return db.View(ctx, func(tx *Tx) error {
		half, err := halfRestored(tx)
		if err == nil && half {
			err = errHalfRestored
		}
		return err
	})
}

func (db *DB) open(ctx context.Context, o Options) error {
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	db.stop = stop
	open := openSQLite
	if isPostgres(o.URL) {
		open = openPostgres
	}
	pools, err := open(ctx, db, o.URL)
	if err != nil {
		return err
	}
	db.readers = make(chan *session, db.dialect.readers)
	for range db.dialect.readers {
		db.readers <- nil
	}
	if o.clock == nil {
		if err := db.View(ctx, func(tx *Tx) error { return db.clock.load(tx.QueryRow(selectClock)) }); err != nil {
			return err
		}
	}
	db.writer = newWriter(db, pools)
	db.start(func() { db.writer.run() })
	for _, run := range pools.background {
		db.start(func() { run(background) })
	}
	return nil
}

func (db *DB) start(run func()) {
	db.running.Go(run)
}

// Close waits for the update under way, refuses those still waiting with
// ErrClosed, and closes the database. Views must have ended.
func (db *DB) Close() error {
	var err error
	db.closing.Do(func() {
		close(db.closed)
		err = db.undo()
	})
	return err
}

// Lost is closed when another server has taken the database over: every update
// fails with ErrTaken then, and what this process remembers is old.
func (db *DB) Lost() <-chan struct{} { return db.lost }

func (db *DB) taken() { db.losing.Do(func() { close(db.lost) }) }

// undo releases whatever has been opened so far.
func (db *DB) undo() error {
	if db.stop != nil {
		db.stop()
	}
	db.running.Wait()
	var errs []error
	if db.readers != nil {
		for range db.dialect.readers {
			if s := <-db.readers; s != nil {
				errs = append(errs, s.close())
			}
		}
	}
	for i := len(db.release) - 1; i >= 0; i-- {
		errs = append(errs, db.release[i]())
	}
	return errors.Join(errs...)
}

// Dialect says which database this is.
func (db *DB) Dialect() Dialect { return db.dialect.name }

// View runs fn on a read-only snapshot of the database: what fn reads does not
// change while it runs. A View keeps one of a few connections, so it should be
// brief and must not open another View.
func (db *DB) View(ctx context.Context, fn func(tx *Tx) error) error {
	s, err := db.beginView(ctx)
	if err != nil {
		return err
	}
	defer func() {
		if s.exec(context.WithoutCancel(ctx), "ROLLBACK") != nil {
			s = discard(s)
		}
		db.readers <- s
	}()
	err = fn(db.newTx(ctx, s, true))
	if err != nil && ctx.Err() != nil {
		return errors.Join(ctx.Err(), err) // drivers name a canceled statement in their own ways
	}
	return err
}

// beginView begins a snapshot on one of the reading connections. One that broke
// while it was idle is replaced.
func (db *DB) beginView(ctx context.Context) (*session, error) {
	s, err := db.reader(ctx)
	if err != nil {
		return nil, err
	}
	err = s.exec(ctx, db.dialect.beginView)
	if err != nil && db.dialect.lost(err) && ctx.Err() == nil {
		discard(s)
		if s, err = db.dialect.openReader(ctx); err != nil {
			db.readers <- nil
			return nil, fmt.Errorf("open connection: %w", err)
		}
		err = s.exec(ctx, db.dialect.beginView)
	}
	if err != nil {
		db.readers <- discard(s)
		return nil, fmt.Errorf("begin view: %w", err)
	}
	return s, nil
}

// reader waits for one of the reading connections.
func (db *DB) reader(ctx context.Context) (*session, error) {
	select {
	case <-db.closed:
		return nil, ErrClosed
	default:
	}
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-db.closed:
		return nil, ErrClosed
	case s := <-db.readers:
		if s != nil {
			return s, nil
		}
	}
	s, err := db.dialect.openReader(ctx)
	if err != nil {
		db.readers <- nil
		return nil, fmt.Errorf("open connection: %w", err)
	}
	return s, nil
}

// Update runs fn in a transaction and returns once its changes are on disk. If
// fn returns an error its changes are undone and Update returns that error.
//
// Canceling ctx takes an update out of the queue, but not out of a transaction
// that has begun: then Update waits for the outcome, so that the caller knows
// it. See the package comment for what fn may do.
//
// While the disk is full it returns a [batch.Error] that says ServerBusy.
func (db *DB) Update(ctx context.Context, fn func(tx *Tx) error) error {
	return db.outcome(db.writer.update(ctx, fn))
}

// Stats counts what the writer has done since Open.
type Stats struct {
	Updates uint64        // updates answered, failed ones included
	Commits uint64        // transactions committed
	Longest time.Duration // the longest a single update has kept the others waiting
}

// Stats returns the writer's counters.
func (db *DB) Stats() Stats { return db.writer.stats() }

// newTx is a transaction at this moment.
func (db *DB) newTx(ctx context.Context, s *session, readOnly bool) *Tx {
	date, steady := db.clock.tell()
	return &Tx{ctx: ctx, session: s, statements: &db.statements, now: date, lead: date.Sub(steady), readOnly: readOnly}
}

// pools is what the opening of a database hands to Open.
type pools struct {
	write      *sql.DB
	session    *session                    // the first of write, if it was opened already
	committed  func(*session)              // called by the writer after a commit
	background []func(ctx context.Context) // run until the database is closed
}
