package store

import (
	"context"
	"errors"
	"fmt"
)

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
