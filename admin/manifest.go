package admin

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/batchyard/batchyard/site"
)

// A backup is a folder:
//
//	manifest.json   what it is; Manifest
//	SHA256SUMS      sum and name of each file below, as sha256sum writes it
//	batchyard.db    the database, an SQLite file whatever it came from
//	blobs/          files of blobs, laid out as in the data folder
//	tls/            the local authority, if there is one
//	config.toml     the configuration, if it was named
const (
	manifestName = "manifest.json"
	sumsName     = "SHA256SUMS"
	configName   = "config.toml"
)

// backupFormat is the version of this layout.
const backupFormat = 1

// Manifest says what a backup is.
type Manifest struct {
	Format   int       `json:"format"`
	Program  string    `json:"program"` // the version that made it
	Database string    `json:"database"`
	Schema   int64     `json:"schema"`
	Taken    time.Time `json:"taken"` // it shows the database at this time or a little later
	Files    int       `json:"files"`
	Bytes    int64     `json:"bytes"`
	Missing  int       `json:"missing"` // files of blobs that were not there to copy
	Sums     string    `json:"sums"`    // SHA-256 of SHA256SUMS
}

// sums writes SHA256SUMS as files are copied.
type sums struct {
	file  *os.File
	out   *bufio.Writer
	hash  hash.Hash
	files int
	bytes int64
}

// newSums makes the file in the folder of the backup, for its owner alone.
func newSums(folder string) (*sums, error) {
	f, err := os.OpenFile(filepath.Join(folder, sumsName), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fmt.Errorf("write sums: %w", err)
	}
	s := &sums{file: f, hash: sha256.New()}
	s.out = bufio.NewWriter(io.MultiWriter(f, s.hash))
	return s, nil
}

// add writes a line as sha256sum does, by which a backup can be checked where there
// is no Batchyard.
func (s *sums) add(name string, sum []byte, size int64) error {
	s.files++
	s.bytes += size
	_, err := fmt.Fprintf(s.out, "%x  %s\n", sum, name)
	return err
}

// close makes the sums durable and returns the sum of them.
func (s *sums) close() (string, error) {
	err := s.out.Flush()
	if err == nil {
		err = s.file.Sync()
	}
	if err = errors.Join(err, s.file.Close()); err != nil {
		return "", fmt.Errorf("write sums: %w", err)
	}
	return hex.EncodeToString(s.hash.Sum(nil)), nil
}

// backup is one that is being read. Nothing outside of its folder is read,
// whatever its names and links say.
type backup struct {
	root     *os.Root
	manifest Manifest
}

// openBackup reads the manifest of a backup.
func openBackup(folder string) (*backup, error) {
	root, err := os.OpenRoot(folder)
	if err != nil {
		return nil, fmt.Errorf("open backup: %w", err)
	}
	b := &backup{root: root}
	if err := b.readManifest(); err != nil {
		return nil, errors.Join(fmt.Errorf("read backup %s: %w", folder, err), root.Close())
	}
	return b, nil
}

// maxManifest bounds what is read of a manifest.
const maxManifest = 1 << 20

// readManifest refuses what is no backup, and a layout that this program does not
// know, before anything is made of it.
func (b *backup) readManifest() error {
	f, err := b.open(manifestName)
	if err != nil {
		return err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxManifest))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, &b.manifest); err != nil {
		return fmt.Errorf("%s: %w", manifestName, err)
	}
	if b.manifest.Format != backupFormat {
		return fmt.Errorf("it has format %d and this program knows %d", b.manifest.Format, backupFormat)
	}
	return nil
}

// open opens a regular file of the backup.
func (b *backup) open(name string) (*os.File, error) {
	info, err := b.root.Lstat(filepath.FromSlash(name))
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", name)
	}
	if err != nil {
		return nil, err
	}
	return b.root.Open(filepath.FromSlash(name))
}

// entry is a line of SHA256SUMS.
type entry struct {
	name string
	sum  string
}

// maxLine bounds a line of SHA256SUMS; our own are far shorter.
const maxLine = 4096

// each calls fn with each file, in the order of SHA256SUMS, and fails unless they
// are those that the manifest speaks of.
func (b *backup) each(ctx context.Context, fn func(entry) error) error {
	f, err := b.open(sumsName)
	if err != nil {
		return err
	}
	defer f.Close()
	all := sha256.New()
	lines := bufio.NewScanner(io.TeeReader(f, all))
	lines.Buffer(nil, maxLine)
	n, database := 0, false
	for lines.Scan() {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		e, err := parseEntry(lines.Text())
		if err != nil {
			return err
		}
		if err := fn(e); err != nil {
			return err
		}
		n++
		database = database || e.name == site.DatabaseName
	}
	switch {
	case lines.Err() != nil:
		return fmt.Errorf("read sums: %w", lines.Err())
	case hex.EncodeToString(all.Sum(nil)) != b.manifest.Sums || n != b.manifest.Files:
		return fmt.Errorf("%s is not the one that %s speaks of", sumsName, manifestName)
	case !database:
		return errors.New("there is no database in it")
	}
	return nil
}

// parseEntry takes a line apart. Only names that a backup has are taken.
func parseEntry(line string) (entry, error) {
	sum, name, ok := strings.Cut(line, "  ")
	if !ok || len(sum) != 2*sha256.Size {
		return entry{}, fmt.Errorf("%s has a line that is none: %.80q", sumsName, line)
	}
	folder, file := path.Split(name)
	proper := folder == "" && (file == site.DatabaseName || file == configName) ||
		folder == site.TLSName+"/" && filepath.IsLocal(file) ||
		strings.HasPrefix(folder, site.BlobsName+"/") && len(folder) == len(site.BlobsName)+3 && folder == site.BlobsName+"/"+file[:min(1, len(file))]+"/"
	if !proper || !filepath.IsLocal(filepath.FromSlash(name)) || path.Clean(name) != name {
		return entry{}, fmt.Errorf("%s names %.80q, which is no file of a backup", sumsName, name)
	}
	return entry{name, sum}, nil
}

// read copies a file of the backup to w and compares its sum.
func (b *backup) read(e entry, w io.Writer) (int64, error) {
	f, err := b.open(e.name)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(w, sum), f)
	if err == nil && hex.EncodeToString(sum.Sum(nil)) != e.sum {
		err = fmt.Errorf("%s is damaged: its SHA-256 is %x and should be %s", e.name, sum.Sum(nil), e.sum)
	}
	return n, err
}

// Verify reads all of a backup and fails if anything of it is missing or other
// than it was written.
func Verify(ctx context.Context, folder string) (m Manifest, err error) {
	b, err := openBackup(folder)
	if err != nil {
		return Manifest{}, err
	}
	defer func() { err = errors.Join(err, b.root.Close()) }()
	return b.manifest, b.verify(ctx)
}

// verify reads every file of the backup and compares its sum, and the sum of the
// sums with the manifest.
func (b *backup) verify(ctx context.Context) error {
	return b.each(ctx, func(e entry) error {
		_, err := b.read(e, io.Discard)
		return err
	})
}
