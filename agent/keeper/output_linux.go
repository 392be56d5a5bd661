package keeper

import (
	"errors"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/batchyard/batchyard/agent/run"
)

// openOutput opens a file for a task's output. The keeper may be root while the
// task can write in the folder and may have prepared a trap there for the next
// attempt: a symbolic or hard link to a file of somebody else, a pipe that
// blocks who opens it. So links are not followed anywhere on the path, and what
// is opened must be an ordinary file with one name, new or of this user.
func openOutput(path string, user *run.User) (int, error) {
	if !filepath.IsAbs(path) || filepath.Clean(path) != path {
		return -1, run.LaunchFailed("output file %q is not a clean absolute path", path)
	}
	fd, err := openNoLinks(path)
	if err != nil {
		return -1, outputError(path, err)
	}
	if err := claimOutput(fd, path, user); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

const (
	outputFlags = unix.O_WRONLY | unix.O_APPEND | unix.O_CREAT | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_CLOEXEC
	outputMode  = 0o640
)

func openNoLinks(path string) (int, error) {
	fd, err := unix.Openat2(unix.AT_FDCWD, path, &unix.OpenHow{
		Flags: outputFlags, Mode: outputMode, Resolve: unix.RESOLVE_NO_SYMLINKS,
	})
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
		return walkNoLinks(path)
	}
	return fd, err
}

// walkNoLinks does the same folder by folder, on kernels before 5.6 and where a
// container forbids the newer call.
func walkNoLinks(path string) (int, error) {
	dir, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	parts := strings.Split(strings.TrimPrefix(path, "/"), "/")
	for _, part := range parts[:len(parts)-1] {
		next, err := unix.Openat(dir, part, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		unix.Close(dir)
		if err != nil {
			return -1, err
		}
		dir = next
	}
	defer unix.Close(dir)
	return unix.Openat(dir, parts[len(parts)-1], outputFlags, outputMode)
}

// claimOutput checks what was opened and gives it to the task's user.
func claimOutput(fd int, path string, user *run.User) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return outputError(path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Nlink != 1 {
		return run.LaunchFailed("output file %s is not an ordinary file with a single name", path)
	}
	if user == nil || st.Uid == user.UID {
		return nil
	}
	if int(st.Uid) != os.Geteuid() {
		return run.LaunchFailed("output file %s belongs to another user", path)
	}
	if err := unix.Fchown(fd, int(user.UID), int(user.GID)); err != nil {
		return outputError(path, err)
	}
	return nil
}

func outputError(path string, err error) error {
	if errors.Is(err, unix.ELOOP) {
		return run.LaunchFailed("output file %s: a component of the path is a symbolic link", path)
	}
	return run.LaunchFailed("output file %s: %v", path, err)
}

// outputs are what a task begins with as its first three files, and what of that
// was opened for it.
type outputs struct {
	files  [3]uintptr
	opened []int
}

// openOutputs opens both output files of a task, one if they are the same.
// Stdin and discarded outputs are null.
func openOutputs(s *run.Spec, null int) (*outputs, error) {
	o := &outputs{}
	out, err := o.open(s.Stdout, s.User, null)
	errFile := out
	if err == nil && s.Stderr != s.Stdout {
		errFile, err = o.open(s.Stderr, s.User, null)
	}
	if err != nil {
		o.close()
		return nil, err
	}
	o.files = [3]uintptr{uintptr(null), uintptr(out), uintptr(errFile)}
	return o, nil
}

func (o *outputs) open(path string, user *run.User, null int) (int, error) {
	if path == "" {
		return null, nil
	}
	fd, err := openOutput(path, user)
	if err == nil {
		o.opened = append(o.opened, fd)
	}
	return fd, err
}

func (o *outputs) close() {
	for _, fd := range o.opened {
		unix.Close(fd)
	}
	o.opened = nil
}
