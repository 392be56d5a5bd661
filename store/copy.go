package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
)

// A copy of a database is always an SQLite file, whatever the database: the
// schema is the same text for both, so that a copy of the one can be put back as
// the other.

// copiedTables are all tables but those of migrations, of leases, which say who
// is alive, and so nothing that holds later, and of the clock: the copy is written
// by the same one.
var copiedTables = []string{
	"site", "account", "pool", "node", "job", "task", "specification", "queue", "removal", "death",
	"storage_account", "storage_container", "storage_dropped", "storage_blob", "storage_part", "storage_block",
}

// CopiedTables names the tables that a copy has.
func CopiedTables() []string { return slices.Clone(copiedTables) }

// copyStep is how many rows of a table go in one update.
const copyStep = 500

// CopyTo writes the whole database, as it was at one moment, to an SQLite file
// that is not there yet. The server that works on it goes on, and waits for
// nothing. The file is on disk when CopyTo returns; its name is for the caller
// to make durable.
func (r *Reader) CopyTo(ctx context.Context, path string) error {
	if err := private(path); err != nil {
		return fmt.Errorf("make copy of database: %w", err)
	}
	var err error
	if r.Dialect() == SQLite {
		err = r.vacuumInto(ctx, path)
	} else {
		err = r.export(ctx, path)
	}
	if err == nil {
		err = syncFile(path)
	}
	if err != nil {
		return fmt.Errorf("copy database: %w", err)
	}
	return nil
}

// vacuumInto copies by SQLite's own means, from a snapshot. The log of the
// original cannot start over meanwhile.
func (r *Reader) vacuumInto(ctx context.Context, path string) error {
	s, err := r.db.reader(ctx)
	if err != nil {
		return err
	}
	// The connection is not used again, because it may write now: that SQLite
	// wants, although it writes to the copy alone.
	defer func() { r.db.readers <- discard(s) }()
	if err := s.exec(ctx, "PRAGMA query_only = 0"); err != nil {
		return err
	}
	_, err = s.execute(ctx, "VACUUM INTO $1", []any{path})
	return err
}

// export copies row by row, from a snapshot.
func (r *Reader) export(ctx context.Context, path string) (err error) {
	target, err := Open(ctx, Options{URL: path, clock: r.db.clock})
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, target.Close())
		if err == nil {
			err = os.Remove(path + ".lock") // nobody else opened it
		}
	}()
	return r.View(ctx, func(tx *Tx) error {
		for _, table := range copiedTables {
			if err := copyTable(ctx, tx, target, table); err != nil {
				return fmt.Errorf("table %s: %w", table, err)
			}
		}
		return nil
	})
}

// copyTable copies the rows of a table in steps, each of which is one update.
func copyTable(ctx context.Context, from *Tx, to *DB, table string) error {
	rows, err := from.Query("SELECT * FROM " + table)
	if err != nil {
		return err
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		return err
	}
	booleans := map[string]bool{"dedicated": table == "node", "takes": true, "bound": table == "task", "open": true}
	statement := "INSERT INTO " + table + " (" + strings.Join(columns, ", ") + ") VALUES (" + parameters(1, len(columns)) + ")"
	var batch [][]any
	flush := func() error {
		err := to.Update(ctx, func(tx *Tx) error {
			for _, row := range batch {
				if _, err := tx.Exec(statement, row...); err != nil {
					return err
				}
			}
			return nil
		})
		batch = batch[:0]
		return err
	}
	for rows.Next() {
		row, err := scanAny(rows, columns, booleans)
		if err != nil {
			return err
		}
		if batch = append(batch, row); len(batch) == copyStep {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	return flush()
}

// blobColumns are those whose bytes are no text.
var blobColumns = map[string]bool{"key1": true, "key2": true, "token_hash": true, "data": true}

// scanAny reads a row as values that either database takes. SQLite knows no
// booleans, and PostgreSQL gives JSON as bytes.
func scanAny(rows *sql.Rows, columns []string, booleans map[string]bool) ([]any, error) {
	values := make([]any, len(columns))
	dest := make([]any, len(columns))
	for i := range values {
		dest[i] = &values[i]
	}
	if err := rows.Scan(dest...); err != nil {
		return nil, err
	}
	for i, column := range columns {
		switch v := values[i].(type) {
		case []byte:
			if !blobColumns[column] {
				values[i] = string(v)
			}
		case int64:
			if booleans[column] {
				values[i] = v != 0
			}
		}
	}
	return values, nil
}

// syncFile makes what was written to a file durable.
func syncFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// restoringName is a row, among those that say who may run a loop, that is there
// while a database is being restored.
const restoringName = "restoring"

// errHalfRestored keeps servers away from what is not all there.
var errHalfRestored = errors.New("its restore was not finished: restore it again")

// Import fills an empty database, which must be PostgreSQL and have no server,
// with a copy that CopyTo made, and that says it is of a site. If it is killed,
// servers refuse the database until another Import has begun anew and finished.
// One that was finished may be begun anew too, if it was of the same site. At its
// end resume changes what does not hold any more.
func Import(ctx context.Context, copied, site string, o Options, resume func(*Tx) error) (err error) {
	o.restoring = true
	from, err := OpenReader(ctx, Options{URL: copied, Now: o.Now, Clock: o.Clock}, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	o.clock = from.db.clock // what is due goes by it
	to, err := Open(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, to.Close()) }()
	if err := to.Update(ctx, func(tx *Tx) error { return beginImport(tx, site) }); err != nil {
		return err
	}
	err = from.View(ctx, func(tx *Tx) error {
		for _, table := range copiedTables {
			if err := copyTable(ctx, tx, to, table); err != nil {
				return fmt.Errorf("restore table %s: %w", table, err)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return to.Update(ctx, func(tx *Tx) error {
		if err := resume(tx); err != nil {
			return err
		}
		_, err := tx.Exec(`DELETE FROM lease WHERE name = $1`, restoringName)
		return err
	})
}

// beginImport marks the database, which must be empty or hold what an Import of
// that site has put or left in it.
func beginImport(tx *Tx, site string) error {
	half, err := halfRestored(tx)
	if err != nil {
		return err
	}
	switch is, err := tx.Site(); {
	case err == nil:
		half = half || is.ID == site
	case !errors.Is(err, ErrNotFound):
		return err
	}
	for _, table := range copiedTables {
		if half {
			if _, err := tx.Exec("DELETE FROM " + table); err != nil {
				return err
			}
		}
		var filled bool
		if err := tx.QueryRow("SELECT EXISTS (SELECT 1 FROM " + table + ")").Scan(&filled); err != nil {
			return err
		}
		if filled {
			return fmt.Errorf("database is not empty: table %s has rows", table)
		}
	}
	_, err = tx.Exec(`
		INSERT INTO lease (name, holder, epoch, beat)
		VALUES ($1, '', 1, 0)
		ON CONFLICT (name) DO NOTHING`, restoringName)
	return err
}

func halfRestored(tx *Tx) (half bool, err error) {
	return half, tx.QueryRow(`SELECT EXISTS (SELECT 1 FROM lease WHERE name = $1)`, restoringName).Scan(&half)
}

// ForgetHolders removes what says who may do what, and holds no longer in a
// database that was put back to an earlier time: all but what keeps servers away
// until it is whole.
func (tx *Tx) ForgetHolders() error {
	_, err := tx.Exec(`DELETE FROM lease WHERE name NOT IN ($1, $2)`, restoringName, presenceName)
	if err != nil {
		return fmt.Errorf("forget holders: %w", err)
	}
	return nil
}
