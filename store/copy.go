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
//
// Copying and putting back (import.go) stand here and not beside the backups that
// they are for, in package admin, because they reach into what nobody else should
// have: a connection that may write although it reads, the clock of another
// database, and the mark by which Open refuses one that is half restored.

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

// export copies row by row, from a snapshot. The file has the schema of this
// program, and so must the original have.
func (r *Reader) export(ctx context.Context, path string) (err error) {
	latest, err := LatestSchema()
	if err != nil {
		return err
	}
	if r.Schema != latest {
		return wrongSchema(r.Schema, latest)
	}
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
	columns, err := rows.ColumnTypes()
	if err != nil {
		return err
	}
	names := make([]string, len(columns))
	for i, column := range columns {
		names[i] = column.Name()
	}
	statement := "INSERT INTO " + table + " (" + strings.Join(names, ", ") + ") VALUES (" + parameters(1, len(columns)) + ")"
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
		row, err := scanAny(rows, columns)
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

// scanAny reads a row as values that either database takes. SQLite keeps booleans
// as numbers, which PostgreSQL refuses, and PostgreSQL gives JSON as bytes, which
// SQLite would keep as such; so both go by what the column was declared as.
func scanAny(rows *sql.Rows, columns []*sql.ColumnType) ([]any, error) {
	values := make([]any, len(columns))
	dest := make([]any, len(columns))
	for i := range values {
		dest[i] = &values[i]
	}
	if err := rows.Scan(dest...); err != nil {
		return nil, err
	}
	for i, column := range columns {
		kind := strings.ToUpper(column.DatabaseTypeName())
		switch v := values[i].(type) {
		case []byte:
			if kind != "BLOB" && kind != "BYTEA" {
				values[i] = string(v)
			}
		case int64:
			if kind == "BOOLEAN" {
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
