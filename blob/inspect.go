package blob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"time"
)

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

// PathOf is where a file is.
func (d *Disk) PathOf(file string) string {
	return filepath.Join(d.root.Name(), filepath.FromSlash(pathOf(file)))
}

// Restore makes a file of the name that it had, from what a reader gives. It is
// durable once SyncAll has returned.
func (d *Disk) Restore(_ context.Context, file string, r io.Reader) (err error) {
	if !filepath.IsLocal(file) || path.Base(file) != file {
		return fmt.Errorf("content file %q has no proper name", file)
	}
	if err := d.makeFolder(folderOf(file)); err != nil {
		return err
	}
	f, err := d.root.OpenFile(pathOf(file), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("create content file: %w", err)
	}
	if _, err = io.Copy(f, r); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write content file: %w", err)
	}
	return nil
}

// SyncAll makes the names of all files durable.
func (d *Disk) SyncAll() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for folder := range d.folders {
		if err := d.syncFolder(folder); err != nil {
			return err
		}
	}
	return d.syncFolder(".")
}
