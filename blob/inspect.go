package blob

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"time"

	"github.com/batchyard/batchyard/disk"
)

// keepName is a file, beside the folders of content, that is locked while no
// content may be removed.
const keepName = "keep.lock"

// Keep makes every process that works on this folder leave content where it is
// until release is called, or this process ends. Content is removed only after
// the rows that name it are gone from the database: so whatever a snapshot of
// the database names that was taken after Keep is there until release. What is
// not removed meanwhile is found by a later sweep.
func (d *Disk) Keep() (release func() error, err error) {
	f, err := d.root.OpenFile(keepName, os.O_RDWR|os.O_CREATE, 0o600)
	if disk.IsReadOnly(d.root.Name()) {
		// Who can write there, elsewhere, may still have made the lock.
		if f, err = d.root.Open(keepName); errors.Is(err, fs.ErrNotExist) {
			return func() error { return nil }, nil
		}
	}
	if err != nil {
		return nil, fmt.Errorf("open lock of content: %w", err)
	}
	if err := lockKept(f); err != nil {
		return nil, errors.Join(fmt.Errorf("lock content: %w", err), f.Close())
	}
	return f.Close, nil
}

// kept tells whether content must not be removed now. If that cannot be told,
// it must not.
func (d *Disk) kept() bool {
	f, err := d.root.Open(keepName)
	if errors.Is(err, fs.ErrNotExist) {
		return false // there was never a backup
	}
	if err != nil {
		return true
	}
	defer f.Close()
	return isKept(f)
}

// Stat gives the size of a file and when it was written, or an error that is
// fs.ErrNotExist. What is no regular file counts as not there.
func (d *Disk) Stat(file string) (size int64, modified time.Time, err error) {
	info, err := d.root.Lstat(pathOf(file))
	if err == nil && !info.Mode().IsRegular() {
		err = fs.ErrNotExist
	}
	if err != nil {
		return 0, time.Time{}, fmt.Errorf("look at content file: %w", err)
	}
	return info.Size(), info.ModTime(), nil
}

// SetAside moves a file, of which no row speaks, out of the way: into a folder of
// a name, beside those of content, where nobody but people will look for it.
func (d *Disk) SetAside(file, folder string) error {
	if len(folder) <= 1 {
		return fmt.Errorf("move content file aside: %q is a folder of content", folder)
	}
	if err := d.root.Mkdir(folder, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return d.trouble("make folder aside", err)
	}
	if err := d.root.Rename(pathOf(file), path.Join(folder, file)); err != nil {
		return d.trouble("move content file aside", err)
	}
	return errors.Join(d.syncFolder(folder), d.syncFolder(folderOf(file)), d.syncFolder("."))
}

// PathOf is where a file is.
func (d *Disk) PathOf(file string) string {
	return filepath.Join(d.root.Name(), filepath.FromSlash(pathOf(file)))
}
