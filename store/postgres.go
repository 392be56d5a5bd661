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
)

// postgresReaders is the number of connections for Views. With the writer's and
// one while migrating, a server needs two more.
const postgresReaders = 16

// postgresGroupTime bounds a transaction of the writer.
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
	holder string // names this server among those that have worked on the database
	here   bool   // holder is the last of them: the writer's connection may be opened anew
}

// openPostgres checks the server, makes sure that nobody else works on the
// database, and brings the schema up to date.
func openPostgres(ctx context.Context, db *DB, url string) (*pools, error) {
	config, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	p := &postgres{db: db, config: config, holder: rand.Text()}
	p.settings()
	p.pool = stdlib.OpenDB(*config)
	db.release = append(db.release, p.pool.Close)
	p.pool.SetMaxOpenConns(postgresReaders + 2)
	p.pool.SetMaxIdleConns(postgresReaders + 2)
	if err := p.inspect(ctx); err != nil {
		return nil, err
	}
	db.dialect = p.dialect()
	writing, err := postgresSession(ctx, p.pool)
	if err != nil {
		return nil, err
	}
	if err := p.settle(ctx, writing); err != nil {
		discard(writing)
		return nil, err
	}
	return &pools{write: p.pool, session: writing, committed: func(*session) {}}, nil
}

// settle makes the database this server's.
func (p *postgres) settle(ctx context.Context, writing *session) error {
	if err := p.enter(ctx, writing); err != nil {
		return err
	}
	if err := p.migrate(ctx); err != nil {
		return err
	}
	return p.claim(ctx, writing)
}

// settings are those of every connection, unless the URL says otherwise. A
// server that stalls within a transaction loses its connection. Statements
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
		// What a machine that died had locked is free again within seconds.
		"tcp_keepalives_idle":     "2",
		"tcp_keepalives_interval": "1",
		"tcp_keepalives_count":    "2",
		"tcp_user_timeout":        "4000",
	} {
		if _, ok := p.config.RuntimeParams[name]; !ok {
			p.config.RuntimeParams[name] = value
		}
	}
}

// inspect refuses a database that would keep our texts or promises differently.
func (p *postgres) inspect(ctx context.Context) error {
	var version int
	var encoding, commit, schema string
	err := p.pool.QueryRowContext(ctx, `
		SELECT current_setting('server_version_num')::int, current_setting('server_encoding'),
			current_setting('synchronous_commit'), coalesce(current_schema(), '')`).
		Scan(&version, &encoding, &commit, &schema)
	switch {
	case err != nil:
		return err
	case version < 130000:
		return fmt.Errorf("PostgreSQL %d is too old: 13 is needed", version/10000)
	case encoding != "UTF8":
		return fmt.Errorf("database has encoding %s: UTF8 is needed", encoding)
	case commit == "off":
		return errors.New("database has synchronous_commit off, and would answer before a change is on disk")
	case schema == "":
		return errors.New("database has no schema in its search path")
	}
	return nil
}

// migrate makes the types and takes the missing steps.
func (p *postgres) migrate(ctx context.Context) error {
	if _, err := p.pool.ExecContext(ctx, prelude); err != nil {
		return fmt.Errorf("make types: %w", err)
	}
	steps, current, target, err := schema(ctx, goose.DialectPostgres, p.pool)
	if err != nil || current == target {
		return err
	}
	return up(ctx, p.db.log, steps)
}

func (p *postgres) dialect() *dialect {
	return &dialect{
		name:        PostgreSQL,
		readers:     postgresReaders,
		beginView:   "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
		beginUpdate: []string{"BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"},
		session:     postgresSession,
		openReader:  func(ctx context.Context) (*session, error) { return postgresSession(ctx, p.pool) },
		groupContext: func() (context.Context, context.CancelFunc) {
			return context.WithTimeout(context.Background(), postgresGroupTime)
		},
		enter:     p.enter,
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
