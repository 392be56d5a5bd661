package admin

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"time"

	"github.com/batchyard/batchyard/blob"
	"github.com/batchyard/batchyard/disk"
	"github.com/batchyard/batchyard/site"
	"github.com/batchyard/batchyard/store"
)

// BackupOptions say what to copy, and where to.
type BackupOptions struct {
	site.Place
	// Config is the server's configuration file, copied too; empty for none.
	Config string
	// To is the folder to be made. It must not be there.
	To string
	// Program is the version that makes the backup.
	Program string
	// Progress is told now and then how far it is; may be nil.
	Progress func(files int, bytes int64)
	// Warn is told of blobs whose files are missing; may be nil.
	Warn func(string)
}

// Backup copies the data of a server, which may run: the database as it is at
// one moment, every file that it names, and the keys of the local authority.
// Files that tasks have on nodes are not copied.
//
// The folder has its name only once it is complete and on disk. A backup that is
// killed leaves a folder named To.partial-….
func Backup(ctx context.Context, o BackupOptions) (m Manifest, err error) {
	if _, err := os.Lstat(o.To); !errors.Is(err, fs.ErrNotExist) {
		return m, fmt.Errorf("there is something at %s already", o.To)
	}
	if err := o.RefuseHalf(); err != nil {
		return m, err
	}
	reader, err := store.OpenReader(ctx, store.Options{URL: o.URL()}, true)
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, reader.Close()) }()
	if err := o.compare(ctx, reader); err != nil {
		return m, err
	}
	to := filepath.Clean(o.To)
	work, err := os.MkdirTemp(filepath.Dir(to), filepath.Base(to)+".partial-") // for its owner alone
	if err != nil {
		return m, fmt.Errorf("make folder of backup: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(work))
		}
	}()
	c := copier{BackupOptions: o, work: work}
	if m, err = c.copy(ctx, reader); err != nil {
		return m, err
	}
	if err := os.Rename(work, to); err != nil {
		return m, fmt.Errorf("name backup: %w", err)
	}
	return m, disk.SyncFolder(filepath.Dir(to))
}

// compare refuses to copy blobs of one site and rows of another. A database of
// an older program does not say which it is of.
func (o BackupOptions) compare(ctx context.Context, reader *store.Reader) error {
	latest, err := store.LatestSchema()
	if err != nil || reader.Schema != latest {
		return err
	}
	return reader.View(ctx, o.Compare)
}

// copier fills the folder of a backup.
type copier struct {
	BackupOptions
	work    string
	sums    *sums
	told    time.Time
	missing int
}

// copy takes the database first and then the files that this copy names: a file is
// on disk before its row is committed, and none is removed meanwhile, so that all
// of them are there.
func (c *copier) copy(ctx context.Context, reader *store.Reader) (m Manifest, err error) {
	disk, err := openBlobs(c.Data)
	if err != nil {
		return m, err
	}
	if disk != nil {
		defer func() { err = errors.Join(err, disk.Close()) }()
		// From here on no file is removed: what the snapshot names will be there.
		release, err := disk.Keep()
		if err != nil {
			return m, err
		}
		defer func() { _ = release() }()
	}
	if c.sums, err = newSums(c.work); err != nil {
		return m, err
	}
	m = Manifest{Format: backupFormat, Program: c.Program, Database: string(reader.Dialect()), Schema: reader.Schema, Taken: time.Now().UTC()}
	if err := reader.CopyTo(ctx, filepath.Join(c.work, site.DatabaseName)); err != nil {
		return m, err
	}
	if err := errors.Join(c.copyBlobs(ctx, disk), c.copyKeys(ctx)); err != nil {
		return m, err
	}
	// The sum of the database comes last: it was opened to see which files it
	// names.
	if err := c.sum(site.DatabaseName); err != nil {
		return m, err
	}
	m.Files, m.Bytes, m.Missing = c.sums.files, c.sums.bytes, c.missing
	if m.Sums, err = c.sums.close(); err != nil {
		return m, err
	}
	if err := writeManifest(filepath.Join(c.work, manifestName), m); err != nil {
		return m, err
	}
	return m, syncTree(c.work)
}

// copyBlobs copies the files that the copy of the database names.
func (c *copier) copyBlobs(ctx context.Context, disk *blob.Disk) (err error) {
	copied, err := store.OpenReader(ctx, store.Options{URL: filepath.Join(c.work, site.DatabaseName)}, true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, copied.Close()) }()
	return copied.EachBlobFile(ctx, func(f store.BlobFile) error { return c.copyBlob(ctx, disk, f) })
}

// copyBlob copies one of them. That it is lost is no error: the backup is of what
// there is.
func (c *copier) copyBlob(ctx context.Context, disk *blob.Disk, f store.BlobFile) error {
	name := path.Join(site.BlobsName, f.File[:min(1, len(f.File))], f.File)
	if _, err := os.Lstat(filepath.Join(c.work, filepath.FromSlash(name))); err == nil {
		return nil // a block that a blob has twice
	}
	err := fs.ErrNotExist
	if disk != nil {
		err = c.copyFile(ctx, disk.PathOf(f.File), name)
	}
	if errors.Is(err, fs.ErrNotExist) {
		c.missing++
		if c.Warn != nil {
			c.Warn(blobName(f) + " has lost its bytes; the backup has it without them")
		}
		return nil
	}
	return err
}

// copyKeys copies what a server has in files beside its blobs.
func (c *copier) copyKeys(ctx context.Context) error {
	entries, err := os.ReadDir(filepath.Join(c.Data, site.TLSName))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read folder of keys: %w", err)
	}
	for _, entry := range entries {
		if !entry.Type().IsRegular() {
			continue
		}
		if err := c.copyFile(ctx, filepath.Join(c.Data, site.TLSName, entry.Name()), path.Join(site.TLSName, entry.Name())); err != nil {
			return err
		}
	}
	if c.Config == "" {
		return nil
	}
	return c.copyFile(ctx, c.Config, configName)
}

// copyFile copies one file, durably, and notes its sum.
func (c *copier) copyFile(ctx context.Context, from, name string) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	in, err := os.Open(from)
	if err != nil {
		return fmt.Errorf("copy file: %w", err)
	}
	defer in.Close()
	to := filepath.Join(c.work, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return fmt.Errorf("make folder of backup: %w", err)
	}
	sum := sha256.New()
	n, err := writeFile(to, func(w io.Writer) (int64, error) { return io.Copy(io.MultiWriter(w, sum), in) })
	if err != nil {
		return err
	}
	if now := time.Now(); c.Progress != nil && now.Sub(c.told) > time.Second {
		c.told = now
		c.Progress(c.sums.files, c.sums.bytes)
	}
	return c.sums.add(name, sum.Sum(nil), n)
}

// sum notes the sum of a file that is in the backup already.
func (c *copier) sum(name string) error {
	f, err := os.Open(filepath.Join(c.work, name))
	if err != nil {
		return fmt.Errorf("read copy: %w", err)
	}
	defer f.Close()
	sum := sha256.New()
	n, err := io.Copy(sum, f)
	if err != nil {
		return fmt.Errorf("read copy: %w", err)
	}
	return c.sums.add(name, sum.Sum(nil), n)
}

// writeManifest comes last of all files: a folder without it is no backup.
func writeManifest(file string, m Manifest) error {
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return fmt.Errorf("encode manifest: %w", err)
	}
	_, err = writeFile(file, func(w io.Writer) (int64, error) {
		n, err := w.Write(append(text, '\n'))
		return int64(n), err
	})
	return err
}

// writeFile makes a file that only its owner reads, durably.
func writeFile(name string, fill func(io.Writer) (int64, error)) (int64, error) {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return 0, fmt.Errorf("make file: %w", err)
	}
	n, err := fill(f)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return n, fmt.Errorf("write %s: %w", name, err)
	}
	return n, nil
}

// syncTree makes the names in a folder and in those below it durable.
func syncTree(folder string) error {
	return filepath.WalkDir(folder, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.IsDir() {
			return err
		}
		return disk.SyncFolder(name)
	})
}
