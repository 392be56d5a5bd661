package store

import (
	"context"
	"database/sql"
	"errors"
)

// The log is checkpointed each time it has grown by this many pages, which
// bounds it to a few times 16 MiB unless a View stays open for long.
const checkpointPages = 4096

// checkpointer moves the write-ahead log back into the database file, on a
// connection of its own so that no commit waits for it.
//
// A passive checkpoint copies what it can while others read and write. Under
// constant writing it never catches up, and only a log copied to its last page
// can start over: so the rest, which is little by then, is copied while the
// writer pauses between two groups.
type checkpointer struct {
	db   *DB
	pool *sql.DB
	wake chan struct{} // size one
	due  int64         // pages at which the next attempt is worth it; the writer's
}

// measure looks at the length of the log after a commit, on the writer's
// connection, and wakes the checkpointer if it is due.
func (c *checkpointer) measure(s *session) {
	_, pages, err := checkpoint(context.Background(), s, "NOOP")
	if err != nil {
		c.db.log.Warn("cannot measure write-ahead log", "error", err)
		return
	}
	if pages < checkpointPages {
		c.due = checkpointPages
	}
	if pages < max(c.due, checkpointPages) {
		return
	}
	c.due = pages + checkpointPages
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// run checkpoints whenever it is woken, until ctx is done.
func (c *checkpointer) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.wake:
		}
		if err := c.checkpoint(ctx); err != nil && ctx.Err() == nil {
			c.db.log.Warn("checkpoint of write-ahead log", "error", err)
		}
	}
}

func (c *checkpointer) checkpoint(ctx context.Context) (err error) {
	s, err := sqliteSession(ctx, c.pool)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	if _, _, err := checkpoint(ctx, s, "PASSIVE"); err != nil {
		return err
	}
	rest := make(chan error, 1)
	select {
	case <-ctx.Done():
		return ctx.Err()
	case c.db.writer.between <- func() {
		// Waits a moment for readers of the old log; if one stays, the next
		// attempt comes when the log has grown again.
		_, _, err := checkpoint(ctx, s, "RESTART")
		rest <- err
	}:
		return <-rest
	}
}

// checkpoint runs one in the given mode and returns whether something was in
// its way and how many pages the log has.
func checkpoint(ctx context.Context, s *session, mode string) (busy bool, pages int64, err error) {
	var done int64
	err = s.queryRow(ctx, "PRAGMA wal_checkpoint("+mode+")", nil).Scan(&busy, &pages, &done)
	return busy, pages, err
}
