package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// MakeFolder makes a folder and those above it that are missing, as
// os.MkdirAll does, and returns when all of their names are safe. Of a folder
// that was there it syncs the name too: who made it may have been killed
// before he could.
func MakeFolder(name string, mode fs.FileMode) error {
	name, err := filepath.Abs(name)
	if err != nil {
		return err
	}
	above := []string{filepath.Dir(name)}
	for folder := above[0]; filepath.Dir(folder) != folder; folder = filepath.Dir(folder) {
		if _, err := os.Stat(folder); !errors.Is(err, fs.ErrNotExist) {
			break
		}
		above = append(above, filepath.Dir(folder))
	}
	if err := os.MkdirAll(name, mode); err != nil {
		return err
	}
	for _, folder := range above {
		// Where we may not read we have made nothing.
		if err := SyncFolder(folder); err != nil && !errors.Is(err, fs.ErrPermission) {
			return err
		}
	}
	return nil
}

// WriteFile makes data the content of a file and returns when that is safe.
// After a crash there is the old content or the new one, whole. A file beside
// it with ".new" at the end of its name may be left, and is written over.
func WriteFile(name string, data []byte, mode fs.FileMode) error {
	next := name + ".new"
	f, err := os.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(next))
	}
	if err := os.Rename(next, name); err != nil {
		return err
	}
	return SyncFolder(filepath.Dir(name))
}

// SyncFolder makes the names in a folder safe.
func SyncFolder(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return fmt.Errorf("open folder: %w", err)
	}
	if err := errors.Join(SyncNames(f), f.Close()); err != nil {
		return fmt.Errorf("sync folder: %w", err)
	}
	return nil
}

// IsFull reports whether an error says that there is no room left on a disk,
// or in what a user may have of it.
func IsFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// ErrLocked says that a lock is held by another process.
var ErrLocked = errors.New("it is locked by process")

// FullError says which disk is full.
type FullError struct {
	Path string // a folder on it
	Err  error
}

func (e *FullError) Error() string { return "the disk under " + e.Path + " is full: " + e.Err.Error() }

// Unwrap gives what the operating system said.
func (e *FullError) Unwrap() error { return e.Err }

// Under makes a FullError of an error that says that a disk is full, and leaves
// others as they are. Path is where on the disk the caller was at work.
func Under(path string, err error) error {
	if !IsFull(err) {
		return err
	}
	return &FullError{Path: path, Err: err}
}
