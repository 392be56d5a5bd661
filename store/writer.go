package store

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"time"
)

// A group is committed once this many updates are in it, or once it has run
// for this long, whoever else may be waiting: the first of it waits for all.
const (
	maxGroup     = 256
	maxGroupTime = 20 * time.Millisecond
)

// maxAttempts is how often a group runs when the database keeps saying "again".
const maxAttempts = 6

// slowUpdate is when an update that keeps all others waiting is worth a line in
// the log.
const slowUpdate = 250 * time.Millisecond

// writer owns the one connection that writes. Callers hand it their updates
// over a channel without buffer, so an update is either still the caller's, and
// can be withdrawn, or the writer's, and will be answered.
//
// There is no delay to gather company: the updates that arrive while a commit
// is being synced are the next group.
type writer struct {
	db      *DB
	pools   *pools
	session *session // nil before the first update and after a broken connection
	queue   chan *update
	between chan func() // run while no transaction is open

	updates atomic.Uint64
	commits atomic.Uint64
	longest atomic.Int64
}

// update is one call of Update on its way through the writer.
type update struct {
	fn     func(*Tx) error
	err    error
	topics []string
	done   chan error
}

// errUnknown marks a commit whose answer was lost: it may be on disk or not, so
// it must not be run again.
var errUnknown = errors.New("commit was sent and its outcome is unknown")

// errIgnored is the error of an update that carried on after a failed statement.
var errIgnored = errors.New("update ignored the error of a statement")

func newWriter(db *DB, pools *pools) *writer {
	return &writer{
		db:      db,
		pools:   pools,
		session: pools.session,
		queue:   make(chan *update),
		between: make(chan func()),
	}
}

// update hands fn to the writer and waits for its commit.
func (w *writer) update(ctx context.Context, fn func(*Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	u := &update{fn: fn, done: make(chan error, 1)}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-w.db.closed:
		return ErrClosed
	case w.queue <- u:
		return <-u.done
	}
}

// run serves updates until the database is closed.
func (w *writer) run() {
	defer func() {
		if w.session != nil {
			_ = w.session.close() // no transaction is open
		}
	}()
	for {
		select {
		case <-w.db.closed:
			return
		case f := <-w.between:
			f()
		case u := <-w.queue:
			w.serve(u)
		}
	}
}

// next returns an update that is waiting at this moment, or nil.
func (w *writer) next() *update {
	select {
	case u := <-w.queue:
		return u
	default:
		return nil
	}
}

// serve runs a group, begun by first and joined by those who arrive in time,
// and answers all of it.
func (w *writer) serve(first *update) {
	g := &group{writer: w, updates: []*update{first}}
	err := g.transact(w.next)
	for attempt := 1; w.again(err) && attempt < maxAttempts; attempt++ {
		<-time.After(time.Duration(attempt*attempt) * 5 * time.Millisecond)
		err = g.transact(nil)
	}
	switch {
	case err == nil:
		w.announce(g.updates)
		w.answer(g.updates)
		if w.session != nil {
			w.pools.committed(w.session)
		}
	case len(g.updates) > 1 && !w.db.dialect.lost(err):
		// One of them may be what the transaction cannot bear, such as a row
		// for which the disk has no room: alone it fails alone.
		for _, u := range g.updates {
			w.serve1(u)
		}
	default:
		w.fail(g.updates, err)
	}
}

// fail answers updates of which none is known to be on disk. Where that is not
// known of either, whoever watches looks again: if it is, it concerns them.
func (w *writer) fail(updates []*update, err error) {
	if errors.Is(err, errUnknown) {
		w.announce(updates)
	}
	for _, u := range updates {
		u.err = err
	}
	w.answer(updates)
}

// again says whether a group that failed may simply be run again. After a lost
// connection it may, unless the commit had been sent.
func (w *writer) again(err error) bool {
	if err == nil || errors.Is(err, errUnknown) {
		return false
	}
	return w.db.dialect.transient(err) || w.db.dialect.lost(err)
}

// serve1 runs one update in a transaction of its own.
func (w *writer) serve1(u *update) {
	g := &group{writer: w, updates: []*update{u}}
	if err := g.transact(nil); err != nil {
		w.fail(g.updates, err)
		return
	}
	w.announce(g.updates)
	w.answer(g.updates)
}

func (w *writer) announce(updates []*update) {
	for _, u := range updates {
		if u.err == nil {
			w.db.changes.announce(u.topics)
		}
	}
}

func (w *writer) answer(updates []*update) {
	w.updates.Add(uint64(len(updates)))
	for _, u := range updates {
		u.done <- u.err
	}
}

func (w *writer) stats() Stats {
	return Stats{
		Updates: w.updates.Load(),
		Commits: w.commits.Load(),
		Longest: time.Duration(w.longest.Load()),
	}
}

// connect opens the writing connection if there is none.
func (w *writer) connect(ctx context.Context) error {
	if w.session != nil {
		return nil
	}
	s, err := w.db.dialect.session(ctx, w.pools.write)
	if err != nil {
		return fmt.Errorf("open connection: %w", err)
	}
	if w.db.dialect.enter != nil {
		if err := w.db.dialect.enter(ctx, s); err != nil {
			discard(s)
			return err
		}
	}
	w.session = s
	return nil
}

// group is one transaction and the updates in it.
type group struct {
	writer  *writer
	updates []*update
	open    bool // the transaction has begun
	kept    int  // updates whose changes are in it
	saved   bool // the savepoint of an earlier update is still there
}

// transact runs the updates, and those that more returns, in one transaction
// and commits it. Its error concerns the whole group; that of a single update
// is left in its err.
func (g *group) transact(more func() *update) (err error) {
	w := g.writer
	ctx, cancel := w.db.dialect.groupContext()
	defer cancel()
	g.open, g.kept, g.saved = false, 0, false
	defer func() {
		if err == nil {
			return
		}
		g.rollback()
		if w.session != nil && w.db.dialect.lost(err) {
			w.session = discard(w.session)
		}
	}()
	start := time.Now()
	for i := 0; ; i++ {
		if i == len(g.updates) {
			if more == nil || i >= maxGroup || time.Since(start) >= maxGroupTime {
				break
			}
			u := more()
			if u == nil {
				break
			}
			g.updates = append(g.updates, u)
		}
		if err := g.apply(ctx, g.updates[i]); err != nil {
			return err
		}
	}
	return g.commit(ctx)
}

// apply runs one update. The first that counts needs no savepoint, since with
// it the whole transaction can go.
func (g *group) apply(ctx context.Context, u *update) error {
	w := g.writer
	if err := g.protect(ctx); err != nil {
		return err
	}
	tx := w.db.newTx(ctx, w.session, false)
	u.err = w.call(u.fn, tx)
	u.topics = tx.topics
	if u.err == nil && (tx.failed != nil || w.db.dialect.aborted(w.session)) {
		u.err = errors.Join(errIgnored, tx.failed)
	}
	if u.err == nil {
		g.kept++
		return nil
	}
	if cause := errors.Join(u.err, tx.failed); w.again(cause) {
		return cause
	}
	if g.kept == 0 {
		g.rollback()
		return nil
	}
	return w.session.exec(ctx, "ROLLBACK TO SAVEPOINT one")
}

// protect begins the transaction, or sets the savepoint that keeps the updates
// before this one.
func (g *group) protect(ctx context.Context) error {
	s := g.writer.session
	switch {
	case !g.open:
		if err := g.writer.connect(ctx); err != nil {
			return err
		}
		s = g.writer.session
		if err := s.exec(ctx, g.writer.db.dialect.beginUpdate...); err != nil {
			g.writer.session = discard(s) // it may have begun and then not got the lock
			return fmt.Errorf("begin: %w", err)
		}
		g.open = true
		return nil
	case g.saved:
		return s.exec(ctx, "RELEASE SAVEPOINT one", "SAVEPOINT one")
	default:
		g.saved = true
		return s.exec(ctx, "SAVEPOINT one")
	}
}

func (g *group) commit(ctx context.Context) error {
	if !g.open {
		return nil
	}
	w := g.writer
	kept, err := w.db.clock.keep(ctx, w.session)
	if err != nil {
		return err
	}
	if err := w.session.exec(ctx, "COMMIT"); err != nil {
		if w.db.dialect.lost(err) {
			return errors.Join(errUnknown, err)
		}
		return fmt.Errorf("commit: %w", err)
	}
	slowCommit()
	g.open = false
	kept()
	w.commits.Add(1)
	return nil
}

// rollback undoes the whole transaction. A connection on which even that fails
// is replaced: SQLite ends a transaction by itself when the disk is full, and a
// broken connection to PostgreSQL has ended it too.
func (g *group) rollback() {
	if !g.open {
		return
	}
	w := g.writer
	ctx, cancel := w.db.dialect.groupContext()
	defer cancel()
	g.open = false
	if err := w.session.exec(ctx, "ROLLBACK"); err != nil {
		w.session = discard(w.session)
	}
}

// call runs fn, turns a panic into an error, and measures.
func (w *writer) call(fn func(*Tx) error, tx *Tx) (err error) {
	start := time.Now()
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("update panicked: %v", r)
			w.db.log.Error("update panicked", "update", nameOf(fn), "panic", r, "stack", string(debug.Stack()))
		}
		took := time.Since(start)
		if took > time.Duration(w.longest.Load()) {
			w.longest.Store(int64(took))
		}
		if took > slowUpdate {
			w.db.log.Warn("slow update", "update", nameOf(fn), "took", took)
		}
	}()
	return fn(tx)
}

// nameOf names the function for the log.
func nameOf(fn func(*Tx) error) string {
	return runtime.FuncForPC(reflect.ValueOf(fn).Pointer()).Name()
}
