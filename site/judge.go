package site

import (
	"errors"
	"fmt"

	"github.com/batchyard/batchyard/batch"
)

// ErrMismatch says that a folder and a database do not belong together, or are
// not for this use.
var ErrMismatch = errors.New("data folder and database do not belong together")

// facts are what can be seen of a place before anything is done to it.
type facts struct {
	place Place
	// folder and database are what each says; nil for nothing.
	folder, database *Identity
	// fresh tells that the database is not there or was never used; accounts are
	// those that it has.
	fresh    bool
	accounts []batch.AccountName
	seen     evidence
}

// judge says whether folder and database may be used together, and for this. An
// Identity without an ID has yet to be made.
//
// Where both say who they are, that decides. Where one does not, because it is
// new, or because somebody removed the folder's word to say that he knows better,
// what they hold decides: it must be of each other.
func (f facts) judge(use Use) (Identity, error) {
	i, err := f.identity(use)
	if err == nil && i.Use != use {
		err = f.wrongUse(i.Use)
	}
	return i, err
}

func (f facts) identity(use Use) (Identity, error) {
	switch {
	case f.folder != nil && f.database != nil && f.folder.ID == f.database.ID:
		return *f.database, nil
	case f.folder != nil && f.database != nil:
		return Identity{}, f.mismatch("the folder is of site %s and the database of site %s", f.folder.ID, f.database.ID)
	case f.folder != nil && f.fresh:
		return Identity{}, f.mismatch("the folder is of site %s and the database is new; name the right database, bring it back, or restore a backup", f.folder.ID)
	case f.folder != nil:
		return Identity{}, f.mismatch("the folder is of site %s and the database does not say which it is of", f.folder.ID)
	case f.database == nil && f.fresh && f.seen.folderHolds():
		return Identity{}, f.mismatch("the database is new and the folder is not: it has %s; name the right database, bring it back, restore a backup, or use an empty folder", f.seen.held())
	case f.database == nil && f.fresh:
		return Identity{Use: use}, nil
	}
	if what, ok := f.seen.contradiction(); ok {
		return Identity{}, f.mismatch("%s", what)
	}
	if f.database != nil {
		return *f.database, nil
	}
	return Identity{Use: f.usedBefore(use)}, nil
}

// usedBefore tells by its accounts what a database was used for that does not
// say so itself. One that served both is taken for what is wanted now.
func (f facts) usedBefore(use Use) Use {
	others, dev := 0, false
	for _, name := range f.accounts {
		if name == DevAccount {
			dev = true
		} else {
			others++
		}
	}
	switch {
	case !dev:
		return ForServer
	case others == 0:
		return ForDev
	}
	return use
}

func (f facts) mismatch(format string, args ...any) error {
	return fmt.Errorf("data folder %s, database %s: %w: %s. If they do belong together, remove %s and try again",
		f.place.Data, f.place.shown(), ErrMismatch, fmt.Sprintf(format, args...), f.place.path(FileName))
}

func (f facts) wrongUse(is Use) error {
	if is == ForDev {
		return fmt.Errorf("data folder %s: it has the data of 'batchyard dev', whose accounts and keys everybody knows; use another folder", f.place.Data)
	}
	return fmt.Errorf("data folder %s: it has the data of 'batchyard server'; use another folder", f.place.Data)
}
