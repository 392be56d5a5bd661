package site

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/batchyard/batchyard/disk"
	"github.com/batchyard/batchyard/store"
)

// Place says where the data of a server are.
type Place struct {
	// Data is the server's data folder.
	Data string
	// Database is a postgres:// URL; empty is SQLite in the data folder.
	Database string
}

// What a data folder holds.
const (
	DatabaseName = "batchyard.db"
	BlobsName    = "blobs"
	NodesName    = "nodes"
	TLSName      = "tls"
	// FileName says which site the folder is of.
	FileName = "site.json"
	// LockName is locked by whoever may write: a server, or a repair.
	LockName = "site.lock"
	// RestoringName is a folder that is there while a backup is being put in
	// place; nobody else works on what is there then.
	RestoringName = ".restoring"
)

// URL is the database as package store names it.
func (p Place) URL() string {
	if p.Database != "" {
		return p.Database
	}
	return p.path(DatabaseName)
}

// Blobs is the folder of the files of blobs.
func (p Place) Blobs() string { return p.path(BlobsName) }

// Nodes is the folder of the folders of nodes.
func (p Place) Nodes() string { return p.path(NodesName) }

// Restoring is the folder that is there while a backup is being put in place.
func (p Place) Restoring() string { return p.path(RestoringName) }

func (p Place) path(name string) string { return filepath.Join(p.Data, name) }

// Lock makes sure that nobody else writes in the data folder, until unlock is
// called or the process ends. The folder must be there.
func (p Place) Lock() (unlock func() error, err error) {
	unlock, err = disk.Lock(p.path(LockName))
	if errors.Is(err, disk.ErrLocked) {
		err = fmt.Errorf("data folder %s: %w: %w", p.Data, store.ErrInUse, err)
	}
	return unlock, err
}

// RefuseHalf fails if a restore to this place was not finished.
func (p Place) RefuseHalf() error {
	if _, err := os.Lstat(p.Restoring()); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("data folder %s: its restore was not finished: restore it again", p.Data)
	}
	return nil
}

// hasDatabase tells whether there is a database to be opened, or one would be
// made. What is not a file is always there.
func (p Place) hasDatabase() bool {
	if p.Database != "" {
		return true
	}
	_, err := os.Stat(p.path(DatabaseName))
	return !errors.Is(err, fs.ErrNotExist)
}
