//go:build unix

package disk

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// SyncNames makes the names in an open folder safe. A file system that cannot
// sync folders, as some that are shared over a network, is taken at its word
// that there is nothing to do.
func SyncNames(folder *os.File) error {
	if err := folder.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, syscall.ENOTSUP) {
		return err
	}
	return nil
}

// IsReadOnly tells whether nobody may write to the file system that something is
// on, as it is mounted here.
func IsReadOnly(path string) bool { return errors.Is(unix.Access(path, unix.W_OK), unix.EROFS) }
