package store

import (
	"fmt"

	"github.com/batchyard/batchyard/batch"
)

// outcome turns the error of an update that found the disk full into one that
// its caller may see and that clients try again: nothing of the update was
// kept, and the next one works as soon as there is room. The log gets a line
// when the disk gets full and one when there is room again.
func (db *DB) outcome(err error) error {
	switch {
	case err == nil:
		if db.full.Load() && db.full.CompareAndSwap(true, false) {
			db.log.Info("disk of database has room again", "place", db.dialect.place)
		}
		return nil
	case !db.dialect.full(err):
		return err
	}
	if db.full.CompareAndSwap(false, true) {
		db.log.Error("disk of database is full: nothing can be written until there is room", "place", db.dialect.place, "error", err)
	}
	return &batch.Error{
		Code:    batch.CodeServerBusy,
		Message: fmt.Sprintf("The disk under %s is full. Please retry when there is room.", db.dialect.place),
		Err:     err,
	}
}
