package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/batchyard/batchyard/disk"
)

// Settings of every connection. Memory is bounded by cache_size (negative: KiB)
// and there is no memory map, so that a failing disk is an error and not a
// signal. Checkpoints are never made by the connection that commits.
var sqlitePragmas = []string{
	"busy_timeout(5000)",
	"foreign_keys(1)",
	"synchronous(FULL)",
	"temp_store(MEMORY)",
	"trusted_schema(0)",
	"wal_autocheckpoint(0)",
	"journal_size_limit(67108864)",
}

// openSQLite locks the file, brings its schema up to date and prepares one pool
// of connections for writing, one for reading and one for checkpoints.
func openSQLite(ctx context.Context, db *DB, name string) (*pools, error) {
	path, err := sqlitePath(name)
	if err != nil {
		return nil, err
	}
	if err := disk.MakeFolder(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	unlock, err := disk.Lock(path + ".lock")
	if errors.Is(err, disk.ErrLocked) {
		err = fmt.Errorf("%w: %w", ErrInUse, err)
	}
	if err != nil {
		return nil, err
	}
	db.release = append(db.release, unlock)
	if err := private(path); err != nil {
		return nil, err
	}
	// fdatasync is as durable as fsync and leaves the file's timestamps alone;
	// where there is none SQLite keeps to fsync.
	if _, err := sqlite.Fdatasync(true); err != nil && !errors.Is(err, sqlite.ErrFdatasyncUnavailable) {
		return nil, err
	}

	readers := max(4, runtime.GOMAXPROCS(0))
	write, err := sqlitePool(db, path, 1, "journal_mode(WAL)", "cache_size(-32768)")
	if err != nil {
		return nil, err
	}
	if err := migrateSQLite(ctx, db.log, write, path); err != nil {
		return nil, err
	}
	read, err := sqlitePool(db, path, readers, "query_only(1)", "cache_size(-8192)")
	if err != nil {
		return nil, err
	}
	checkpoint, err := sqlitePool(db, path, 1, "cache_size(-512)", "busy_timeout(20)")
	if err != nil {
		return nil, err
	}

	db.dialect = &dialect{
		name:         SQLite,
		readers:      readers,
		beginView:    "BEGIN",
		beginUpdate:  []string{"BEGIN IMMEDIATE"},
		session:      sqliteSession,
		openReader:   func(ctx context.Context) (*session, error) { return sqliteSession(ctx, read) },
		groupContext: func() (context.Context, context.CancelFunc) { return context.Background(), func() {} },
		aborted:      func(*session) bool { return false },
		transient:    isBusy,
		full:         isFullSQLite,
		place:        filepath.Dir(path),
		lost:         func(error) bool { return false },
	}
	c := &checkpointer{db: db, pool: checkpoint, wake: make(chan struct{}, 1)}
	return &pools{write: write, committed: c.measure, background: []func(context.Context){c.run}}, nil
}

// sqlitePath is the absolute path in a URL or in a plain path.
func sqlitePath(name string) (string, error) {
	path, isURL := strings.CutPrefix(name, "sqlite://")
	if isURL {
		unescaped, err := url.PathUnescape(path)
		if err != nil {
			return "", fmt.Errorf("read database URL: %w", err)
		}
		path = unescaped
	}
	switch {
	case path == "":
		return "", errors.New("database URL has no path")
	case isURL && !filepath.IsAbs(path):
		return "", errors.New("database URL needs an absolute path: sqlite:///…")
	case !isURL && strings.Contains(path, "://"):
		return "", errors.New("database URL must begin with sqlite:// or postgres://")
	}
	return filepath.Abs(path)
}

// private makes the file, if it is missing, such that only its owner can read
// the account keys in it. It runs before SQLite opens the file: closing another
// descriptor of it later would drop SQLite's locks.
func private(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

// sqlitePool opens n connections at most, with the settings of all and those
// given.
func sqlitePool(db *DB, path string, n int, pragmas ...string) (*sql.DB, error) {
	return sqlitePoolAs(db, path, nil, n, pragmas...)
}

// sqlitePoolAs is sqlitePool with parameters that say how to open the file.
func sqlitePoolAs(db *DB, path string, how url.Values, n int, pragmas ...string) (*sql.DB, error) {
	query := url.Values{"_dqs": {"0"}, "_error_rc": {"1"}, "_txlock": {"immediate"}}
	for _, pragma := range append(sqlitePragmas[:len(sqlitePragmas):len(sqlitePragmas)], pragmas...) {
		query.Add("_pragma", pragma)
	}
	maps.Copy(query, how)
	file := url.URL{Scheme: "file", OmitHost: true, Path: filepath.ToSlash(path), RawQuery: query.Encode()}
	pool, err := sql.Open("sqlite", file.String())
	if err != nil {
		return nil, err
	}
	pool.SetMaxOpenConns(n)
	pool.SetMaxIdleConns(n)
	db.release = append(db.release, pool.Close)
	return pool, nil
}

func sqliteSession(ctx context.Context, pool *sql.DB) (*session, error) {
	conn, err := pool.Conn(ctx)
	if err != nil {
		return nil, err
	}
	return &session{conn: conn, prepared: make(map[string]*statement)}, nil
}

// sqliteCode is the extended result code in an error, or zero.
func sqliteCode(err error) int {
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		return e.Code()
	}
	return 0
}

func isBusy(err error) bool {
	code := sqliteCode(err) & 0xff
	return code == sqlite3.SQLITE_BUSY || code == sqlite3.SQLITE_LOCKED
}

// isFullSQLite knows a disk without room. The index of the log is in a file of
// its own, which needs nothing but room to grow.
func isFullSQLite(err error) bool {
	code := sqliteCode(err)
	return code&0xff == sqlite3.SQLITE_FULL || code == sqlite3.SQLITE_IOERR_SHMSIZE
}

func isDuplicateSQLite(err error) bool {
	switch sqliteCode(err) {
	case sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY, sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_ROWID:
		return true
	}
	return false
}

// copySQLite writes a copy of the database beside it, named for the version of
// its schema, before that is changed. A copy that was begun and not finished
// never has the final name.
func copySQLite(ctx context.Context, pool *sql.DB, path string, version int64) (string, error) {
	final := fmt.Sprintf("%s.before-%04d", path, version+1)
	partial := final + ".partial"
	if err := os.RemoveAll(partial); err != nil {
		return "", err
	}
	if err := private(partial); err != nil {
		return "", err
	}
	if _, err := pool.ExecContext(ctx, "VACUUM INTO $1", partial); err != nil {
		return "", fmt.Errorf("copy database: %w", err)
	}
	return final, os.Rename(partial, final)
}
