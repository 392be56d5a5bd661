package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"

	"github.com/batchyard/batchyard/disk"
)

// frozen says where and how to read an SQLite file in a folder where nothing can
// be written: a snapshot of a disk, or a backup, that is mounted read-only.
// SQLite then neither makes the index of a log nor replays one. A file without a
// log is read as one that nobody changes; one that a killed server has left with
// a log is copied, with it, to where the log can be replayed.
func (r *Reader) frozen(path string) (at string, how url.Values, err error) {
	if !disk.IsReadOnly(filepath.Dir(path)) {
		return path, nil, nil
	}
	log := path + "-wal"
	switch info, err := os.Stat(log); {
	case errors.Is(err, fs.ErrNotExist) || err == nil && info.Size() == 0:
		return path, url.Values{"mode": {"ro"}, "immutable": {"1"}}, nil
	case err != nil:
		return "", nil, err
	}
	folder, err := os.MkdirTemp("", "batchyard-database-")
	if err != nil {
		return "", nil, fmt.Errorf("make folder to replay a log in: %w", err)
	}
	r.db.release = append(r.db.release, func() error { return os.RemoveAll(folder) })
	at = filepath.Join(folder, filepath.Base(path))
	return at, nil, errors.Join(copyFile(path, at), copyFile(log, at+"-wal"))
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
