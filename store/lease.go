package store

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"
)

// ErrLeaseLost says that another server holds the lease now.
var ErrLeaseLost = errors.New("lease is lost")

// A Lease gives one server at a time the right to run a loop, such as the
// scheduler's.
//
// No two clocks are ever compared. The holder raises the counter beat in its
// row every third of the lease's length. A server that wants the lease watches
// the row; if beat has not moved for the whole length by its own clock, the
// holder is gone and the row is taken over, provided it is still the row that
// was seen. The holder trusts its lease for two thirds of the length counted
// from before its last renewal was sent, and then stops its loop by itself: it
// has stopped a third before anyone may begin. This needs clocks that run at
// about the same speed and nothing else.
//
// A loop that stalls, say in a stopped virtual machine, can wake up after its
// lease has passed on and still believe in it. Whoever cannot bear that calls
// Guard first in each update.
//
// With SQLite there is one server, and the lease is always its own.
type Lease struct {
	db     *DB
	name   string
	holder string
	length time.Duration
	term   term // what is held, or was last held
}

// term is the row as its holder last wrote it.
type term struct{ epoch, beat int64 }

// Lease returns a lease of the given name and length. The length is how long
// others wait after the holder has died.
func (db *DB) Lease(name string, length time.Duration) *Lease {
	return &Lease{db: db, name: name, holder: rand.Text(), length: length}
}

// Run waits for the lease, runs fn while it is held, and gives it back. When
// the lease is lost the context of fn is canceled, and Run waits for the lease
// again once fn has returned. Run returns the error of fn when fn returns while
// the lease is held, and nil when ctx is done.
func (l *Lease) Run(ctx context.Context, fn func(ctx context.Context) error) error {
	if l.db.dialect.name == SQLite {
		return fn(ctx)
	}
	for {
		sent, held := l.acquire(ctx)
		if !held {
			return nil
		}
		again, err := l.hold(ctx, sent, fn)
		if !again {
			return err
		}
		l.db.log.Warn("lost lease", "lease", l.name)
	}
}

// Guard returns ErrLeaseLost unless the lease is still held at the time of the
// transaction. Updates take turns, so nobody takes it before the commit.
func (l *Lease) Guard(tx *Tx) error {
	if l.db.dialect.name == SQLite {
		return nil
	}
	var held bool
	err := tx.QueryRow(`
		SELECT EXISTS (
			SELECT 1
			FROM lease
			WHERE name = $1 AND holder = $2
		)`, l.name, l.holder).Scan(&held)
	if err == nil && !held {
		err = ErrLeaseLost
	}
	return err
}

// acquire waits until the lease is ours and returns the time just before the
// winning update was sent. It is not ours when ctx is done.
func (l *Lease) acquire(ctx context.Context) (sent time.Time, held bool) {
	watch := l.db.Watch(l.topic())
	defer watch.Close()
	var seen term
	var since time.Time // when seen was first seen
	for {
		sent = time.Now()
		dead := !since.IsZero() && sent.Sub(since) >= l.length
		held, now, err := l.take(ctx, seen, dead)
		switch {
		case ctx.Err() != nil:
			if held {
				l.giveBack(ctx)
			}
			return sent, false
		case err != nil:
			l.db.log.Warn("cannot take lease", "lease", l.name, "error", err)
			since = time.Time{}
		case held:
			l.db.log.Info("took lease", "lease", l.name)
			return sent, true
		case since.IsZero() || now != seen:
			seen, since = now, time.Now()
		}
		select {
		case <-ctx.Done():
			return sent, false
		case <-watch.C:
		case <-time.After(l.length / 3):
		}
	}
}

// take takes the lease if it is free, or if it is as it was seen and its holder
// is dead. Otherwise it returns the row.
func (l *Lease) take(ctx context.Context, seen term, dead bool) (held bool, now term, err error) {
	err = l.db.Update(ctx, func(tx *Tx) error {
		held = false
		var holder string
		err := tx.QueryRow(`
			SELECT holder, epoch, beat
			FROM lease
			WHERE name = $1`, l.name).Scan(&holder, &now.epoch, &now.beat)
		if err != nil && !isNone(err) {
			return err
		}
		if !isNone(err) && holder != "" && holder != l.holder && !(dead && now == seen) {
			return nil
		}
		held = true
		l.term = term{epoch: now.epoch + 1}
		_, err = tx.Exec(`
			INSERT INTO lease (name, holder, epoch, beat)
			VALUES ($1, $2, $3, 0)
			ON CONFLICT (name) DO UPDATE
			SET holder = excluded.holder, epoch = excluded.epoch, beat = 0`,
			l.name, l.holder, l.term.epoch)
		return err
	})
	return held && err == nil, now, err
}

// hold runs fn and renews the lease beside it. It returns true if the lease was
// lost while ctx still lives.
func (l *Lease) hold(ctx context.Context, sent time.Time, fn func(context.Context) error) (again bool, err error) {
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- fn(inner) }()
	lost := l.renewUntil(ctx, sent, done)
	if !lost.early {
		l.giveBack(ctx)
		return false, lost.err
	}
	cancel()
	err = <-done
	if ctx.Err() != nil {
		l.giveBack(ctx)
		return false, err
	}
	return true, nil
}

// ending is how a time as holder ended: by the end of fn, whose error is kept,
// or early, by loss of the lease or the end of the context.
type ending struct {
	early bool
	err   error
}

func (l *Lease) renewUntil(ctx context.Context, sent time.Time, done <-chan error) ending {
	tick := time.NewTicker(l.length / 3)
	defer tick.Stop()
	for {
		trust := time.NewTimer(time.Until(sent.Add(l.length * 2 / 3)))
		select {
		case err := <-done:
			trust.Stop()
			return ending{err: err}
		case <-ctx.Done():
			trust.Stop()
			return ending{early: true}
		case <-trust.C:
			return ending{early: true}
		case <-tick.C:
			trust.Stop()
		}
		before := time.Now()
		switch err := l.renew(ctx, sent); {
		case err == nil:
			sent = before
		case errors.Is(err, ErrLeaseLost):
			return ending{early: true}
		default:
			l.db.log.Warn("cannot renew lease", "lease", l.name, "error", err)
		}
	}
}

// renew raises the beat, or gives up when the lease can no longer be trusted.
func (l *Lease) renew(ctx context.Context, sent time.Time) error {
	ctx, cancel := context.WithDeadline(ctx, sent.Add(l.length*2/3))
	defer cancel()
	err := l.db.Update(ctx, func(tx *Tx) error {
		n, err := tx.Exec(`
			UPDATE lease
			SET beat = beat + 1
			WHERE name = $1 AND holder = $2 AND epoch = $3`,
			l.name, l.holder, l.term.epoch)
		if err == nil && n == 0 {
			err = ErrLeaseLost
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("renew lease: %w", err)
	}
	return nil
}

// giveBack frees the lease, so that the next server need not wait for it to
// run out. If that fails, it runs out.
func (l *Lease) giveBack(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), l.length/3)
	defer cancel()
	err := l.db.Update(ctx, func(tx *Tx) error {
		tx.Changed(l.topic())
		_, err := tx.Exec(`
			UPDATE lease
			SET holder = ''
			WHERE name = $1 AND holder = $2`, l.name, l.holder)
		return err
	})
	if err != nil {
		l.db.log.Warn("cannot give back lease", "lease", l.name, "error", err)
	}
}

func (l *Lease) topic() string { return "lease/" + l.name }
