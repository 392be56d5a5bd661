package store

import (
	"context"
	"database/sql"
	"errors"
	"strings"
)

// Dialect names a kind of database.
type Dialect string

// The databases that there are.
const (
	SQLite     Dialect = "sqlite"
	PostgreSQL Dialect = "postgres"
)

// dialect is all that differs between the two databases once they are open.
// sqlite.go and postgres.go fill it in.
type dialect struct {
	name        Dialect
	readers     int      // reading connections
	beginView   string   // begins a read-only snapshot
	beginUpdate []string // begins the writer's transaction

	// session makes one connection of a pool ready for use.
	session func(ctx context.Context, pool *sql.DB) (*session, error)

	// openReader opens one more reading connection.
	openReader func(ctx context.Context) (*session, error)

	// groupContext is the context under which the writer works. It is never a
	// caller's, whose cancellation would undo the work of others.
	groupContext func() (context.Context, context.CancelFunc)

	// enter makes a connection the only one of all servers that may write; nil
	// where the file sees to that.
	enter func(ctx context.Context, s *session) error

	// aborted says that a statement failed and the transaction refuses more.
	aborted func(s *session) bool

	// transient says that the same statements may succeed if run again.
	transient func(err error) bool

	// full says that the database's disk has no room left; place is where that
	// disk is, for those who can make some.
	full  func(err error) bool
	place string

	// lost says that the connection broke, so that the outcome of the last
	// statement is unknown.
	lost func(err error) bool
}

// isPostgres tells the two kinds of URL apart.
func isPostgres(url string) bool {
	return strings.HasPrefix(url, "postgres://") || strings.HasPrefix(url, "postgresql://")
}

// IsDuplicate says that a statement failed because a row with the same key, or
// another unique value, is already there.
func IsDuplicate(err error) bool {
	return isDuplicateSQLite(err) || isDuplicatePostgres(err)
}

// isNone says that a query for one row found none.
func isNone(err error) bool { return errors.Is(err, sql.ErrNoRows) }
