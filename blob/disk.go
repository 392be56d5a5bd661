package blob

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/batchyard/batchyard/disk"
)

// PartSuffix ends the name of a file that is being written.
const PartSuffix = ".part"

// Disk keeps content in a folder: a file under a random name in one of some
// hundred subfolders. Everything is opened through os.Root, so that no name,
// whatever a database may hold, leads out of it.
type Disk struct {
	root *os.Root

	mu      sync.Mutex
	folders map[string]bool // subfolders that are known to be there, durably
}

// OpenDisk opens a folder, which it makes if it is not there.
func OpenDisk(folder string) (*Disk, error) {
	if err := disk.MakeFolder(folder, 0o700); err != nil {
		return nil, fmt.Errorf("make content folder: %w", err)
	}
	root, err := os.OpenRoot(folder)
	if err != nil {
		return nil, fmt.Errorf("open content folder: %w", err)
	}
	return &Disk{root: root, folders: map[string]bool{}}, nil
}

// Close closes the folder. Files that are open stay so.
func (d *Disk) Close() error { return d.root.Close() }

// Create implements [Bytes].
func (d *Disk) Create(context.Context) (Writer, error) {
	name := strings.ToLower(rand.Text())
	if err := d.makeFolder(folderOf(name)); err != nil {
		return nil, err
	}
	f, err := d.root.OpenFile(pathOf(name+PartSuffix), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, d.trouble("create content file", err)
	}
	return &diskWriter{disk: d, name: name, file: f}, nil
}

// Open implements [Bytes].
func (d *Disk) Open(_ context.Context, file string, offset, length int64) (io.ReadCloser, error) {
	f, err := d.root.Open(pathOf(file))
	if err != nil {
		return nil, fmt.Errorf("open content file: %w", err)
	}
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		return nil, errors.Join(fmt.Errorf("seek content file: %w", err), f.Close())
	}
	return &section{LimitedReader: io.LimitedReader{R: f, N: length}, file: f}, nil
}

// Delete implements [Bytes]. It does not wait for the disk: a file that comes
// back after a crash belongs to no blob and is swept. Nor does it remove anything
// while a backup is being made, see Keep.
func (d *Disk) Delete(_ context.Context, file string) error {
	if d.kept() {
		return nil
	}
	if err := d.root.Remove(pathOf(file)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove content file: %w", err)
	}
	return nil
}

// Old implements [Bytes].
func (d *Disk) Old(ctx context.Context, before time.Time) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		folders, err := d.names(".")
		for _, folder := range folders {
			if len(folder) != 1 {
				continue // what was moved aside, or is the file system's own
			}
			var files []string
			if files, err = d.names(folder); err != nil {
				break
			}
			for _, file := range files {
				if ctx.Err() != nil {
					err = ctx.Err()
					break
				}
				info, err := d.root.Lstat(path.Join(folder, file))
				if err != nil || !info.ModTime().Before(before) || !info.Mode().IsRegular() {
					continue // gone meanwhile, or young, or not ours
				}
				if !yield(file, nil) {
					return
				}
			}
		}
		if err != nil {
			yield("", fmt.Errorf("list content files: %w", err))
		}
	}
}

// names reads a folder, and is nothing for what is none.
func (d *Disk) names(folder string) ([]string, error) {
	if info, err := d.root.Stat(folder); err != nil || !info.IsDir() {
		return nil, err
	}
	f, err := d.root.Open(folder)
	if err != nil {
		return nil, err
	}
	names, err := f.Readdirnames(-1)
	return names, errors.Join(err, f.Close())
}

// makeFolder makes a subfolder durable before the first file goes into it.
func (d *Disk) makeFolder(folder string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.folders[folder] {
		return nil
	}
	if err := d.root.Mkdir(folder, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return d.trouble("make content folder", err)
	}
	if err := d.syncFolder("."); err != nil {
		return err
	}
	d.folders[folder] = true
	return nil
}

// syncFolder makes the names in a folder durable.
func (d *Disk) syncFolder(folder string) error {
	f, err := d.root.Open(folder)
	if err != nil {
		return fmt.Errorf("open content folder: %w", err)
	}
	if err := errors.Join(disk.SyncNames(f), f.Close()); err != nil {
		return d.trouble("sync content folder", err)
	}
	return nil
}

// trouble says what was being done when an error came, and which disk is full
// if that is what it says.
func (d *Disk) trouble(doing string, err error) error {
	return fmt.Errorf("%s: %w", doing, disk.Under(d.root.Name(), err))
}

// folderOf is the subfolder of a file. Names are base 32, so there are 32.
func folderOf(file string) string { return file[:min(1, len(file))] }

// pathOf is where a file is. A name with a slash could only come from a broken
// database; os.Root keeps it inside.
func pathOf(file string) string { return path.Join(folderOf(file), file) }

// diskWriter writes one file under a name that says it is not complete.
type diskWriter struct {
	disk *Disk
	name string
	file *os.File // nil once closed
}

func (w *diskWriter) Write(p []byte) (int, error) {
	n, err := w.file.Write(p)
	if err != nil {
		err = w.disk.trouble("write content file", err)
	}
	return n, err
}

// Commit syncs the file, gives it its name and syncs that. After a crash in
// between there is a file, whole or not, that no row speaks of.
func (w *diskWriter) Commit(context.Context) (string, error) {
	if err := w.file.Sync(); err != nil {
		return "", w.disk.trouble("sync content file", err)
	}
	err := w.file.Close()
	w.file = nil
	if err != nil {
		return "", errors.Join(w.disk.trouble("close content file", err), w.remove())
	}
	if err := w.disk.root.Rename(pathOf(w.name+PartSuffix), pathOf(w.name)); err != nil {
		return "", errors.Join(w.disk.trouble("name content file", err), w.remove())
	}
	return w.name, w.disk.syncFolder(folderOf(w.name))
}

// Abort removes what was written. An error changes nothing for the caller and
// leaves a file for the sweep.
func (w *diskWriter) Abort() {
	if w.file != nil {
		_ = errors.Join(w.file.Close(), w.remove())
		w.file = nil
	}
}

func (w *diskWriter) remove() error { return w.disk.root.Remove(pathOf(w.name + PartSuffix)) }

// section is a part of a file. It writes itself in the form in which the
// operating system can send a file without copying it.
type section struct {
	io.LimitedReader
	file *os.File
}

func (s *section) WriteTo(w io.Writer) (int64, error) { return io.Copy(w, &s.LimitedReader) }

func (s *section) Close() error { return s.file.Close() }
