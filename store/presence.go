package store

import (
	"context"
	"fmt"
)

// One server at a time works on a PostgreSQL database. What makes it so is a lock
// of the connection that writes: whatever is written is written under it, and
// there is no moment in which a transaction goes on after the lock is gone, as
// there would be if another connection had it. PostgreSQL drops it when the
// connection ends, with the process at the other end or with its machine.
//
// A writer whose connection broke opens another and takes the lock again, unless
// somebody else had it in between, whom a row tells: then what this server
// remembers is old, and it must not go on.

// presencePatience is how long a server waits for one that is ending, or whose
// end PostgreSQL has yet to notice.
const presencePatience = "5s"

// presenceKey is the number of the lock: one a schema.
const presenceKey = `hashtextextended('batchyard server ' || current_schema(), 0)`

// presenceName is the row, among those that say who may do what, that names the
// server which has the database.
const presenceName = "server"

// enter makes a connection the one that may write.
func (p *postgres) enter(ctx context.Context, s *session) error {
	if err := s.exec(ctx, "SET lock_timeout = '"+presencePatience+"'"); err != nil {
		return err
	}
	err := s.exec(ctx, "SELECT pg_advisory_lock("+presenceKey+")")
	switch {
	case postgresCode(err) == "55P03":
		if p.here {
			if err := p.verify(ctx, s); err != nil {
				return err
			}
		}
		return fmt.Errorf("%w%s", ErrInUse, p.occupant(ctx, s))
	case err != nil:
		return fmt.Errorf("lock database: %w", err)
	}
	if err := s.exec(ctx, "RESET lock_timeout"); err != nil || !p.here {
		return err
	}
	return p.verify(ctx, s)
}

// claim notes that the database is this server's now.
func (p *postgres) claim(ctx context.Context, s *session) error {
	_, err := s.execute(ctx, `
		INSERT INTO lease (name, holder, epoch, beat)
		VALUES ($1, $2, 1, 0)
		ON CONFLICT (name) DO UPDATE
		SET holder = excluded.holder, epoch = lease.epoch + 1`, []any{presenceName, p.holder})
	if err != nil {
		return fmt.Errorf("claim database: %w", err)
	}
	p.here = true
	return nil
}

// verify fails with ErrTaken, for good, if another server has had the database
// since this one claimed it.
func (p *postgres) verify(ctx context.Context, s *session) error {
	var holder string
	err := s.queryRow(ctx, `SELECT holder FROM lease WHERE name = $1`, []any{presenceName}).Scan(&holder)
	if err != nil && !isNone(err) {
		return fmt.Errorf("look who has the database: %w", err)
	}
	if holder == p.holder {
		return nil
	}
	p.db.taken()
	return ErrTaken
}

// occupant describes who has the lock, as far as PostgreSQL tells.
func (p *postgres) occupant(ctx context.Context, s *session) string {
	var where, since string
	err := s.queryRow(ctx, `
		SELECT coalesce(host(a.client_addr), 'this machine'), to_char(a.backend_start, 'YYYY-MM-DD HH24:MI:SS TZ')
		FROM pg_locks AS l
		JOIN pg_stat_activity AS a ON a.pid = l.pid
		WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
			AND ((l.classid::bigint << 32) | l.objid::bigint) = `+presenceKey+`
		LIMIT 1`, nil).Scan(&where, &since)
	if err != nil {
		return ""
	}
	return fmt.Sprintf(": one at %s, connected since %s", where, since)
}
