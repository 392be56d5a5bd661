// Package storetest opens real databases for tests and holds the suite that
// both kinds must pass: SQLite always, PostgreSQL when BATCHYARD_TEST_POSTGRES
// has the URL of a server, each test in a schema of its own.
package storetest

import (
	"context"
	"crypto/rand"
	"database/sql"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib" // for making and dropping schemas

	"github.com/batchyard/batchyard/store"
)

// Variable names the environment variable with the URL of a PostgreSQL server,
// on which the tests may make and drop schemas.
const Variable = "BATCHYARD_TEST_POSTGRES"

// Each runs test as a subtest on each kind of database that is at hand. The URL
// given to test names an empty database, which is removed afterwards.
func Each(t *testing.T, test func(t *testing.T, url string)) {
	t.Helper()
	t.Run(string(store.SQLite), func(t *testing.T) {
		t.Parallel()
		test(t, SQLite(t))
	})
	t.Run(string(store.PostgreSQL), func(t *testing.T) {
		t.Parallel()
		test(t, PostgreSQL(t))
	})
}

// EachOpen is Each with the database already open.
func EachOpen(t *testing.T, test func(t *testing.T, db *store.DB)) {
	t.Helper()
	Each(t, func(t *testing.T, url string) { test(t, Open(t, store.Options{URL: url})) })
}

// SQLite is the path of a file, not made yet, in a folder of the test.
func SQLite(t testing.TB) string {
	t.Helper()
	return filepath.Join(t.TempDir(), "batchyard.db")
}

// PostgreSQL is the URL of an empty schema on the server at hand. It skips the
// test if there is none.
func PostgreSQL(t testing.TB) string {
	t.Helper()
	server := os.Getenv(Variable)
	if server == "" {
		t.Skip(Variable + " is not set")
	}
	name := "test_" + strings.ToLower(rand.Text()[:12])
	run(t, server, "CREATE SCHEMA "+name)
	t.Cleanup(func() { run(t, server, "DROP SCHEMA "+name+" CASCADE") })
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	query := u.Query()
	query.Set("search_path", name)
	u.RawQuery = query.Encode()
	return u.String()
}

// run executes one statement on a connection of its own.
func run(t testing.TB, server, statement string) {
	t.Helper()
	db, err := sql.Open("pgx", server)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(context.Background(), statement); err != nil {
		t.Fatal(err)
	}
}

// Open opens a database and closes it at the end of the test.
func Open(t testing.TB, o store.Options) *store.DB {
	t.Helper()
	db, err := store.Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}
