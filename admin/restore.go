package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/batchyard/batchyard/store"
)

// RestoreOptions say what to restore, and to where.
type RestoreOptions struct {
	// Place is where the data go. The folder is empty or not there; a PostgreSQL
	// database is empty.
	Place
	// From is the folder of the backup.
	From string
	// Progress is told of each step in words; may be nil.
	Progress func(string)
}

// Restore puts a backup in place, for a server to be started on it. It reads all
// of the backup before it writes anything, and the database has its name last:
// a restore that is killed leaves nothing that a server would start on, and may
// be begun again.
//
// The restored service is at an earlier time than its clients and its nodes may
// remember; see [store.Tx.Resume] for what that means for nodes.
func Restore(ctx context.Context, o RestoreOptions) (m Manifest, err error) {
	r := &restorer{RestoreOptions: o, work: filepath.Join(o.Data, store.RestoringName)}
	if r.Progress == nil {
		r.Progress = func(string) {}
	}
	if r.backup, err = openBackup(o.From); err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, r.backup.root.Close()) }()
	if err := r.checkTarget(); err != nil {
		return m, err
	}
	r.Progress("verifying")
	if err := r.backup.verify(ctx); err != nil {
		return m, fmt.Errorf("verify backup: %w", err)
	}
	for _, step := range []func(context.Context) error{r.prepare, r.unpack, r.resume, r.place} {
		if err := step(ctx); err != nil {
			return m, err
		}
	}
	return r.backup.manifest, nil
}

type restorer struct {
	RestoreOptions
	backup *backup
	work   string // everything is made here first
}

// restored are the names that a restore makes in the data folder, in the order
// in which it does: the database last.
var restored = []string{blobsName, tlsName, configName, databaseName}

// checkTarget refuses a folder in which there is something that a restore has
// not made.
func (r *restorer) checkTarget() error {
	entries, err := os.ReadDir(r.Data)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(entries) == 0 {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read data folder: %w", err)
	}
	begun := slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.Name() == store.RestoringName })
	for _, entry := range entries {
		if !begun || entry.Name() != store.RestoringName && !slices.Contains(restored, entry.Name()) {
			return fmt.Errorf("%s is not empty: there is %s; restore into a new folder, or move the old one away", r.Data, entry.Name())
		}
	}
	return nil
}

// prepare makes an empty folder to work in, without what an earlier restore has
// left.
func (r *restorer) prepare(context.Context) error {
	// Task users must be able to pass the data folder, as a server makes it.
	if err := os.MkdirAll(r.Data, 0o711); err != nil {
		return fmt.Errorf("make data folder: %w", err)
	}
	if _, err := os.Lstat(r.work); err == nil {
		for _, name := range restored {
			if err := os.RemoveAll(filepath.Join(r.Data, name)); err != nil {
				return fmt.Errorf("remove unfinished restore: %w", err)
			}
		}
		if err := os.RemoveAll(r.work); err != nil {
			return fmt.Errorf("remove unfinished restore: %w", err)
		}
	}
	if err := os.Mkdir(r.work, 0o700); err != nil {
		return fmt.Errorf("make folder to restore in: %w", err)
	}
	return syncFolder(r.Data)
}

// unpack copies all files.
func (r *restorer) unpack(ctx context.Context) error {
	r.Progress("copying files")
	err := r.backup.each(ctx, func(e entry) error {
		to := filepath.Join(r.work, filepath.FromSlash(e.name))
		if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
			return err
		}
		_, err := writeFile(to, func(w io.Writer) (int64, error) { return r.backup.read(e, w) })
		return err
	})
	if err == nil {
		err = r.publish()
	}
	if err != nil {
		return fmt.Errorf("restore files: %w", err)
	}
	return nil
}

// publish lets everybody read the authority's certificate, which clients must be
// told to trust, as the server that made it did.
func (r *restorer) publish() error {
	folder := filepath.Join(r.work, tlsName)
	certificates, err := filepath.Glob(filepath.Join(folder, "*.pem"))
	if err != nil || len(certificates) == 0 {
		return err
	}
	for _, name := range certificates {
		if err := os.Chmod(name, 0o644); err != nil {
			return err
		}
	}
	return os.Chmod(folder, 0o755)
}

// resume makes the copy of the database a new life of it.
func (r *restorer) resume(ctx context.Context) error {
	r.Progress("bringing the database up to date")
	file := filepath.Join(r.work, databaseName)
	db, err := store.Open(ctx, store.Options{URL: file}) // brings an older schema up to date
	if err != nil {
		return err
	}
	if r.Database == "" {
		err = db.Update(ctx, func(tx *store.Tx) error { return tx.Resume() })
	}
	if err := errors.Join(err, db.Close()); err != nil {
		return fmt.Errorf("resume database: %w", err)
	}
	for _, name := range []string{file + ".lock", file + "-wal", file + "-shm"} {
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("close database: %w", err)
		}
	}
	return nil
}

// place moves everything where it belongs.
func (r *restorer) place(ctx context.Context) error {
	if err := syncTree(r.work); err != nil {
		return err
	}
	for _, name := range restored {
		if name == databaseName && r.Database != "" {
			continue
		}
		err := os.Rename(filepath.Join(r.work, name), filepath.Join(r.Data, name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("put %s in place: %w", name, err)
		}
	}
	if err := syncFolder(r.Data); err != nil {
		return err
	}
	if r.Database != "" {
		r.Progress("copying rows")
		if err := store.Import(ctx, filepath.Join(r.work, databaseName), store.Options{URL: r.Database}); err != nil {
			return err
		}
	}
	// Servers refuse the folder until this one is gone.
	if err := os.RemoveAll(r.work); err != nil {
		return fmt.Errorf("end restore: %w", err)
	}
	return syncFolder(r.Data)
}
