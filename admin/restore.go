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

	"github.com/batchyard/batchyard/disk"
	"github.com/batchyard/batchyard/site"
	"github.com/batchyard/batchyard/store"
)

// RestoreOptions say what to restore, and to where.
type RestoreOptions struct {
	// Place is where the data go. The folder is empty or not there; a PostgreSQL
	// database is empty.
	site.Place
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
// remember; see resume for what that means for nodes.
func Restore(ctx context.Context, o RestoreOptions) (m Manifest, err error) {
	r := &restorer{RestoreOptions: o, work: o.Restoring()}
	if r.Progress == nil {
		r.Progress = func(string) {}
	}
	if r.backup, err = openBackup(o.From); err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, r.backup.root.Close()) }()
	if err := r.checkSchema(); err != nil {
		return m, err
	}
	if err := r.checkTarget(); err != nil {
		return m, err
	}
	r.Progress("verifying")
	if err := r.backup.verify(ctx); err != nil {
		return m, fmt.Errorf("verify backup: %w", err)
	}
	// Task users must be able to pass the data folder, as a server makes it.
	if err := os.MkdirAll(r.Data, 0o711); err != nil {
		return m, fmt.Errorf("make data folder: %w", err)
	}
	unlock, err := r.Lock()
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	for _, step := range []func(context.Context) error{r.prepare, r.unpack, r.resume, r.place, r.end} {
		if err := step(ctx); err != nil {
			return m, err
		}
	}
	return r.backup.manifest, nil
}

// restorer is one restore on its way.
type restorer struct {
	RestoreOptions
	backup *backup
	work   string // everything is made here first
	id     string // of the site that is being made, the same if it is begun again
	use    site.Use
}

// restored are the names that a restore makes in the data folder, in the order
// in which it does: the database last.
var restored = []string{site.BlobsName, site.TLSName, configName, site.FileName, site.DatabaseName}

// harmless are names that an empty data folder may have: the lock that a restore
// takes, and what the root of a file system has.
var harmless = []string{site.LockName, "lost+found"}

// checkSchema refuses what a newer program has written.
func (r *restorer) checkSchema() error {
	known, err := store.LatestSchema()
	if err != nil {
		return err
	}
	if m := r.backup.manifest; m.Schema > known {
		return fmt.Errorf("the backup has schema %d and this program knows %d: restore it with the program that made it (%s), or a newer one", m.Schema, known, m.Program)
	}
	return nil
}

// checkTarget refuses a folder in which there is something that a restore has
// not made.
func (r *restorer) checkTarget() error {
	entries, err := os.ReadDir(r.Data)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read data folder: %w", err)
	}
	entries = slices.DeleteFunc(entries, func(e fs.DirEntry) bool { return slices.Contains(harmless, e.Name()) })
	begun := slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.Name() == site.RestoringName })
	for _, entry := range entries {
		if !begun || entry.Name() != site.RestoringName && !slices.Contains(restored, entry.Name()) {
			return fmt.Errorf("%s is not empty: there is %s; restore into a new folder, or move the old one away", r.Data, entry.Name())
		}
	}
	return nil
}

// prepare makes an empty folder to work in, without what an earlier restore has
// left. It says there what the site will be called, and goes on to say so when
// the restore is begun again: rows of that site, if a database has any, are of
// this restore.
func (r *restorer) prepare(context.Context) error {
	r.id = site.NewID()
	for _, place := range []site.Place{r.Place, {Data: r.work}} {
		if before, err := place.OfFolder(); err == nil && before != nil {
			r.id = before.ID
		}
	}
	if err := os.MkdirAll(r.work, 0o700); err != nil {
		return fmt.Errorf("make folder to restore in: %w", err)
	}
	if err := (site.Place{Data: r.work}).Mark(site.Identity{ID: r.id}); err != nil {
		return err
	}
	for _, name := range restored {
		if err := os.RemoveAll(filepath.Join(r.Data, name)); err != nil {
			return fmt.Errorf("remove unfinished restore: %w", err)
		}
	}
	if err := r.empty(); err != nil {
		return err
	}
	return disk.SyncFolder(r.Data)
}

// empty removes what is in the folder to work in, but for the name of the site.
func (r *restorer) empty() error {
	entries, err := os.ReadDir(r.work)
	if err != nil {
		return fmt.Errorf("remove unfinished restore: %w", err)
	}
	for _, entry := range entries {
		if entry.Name() == site.FileName {
			continue
		}
		if err := os.RemoveAll(filepath.Join(r.work, entry.Name())); err != nil {
			return fmt.Errorf("remove unfinished restore: %w", err)
		}
	}
	return nil
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
	folder := filepath.Join(r.work, site.TLSName)
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
	file := filepath.Join(r.work, site.DatabaseName)
	db, err := store.Open(ctx, store.Options{URL: file}) // brings an older schema up to date
	if err != nil {
		return err
	}
	err = db.Update(ctx, func(tx *store.Tx) error {
		use, err := site.UseOf(tx)
		if err != nil {
			return err
		}
		r.use = use
		if err := tx.PutSite(store.Site{ID: r.id, Use: string(use), Created: tx.Now()}); err != nil || r.Database != "" {
			return err
		}
		return resume(tx)
	})
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
		if name == site.FileName {
			if err := r.Mark(site.Identity{ID: r.id, Use: r.use}); err != nil {
				return err
			}
			continue
		}
		if name == site.DatabaseName && r.Database != "" {
			continue
		}
		err := os.Rename(filepath.Join(r.work, name), filepath.Join(r.Data, name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("put %s in place: %w", name, err)
		}
	}
	if err := disk.SyncFolder(r.Data); err != nil {
		return err
	}
	if r.Database == "" {
		return nil
	}
	r.Progress("copying rows")
	return store.Import(ctx, filepath.Join(r.work, site.DatabaseName), r.id, store.Options{URL: r.Database}, resume)
}

// end opens the place to servers, which refuse it until the folder to work in is
// gone. The name of the site goes last.
func (r *restorer) end(context.Context) error {
	r.Progress("ending")
	if err := r.empty(); err != nil {
		return err
	}
	if err := os.RemoveAll(r.work); err != nil {
		return fmt.Errorf("end restore: %w", err)
	}
	return disk.SyncFolder(r.Data)
}
