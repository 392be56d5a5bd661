package store

import (
	"context"
	"crypto/rand"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

// postgresReaders is the number of connections for Views. With the writer's,
// the listener's and one while migrating, a server needs three more.
const postgresReaders = 16

// postgresGroupTime bounds a transaction of the writer, which holds the lock
// that the writers of all servers take turns by.
const postgresGroupTime = time.Minute

// The types that SQLite reads as mere affinities. CREATE DOMAIN has no IF NOT
// EXISTS, and two servers may start at once.
const prelude = `
DO $$ BEGIN CREATE DOMAIN keytext AS text COLLATE "C"; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$;
DO $$ BEGIN CREATE DOMAIN jsontext AS json; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$;
DO $$ BEGIN CREATE DOMAIN blob AS bytea; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$;
`

// postgres is what the parts of one open database share.
type postgres struct {
	db     *DB
	config *pgx.ConnConfig
	pool   *sql.DB
	schema string // the first of the search path, where our tables are
	origin string // tells our own notifications from those of other servers
}

// openPostgres checks the server, brings the schema up to date and begins to
// listen for the changes of other servers.
func openPostgres(ctx context.Context, db *DB, url string) (*pools, error) {
	config, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	p := &postgres{db: db, config: config, origin: rand.Text()}
	p.settings()
	p.pool = stdlib.OpenDB(*config)
	db.release = append(db.release, p.pool.Close)
	p.pool.SetMaxOpenConns(postgresReaders + 2)
	p.pool.SetMaxIdleConns(postgresReaders + 2)
	if err := p.inspect(ctx); err != nil {
		return nil, err
	}
	if err := p.migrate(ctx); err != nil {
		return nil, err
	}
	listening, err := p.listen(ctx)
	if err != nil {
		return nil, err
	}
	db.dialect = p.dialect()
	return &pools{
		write:      p.pool,
		committed:  func(*session) {},
		background: []func(context.Context){func(ctx context.Context) { p.hear(ctx, listening) }},
	}, nil
}

// settings are those of every connection, unless the URL says otherwise. A
// server that stalls within a transaction loses the writers' lock. Statements
// are too brief for the just-in-time compiler. Tasks leave their partial indexes
// all the time, and of the ways to read one only the plain index scan marks what
// is dead, so that the next scan need not pass over it.
func (p *postgres) settings() {
	for name, value := range map[string]string{
		"application_name":                    "batchyard",
		"idle_in_transaction_session_timeout": "60s",
		"jit":                                 "off",
		"enable_bitmapscan":                   "off",
		"random_page_cost":                    "1.1",
	} {
		if _, ok := p.config.RuntimeParams[name]; !ok {
			p.config.RuntimeParams[name] = value
		}
	}
}

// inspect refuses a database that would keep our texts or promises differently.
func (p *postgres) inspect(ctx context.Context) error {
	var version int
	var encoding, commit string
	err := p.pool.QueryRowContext(ctx, `
		SELECT current_setting('server_version_num')::int, current_setting('server_encoding'),
			current_setting('synchronous_commit'), coalesce(current_schema(), '')`).
		Scan(&version, &encoding, &commit, &p.schema)
	switch {
	case err != nil:
		return err
	case version < 130000:
		return fmt.Errorf("PostgreSQL %d is too old: 13 is needed", version/10000)
	case encoding != "UTF8":
		return fmt.Errorf("database has encoding %s: UTF8 is needed", encoding)
	case commit == "off":
		return errors.New("database has synchronous_commit off, and would answer before a change is on disk")
	case p.schema == "":
		return errors.New("database has no schema in its search path")
	}
	return nil
}

// migrate makes the types and takes the missing steps. Servers that start
// together take turns.
func (p *postgres) migrate(ctx context.Context) error {
	if _, err := p.pool.ExecContext(ctx, prelude); err != nil {
		return fmt.Errorf("make types: %w", err)
	}
	var id int64
	err := p.pool.QueryRowContext(ctx, `SELECT hashtextextended('batchyard migration ' || current_schema(), 0)`).Scan(&id)
	if err != nil {
		return err
	}
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockID(id), lock.WithLockTimeout(1, 600))
	if err != nil {
		return err
	}
	steps, current, target, err := schema(ctx, goose.DialectPostgres, p.pool, goose.WithSessionLocker(locker))
	if err != nil || current == target {
		return err
	}
	return up(ctx, p.db.log, steps)
}

func (p *postgres) dialect() *dialect {
	return &dialect{
		name:      PostgreSQL,
		readers:   postgresReaders,
		beginView: "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
		beginUpdate: []string{
			"BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE",
			"SELECT pg_advisory_xact_lock(hashtextextended('batchyard writer ' || current_schema(), 0))",
		},
		session:    postgresSession,
		openReader: func(ctx context.Context) (*session, error) { return postgresSession(ctx, p.pool) },
		groupContext: func() (context.Context, context.CancelFunc) {
			return context.WithTimeout(context.Background(), postgresGroupTime)
		},
		notify:    p.notify,
		aborted:   isAborted,
		transient: isTransient,
		full:      isFullPostgres,
		place:     "the database server",
		lost:      isLost,
	}
}

func postgresSession(ctx context.Context, pool *sql.DB) (*session, error) {
	conn, err := pool.Conn(ctx)
	if err != nil {
		return nil, err
	}
	return &session{conn: conn, joined: true}, nil
}

// isAborted asks the connection, without a trip to the server.
func isAborted(s *session) bool {
	aborted := false
	err := s.conn.Raw(func(conn any) error {
		c, ok := conn.(*stdlib.Conn)
		aborted = ok && c.Conn().PgConn().TxStatus() == 'E'
		return nil
	})
	return aborted || err != nil
}

func postgresCode(err error) string {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return e.Code
	}
	return ""
}

// isFullPostgres knows a disk without room.
func isFullPostgres(err error) bool { return postgresCode(err) == "53100" }

func isDuplicatePostgres(err error) bool { return postgresCode(err) == "23505" }

// isTransient knows serialization failure, deadlock and lock timeout.
func isTransient(err error) bool {
	switch postgresCode(err) {
	case "40001", "40P01", "55P03":
		return true
	}
	return false
}

// isLost knows the many faces of a connection that ended.
func isLost(err error) bool {
	if code := postgresCode(err); code != "" {
		return strings.HasPrefix(code, "08") || strings.HasPrefix(code, "57P") // connection; server going down
	}
	_, refused := errors.AsType[*pgconn.ConnectError](err)
	_, network := errors.AsType[net.Error](err)
	return refused || network || pgconn.Timeout(err) || pgconn.SafeToRetry(err) ||
		errors.Is(err, driver.ErrBadConn) || errors.Is(err, sql.ErrConnDone) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed)
}

// A notification holds this many bytes of topics; PostgreSQL allows 8000 with
// the origin.
const maxNotification = 7000

// channel is where the servers of one schema notify each other.
func (p *postgres) channel() string { return "batchyard_changes_" + p.schema }

// notify packs topics, each once, into as few notifications as hold them.
func (p *postgres) notify(topics []string) []string {
	var statements []string
	seen := make(map[string]bool, len(topics))
	payload := ""
	send := func() {
		if payload != "" {
			statements = append(statements, "SELECT pg_notify("+quote(p.channel())+", "+quote(p.origin+payload)+")")
		}
		payload = ""
	}
	for _, topic := range topics {
		if seen[topic] {
			continue
		}
		seen[topic] = true
		if len(payload)+len(topic) >= maxNotification {
			send()
		}
		payload += "\n" + topic
	}
	send()
	return statements
}

// quote makes a string literal of SQL. The simple protocol that carries it has
// no parameters.
func quote(s string) string {
	return "'" + strings.ReplaceAll(strings.ReplaceAll(s, "\x00", ""), "'", "''") + "'"
}

// listen opens the connection on which other servers are heard.
func (p *postgres) listen(ctx context.Context) (*pgx.Conn, error) {
	conn, err := pgx.ConnectConfig(ctx, p.config.Copy())
	if err != nil {
		return nil, err
	}
	err = p.presence(ctx, conn)
	if err == nil {
		_, err = conn.Exec(ctx, "LISTEN "+pgx.Identifier{p.channel()}.Sanitize())
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close(ctx))
	}
	return conn, nil
}

// presence takes the lock that tells servers and those who must be alone of each
// other, for as long as the connection lasts.
func (p *postgres) presence(ctx context.Context, conn *pgx.Conn) error {
	lock := "pg_try_advisory_lock_shared"
	if p.db.alone {
		lock = "pg_try_advisory_lock"
	}
	var taken bool
	err := conn.QueryRow(ctx, "SELECT "+lock+"(hashtextextended('batchyard server ' || current_schema(), 0))").Scan(&taken)
	switch {
	case err != nil:
		return err
	case taken:
		return nil
	case p.db.alone:
		return fmt.Errorf("%w: stop all servers first", ErrInUse)
	}
	return fmt.Errorf("%w: it is being mended or restored", ErrInUse)
}

// hear announces what other servers changed, until ctx is done. After a broken
// connection it wakes everyone, since nobody knows what was missed.
func (p *postgres) hear(ctx context.Context, conn *pgx.Conn) {
	for {
		err := p.forward(ctx, conn)
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		_ = conn.Close(closing) // a connection that is given up
		cancel()
		if ctx.Err() != nil {
			return
		}
		p.db.log.Warn("lost connection for notifications", "error", err)
		if conn = p.listenAgain(ctx); conn == nil {
			return
		}
		p.db.changes.announceAll()
	}
}

// listenAgain tries until it hears again, or returns nil when ctx is done.
func (p *postgres) listenAgain(ctx context.Context) *pgx.Conn {
	for {
		if conn, err := p.listen(ctx); err == nil {
			return conn
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Second):
		}
	}
}

// forward announces notifications until the connection fails.
func (p *postgres) forward(ctx context.Context, conn *pgx.Conn) error {
	for {
		n, err := conn.WaitForNotification(ctx)
		if err != nil {
			return err
		}
		topics := strings.Split(n.Payload, "\n")
		if topics[0] != p.origin {
			p.db.changes.announce(topics[1:])
		}
	}
}
