//go:build unix

package disk

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Lock takes a lock that one process at a time can have, in a file that it makes
// if it is not there. The kernel drops it when the process ends, however that
// happens; the file itself stays, since removing it would let two processes hold
// different files of one name. It fails with ErrLocked, and names the holder, if
// another has it.
func Lock(path string) (unlock func() error, err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, lockedBy(path)
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	if err := errors.Join(f.Truncate(0), writePID(f)); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f.Close, nil
}

func writePID(f *os.File) error {
	_, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return err
}

// lockedBy names the process that holds the lock, if it had the time to write its
// number.
func lockedBy(path string) error {
	pid, err := os.ReadFile(path)
	if err != nil || len(pid) == 0 {
		return fmt.Errorf("%s: %w", path, ErrLocked)
	}
	return fmt.Errorf("%s: %w %s", path, ErrLocked, strings.TrimSpace(string(pid)))
}
