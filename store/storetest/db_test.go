package storetest_test

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/batchyard/batchyard/store"
	"github.com/batchyard/batchyard/store/storetest"
)

// withTable makes a table that the tests of the core use.
func withTable(t *testing.T, db *store.DB) {
	t.Helper()
	update(t, db, func(tx *store.Tx) error {
		_, err := tx.Exec(`
			CREATE TABLE things (
				name  keytext  NOT NULL PRIMARY KEY,
				body  jsontext NOT NULL,
				bytes blob     NOT NULL,
				done  boolean  NOT NULL,
				at    bigint   NOT NULL
			)`)
		return err
	})
}

func insert(tx *store.Tx, name string) error {
	_, err := tx.Exec(`
		INSERT INTO things (name, body, bytes, done, at)
		VALUES ($1, $2, $3, $4, $5)`,
		name, `{"b": 1.50,  "a":[]}`, []byte{0, 255}, true, tx.Now().UnixMicro())
	return err
}

func update(t *testing.T, db *store.DB, fn func(tx *store.Tx) error) {
	t.Helper()
	if err := db.Update(t.Context(), fn); err != nil {
		t.Fatal(err)
	}
}

// names lists the things in the order of their keys.
func names(t *testing.T, db *store.DB) []string {
	t.Helper()
	var got []string
	err := db.View(t.Context(), func(tx *store.Tx) error {
		rows, err := tx.Query(`SELECT name FROM things ORDER BY name`)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var name string
			if err := rows.Scan(&name); err != nil {
				return err
			}
			got = append(got, name)
		}
		return rows.Err()
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestValues(t *testing.T) {
	t.Parallel()
	storetest.EachOpen(t, func(t *testing.T, db *store.DB) {
		withTable(t, db)
		var written time.Time
		update(t, db, func(tx *store.Tx) error {
			written = tx.Now()
			return insert(tx, "one")
		})
		type row struct {
			Body  string
			Bytes []byte
			Done  bool
			At    time.Time
			B     string
		}
		var got row
		var at int64
		err := db.View(t.Context(), func(tx *store.Tx) error {
			// The parameters are out of order on purpose.
			return tx.QueryRow(`
				SELECT body, bytes, done, at, body->>'b'
				FROM things
				WHERE done = $2 AND name = $1 AND name <> $3`, "one", true, "two").
				Scan(&got.Body, &got.Bytes, &got.Done, &at, &got.B)
		})
		if err != nil {
			t.Fatal(err)
		}
		got.At = time.UnixMicro(at).UTC()
		got.B = strings.TrimRight(got.B, "0") // each database writes the number in its way
		want := row{Body: `{"b": 1.50,  "a":[]}`, Bytes: []byte{0, 255}, Done: true, At: written, B: "1.5"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})
}

func TestKeysAreInByteOrder(t *testing.T) {
	t.Parallel()
	storetest.EachOpen(t, func(t *testing.T, db *store.DB) {
		withTable(t, db)
		for _, name := range []string{"b", "_x", "é", "a", "007", "a_", "-", "a-b", "ab", "B"} {
			update(t, db, func(tx *store.Tx) error { return insert(tx, name) })
		}
		want := []string{"-", "007", "B", "_x", "a", "a-b", "a_", "ab", "b", "é"}
		if diff := cmp.Diff(want, names(t, db)); diff != "" {
			t.Error(diff)
		}
		var page []string
		err := db.View(t.Context(), func(tx *store.Tx) error {
			rows, err := tx.Query(`SELECT name FROM things WHERE name > $1 AND substr(name, 1, 1) <> $2 ORDER BY name DESC`, "_x", "b")
			if err != nil {
				return err
			}
			defer rows.Close()
			for rows.Next() {
				var name string
				if err := rows.Scan(&name); err != nil {
					return err
				}
				page = append(page, name)
			}
			return rows.Err()
		})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"é", "ab", "a_", "a-b", "a"}, page); diff != "" {
			t.Error(diff)
		}
	})
}

func TestView(t *testing.T) {
	t.Parallel()
	storetest.EachOpen(t, func(t *testing.T, db *store.DB) {
		withTable(t, db)
		count := func(tx *store.Tx) (n int) {
			if err := tx.QueryRow(`SELECT count(*) FROM things`).Scan(&n); err != nil {
				t.Error(err)
			}
			return n
		}

		t.Run("is a snapshot", func(t *testing.T) {
			err := db.View(t.Context(), func(tx *store.Tx) error {
				before := count(tx)
				update(t, db, func(tx *store.Tx) error { return insert(tx, "later") })
				if after := count(tx); after != before {
					t.Errorf("got %d rows, then %d", before, after)
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
			if got := names(t, db); len(got) != 1 {
				t.Errorf("got %v after the view", got)
			}
		})

		t.Run("cannot write", func(t *testing.T) {
			err := db.View(t.Context(), func(tx *store.Tx) error { return insert(tx, "x") })
			if err == nil {
				t.Error("an insert succeeded")
			}
			err = db.View(t.Context(), func(tx *store.Tx) error {
				var name string
				return tx.QueryRow(`DELETE FROM things RETURNING name`).Scan(&name)
			})
			if err == nil {
				t.Error("a delete succeeded")
			}
			if got := names(t, db); len(got) != 1 {
				t.Errorf("got %v", got)
			}
		})

		t.Run("ends with its context and leaves a usable database", func(t *testing.T) {
			for range 40 { // more than there are connections
				ctx, cancel := context.WithCancel(t.Context())
				err := db.View(ctx, func(tx *store.Tx) error {
					cancel()
					var n int
					return tx.QueryRow(`SELECT count(*) FROM things`).Scan(&n)
				})
				if !errors.Is(err, context.Canceled) {
					t.Fatalf("got error %v", err)
				}
			}
			if got := names(t, db); len(got) != 1 {
				t.Errorf("got %v", got)
			}
		})

		t.Run("finds no row", func(t *testing.T) {
			err := db.View(t.Context(), func(tx *store.Tx) error {
				var name string
				return tx.QueryRow(`SELECT name FROM things WHERE name = $1`, "none").Scan(&name)
			})
			if !errors.Is(err, sql.ErrNoRows) {
				t.Errorf("got error %v", err)
			}
		})
	})
}

func TestOpen(t *testing.T) {
	t.Parallel()
	storetest.Each(t, func(t *testing.T, url string) {
		t.Run("keeps what was written", func(t *testing.T) {
			db, err := store.Open(t.Context(), store.Options{URL: url})
			if err != nil {
				t.Fatal(err)
			}
			withTable(t, db)
			update(t, db, func(tx *store.Tx) error { return insert(tx, "kept") })
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			again := storetest.Open(t, store.Options{URL: url})
			if diff := cmp.Diff([]string{"kept"}, names(t, again)); diff != "" {
				t.Error(diff)
			}
		})
		t.Run("refuses work after close", func(t *testing.T) {
			db, err := store.Open(t.Context(), store.Options{URL: url})
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(db.Close(), db.Close()); err != nil {
				t.Fatal(err)
			}
			nothing := func(*store.Tx) error { return nil }
			if err := db.Update(t.Context(), nothing); !errors.Is(err, store.ErrClosed) {
				t.Errorf("update: got error %v", err)
			}
			if err := db.View(t.Context(), nothing); !errors.Is(err, store.ErrClosed) {
				t.Errorf("view: got error %v", err)
			}
		})
		t.Run("refuses a database of a newer program", func(t *testing.T) {
			db, err := store.Open(t.Context(), store.Options{URL: url})
			if err != nil {
				t.Fatal(err)
			}
			update(t, db, func(tx *store.Tx) error {
				_, err := tx.Exec(`INSERT INTO goose_db_version (version_id, is_applied) VALUES ($1, $2)`, 9999, true)
				return err
			})
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			if _, err := store.Open(t.Context(), store.Options{URL: url}); err == nil || !strings.Contains(err.Error(), "newer") {
				t.Errorf("got error %v", err)
			}
		})
	})
}

func TestOpenSQLite(t *testing.T) {
	t.Parallel()

	t.Run("second server on the same file is refused", func(t *testing.T) {
		t.Parallel()
		path := storetest.SQLite(t)
		first, err := store.Open(t.Context(), store.Options{URL: path})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := store.Open(t.Context(), store.Options{URL: "sqlite://" + path}); !errors.Is(err, store.ErrInUse) {
			t.Errorf("got error %v", err)
		}
		if err := first.Close(); err != nil {
			t.Fatal(err)
		}
		storetest.Open(t, store.Options{URL: path})
	})

	t.Run("only the owner can read the file", func(t *testing.T) {
		t.Parallel()
		path := filepath.Join(t.TempDir(), "folder", "with space?%41#.db")
		db := storetest.Open(t, store.Options{URL: path})
		withTable(t, db)
		for _, name := range []string{path, path + "-wal"} {
			info, err := os.Stat(name)
			if err != nil {
				t.Fatal(err)
			}
			if got := info.Mode().Perm(); got != 0o600 {
				t.Errorf("%s has mode %o", name, got)
			}
		}
	})

	t.Run("existing database is copied before a migration", func(t *testing.T) {
		t.Parallel()
		path := storetest.SQLite(t)
		db, err := store.Open(t.Context(), store.Options{URL: path})
		if err != nil {
			t.Fatal(err)
		}
		var last int
		update(t, db, func(tx *store.Tx) error {
			// An older program would have left out the last steps.
			if err := tx.QueryRow(`SELECT max(version_id) FROM goose_db_version`).Scan(&last); err != nil {
				return err
			}
			_, err := tx.Exec(`CREATE TABLE keepsake (n bigint)`)
			return err
		})
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		for version := 2; version <= last; version++ {
			forget(t, path, version)
		}
		copies := func() []string {
			found, err := filepath.Glob(path + ".before-*")
			if err != nil {
				t.Fatal(err)
			}
			return found
		}
		if got := copies(); len(got) != 0 {
			t.Fatalf("a new database left %v", got)
		}
		// A step meets its own tables and fails: the copy must be there by then.
		if _, err := store.Open(t.Context(), store.Options{URL: path}); err == nil {
			t.Fatal("a step was taken twice")
		}
		got := copies()
		if len(got) != 1 {
			t.Fatalf("got copies %v", got)
		}
		check(t, got[0], `SELECT count(*) FROM keepsake`)
	})

	t.Run("bad URLs are refused", func(t *testing.T) {
		t.Parallel()
		for _, url := range []string{"", "sqlite://", "sqlite://relative/file.db", "mysql://localhost/x"} {
			if _, err := store.Open(t.Context(), store.Options{URL: url}); err == nil {
				t.Errorf("%q was accepted", url)
			}
		}
	})
}

// forget removes a step from the record of those taken, as if it were new.
func forget(t *testing.T, path string, version int) {
	t.Helper()
	raw(t, path, func(db *sql.DB) error {
		// The first step always remains, or the database would pass for empty.
		_, err := db.Exec(`DELETE FROM goose_db_version WHERE version_id = $1`, version)
		if err == nil && version == 1 {
			t.Skip("there is one step only")
		}
		return err
	})
}

// check runs a query on a database file.
func check(t *testing.T, path, query string) {
	t.Helper()
	raw(t, path, func(db *sql.DB) error {
		var n int
		return db.QueryRow(query).Scan(&n)
	})
}

func raw(t *testing.T, path string, fn func(db *sql.DB) error) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := fn(db); err != nil {
		t.Fatal(err)
	}
}
