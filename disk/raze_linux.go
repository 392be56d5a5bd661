package disk

import (
	"errors"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// frozen are the attributes with which not even root can remove a file.
const frozen = unix.STATX_ATTR_IMMUTABLE | unix.STATX_ATTR_APPEND

// unfreeze takes them from a file or a folder, where the filesystem has any.
func unfreeze(root *os.Root, name string) error {
	if os.Geteuid() != 0 {
		return nil // nobody else can set them
	}
	file, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer file.Close()
	flags, err := unix.IoctlGetInt(int(file.Fd()), unix.FS_IOC_GETFLAGS)
	if err != nil || flags&frozen == 0 {
		return nil // perhaps the filesystem has no such attributes
	}
	return unix.IoctlSetPointerInt(int(file.Fd()), unix.FS_IOC_SETFLAGS, flags&^frozen)
}
