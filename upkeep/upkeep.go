package upkeep

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/control"
	"github.com/batchyard/batchyard/conversation"
	"github.com/batchyard/batchyard/store"
)

const (
	// tick is how often a duty looks although nobody said anything.
	tick = time.Minute
	// retryDelay is the pause after a duty failed; it doubles up to tick.
	retryDelay = time.Second
)

// Options say what the duties stand on.
type Options struct {
	DB      *store.DB
	Control *control.Service
	// Nodes is where nodes are heard.
	Nodes *conversation.Room
	Log   *slog.Logger
}

// Upkeep does the duties.
type Upkeep struct {
	db      *store.DB
	control *control.Service
	nodes   *conversation.Room
	log     *slog.Logger
}

// New makes an Upkeep; Run starts it.
func New(o Options) *Upkeep {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Upkeep{db: o.DB, control: o.Control, nodes: o.Nodes, log: o.Log}
}

// duty does what is due and returns when something is due again, a date of the
// database, or the zero time if nothing is known to be. It goes on past an item
// that fails, and returns the errors of all of them.
type duty struct {
	name   string
	topics []string
	do     func(ctx context.Context) (next time.Time, err error)
}

// Run does the duties until ctx ends.
func (u *Upkeep) Run(ctx context.Context) error {
	var running sync.WaitGroup
	for _, d := range []duty{u.resize(), u.liveness(), u.endings(), u.expiries(), u.unfit(), u.retention()} {
		running.Go(func() { u.keep(ctx, d) })
	}
	running.Wait()
	return nil
}

// keep runs one duty until ctx ends.
func (u *Upkeep) keep(ctx context.Context, d duty) {
	watch := u.db.Watch(d.topics...)
	defer watch.Close()
	delay, said := retryDelay, ""
	for {
		var next time.Time
		err := batch.Guard(func() (err error) { next, err = d.do(ctx); return err })
		wait := tick
		switch {
		case ctx.Err() != nil || errors.Is(err, store.ErrClosed):
			return
		case err != nil:
			if text := err.Error(); text != said { // once, however often it is tried again
				u.log.Error("duty failed", "duty", d.name, "err", err)
				said = text
			}
			wait, delay = delay, min(2*delay, tick)
		case !next.IsZero():
			wait = min(tick, max(0, next.Sub(u.db.Now())))
		}
		if err == nil {
			delay, said = retryDelay, ""
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-watch.C:
		case <-timer.C:
		}
		timer.Stop()
		if ctx.Err() != nil {
			return
		}
	}
}

// earlier is the earlier of two times, of which the zero time is none.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
