//go:build unix

package blob

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// lockKept locks the file that keeps content from being removed, until close.
func lockKept(f *os.File) error { return retried(f, unix.LOCK_SH) }

// isKept tells whether some process has it locked.
func isKept(f *os.File) bool {
	err := retried(f, unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		err = retried(f, unix.LOCK_UN)
	}
	return err != nil
}

func retried(f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
