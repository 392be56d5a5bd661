package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"

	"github.com/pressly/goose/v3"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
)

// Reader is a database opened for looking only, beside a server that may be
// running on it. It takes no lock, changes no schema and has no writer.
type Reader struct {
	db *DB

	// Schema is the number of the last migration that the database has.
	Schema int64
}

// clockSchema is the first schema with a clock.
const clockSchema = 4

// OpenReader opens a database that exists. It fails if the database has another
// schema than this program, unless any is asked for: then CopyTo and EachBlobFile
// are of use, on SQLite.
func OpenReader(ctx context.Context, o Options, anySchema bool) (*Reader, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	r := &Reader{db: &DB{clock: o.newClock(), log: o.Log, changes: newChanges(), closed: make(chan struct{})}}
	open := r.openSQLite
	if isPostgres(o.URL) {
		open = r.openPostgres
	}
	target, err := open(ctx, o.URL)
	if err == nil && r.Schema != target && !anySchema {
		err = wrongSchema(r.Schema, target)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open database: %w", err), r.db.undo())
	}
	r.db.readers = make(chan *session, r.db.dialect.readers)
	for range r.db.dialect.readers {
		r.db.readers <- nil
	}
	if r.Schema >= clockSchema {
		if err := r.View(ctx, func(tx *Tx) error { return r.db.clock.load(tx.QueryRow(selectClock)) }); err != nil {
			return nil, errors.Join(fmt.Errorf("open database: %w", err), r.db.undo())
		}
	}
	return r, nil
}

func wrongSchema(is, needed int64) error {
	return fmt.Errorf("it has schema %d and this program needs %d: start the server once, which brings it up to date", is, needed)
}

// openSQLite opens the file for reading and writing, since a log that a killed
// server has left must be replayed, but lets no statement write. Where nothing
// can be written see frozen.
func (r *Reader) openSQLite(ctx context.Context, url string) (target int64, err error) {
	path, err := sqlitePath(url)
	if err != nil {
		return 0, err
	}
	if _, err := os.Stat(path); err != nil {
		return 0, err // SQLite would make the file
	}
	path, how, err := r.frozen(path)
	if err != nil {
		return 0, err
	}
	pool, err := sqlitePoolAs(r.db, path, how, max(2, runtime.GOMAXPROCS(0)), "query_only(1)", "cache_size(-8192)")
	if err != nil {
		return 0, err
	}
	r.db.dialect = &dialect{
		name: SQLite, readers: max(2, runtime.GOMAXPROCS(0)), beginView: "BEGIN",
		session:    sqliteSession,
		openReader: func(ctx context.Context) (*session, error) { return sqliteSession(ctx, pool) },
		aborted:    func(*session) bool { return false },
		transient:  isBusy,
		lost:       func(error) bool { return false },
	}
	_, r.Schema, target, err = versions(ctx, goose.DialectSQLite3, pool)
	return target, err
}

func (r *Reader) openPostgres(ctx context.Context, url string) (target int64, err error) {
	config, err := pgx.ParseConfig(url)
	if err != nil {
		return 0, err
	}
	p := &postgres{db: r.db, config: config}
	p.settings()
	p.pool = stdlib.OpenDB(*config)
	r.db.release = append(r.db.release, p.pool.Close)
	if err := p.inspect(ctx); err != nil {
		return 0, err
	}
	r.db.dialect = p.dialect()
	r.db.dialect.readers = 2
	_, r.Schema, target, err = versions(ctx, goose.DialectPostgres, p.pool)
	return target, err
}

// View runs fn on a snapshot; see [DB.View].
func (r *Reader) View(ctx context.Context, fn func(tx *Tx) error) error { return r.db.View(ctx, fn) }

// Dialect says which database this is.
func (r *Reader) Dialect() Dialect { return r.db.Dialect() }

// Close closes the database. Views must have ended.
func (r *Reader) Close() error { return r.db.Close() }
