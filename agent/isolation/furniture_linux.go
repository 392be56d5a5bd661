package isolation

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// furniture is what tasks write in anywhere on a machine, made for a node or for
// one task: folders for temporary files, which are below scratch, shared memory,
// and message queues.
type furniture struct {
	tmp, varTmp source
	shm         string // options of the file system
}

// furniture makes the folders with a name below scratch.
func (m *Machine) furniture(name string) (f furniture, err error) {
	f.shm = m.shmOptions()
	if f.tmp.fd, err = m.openScratch(filepath.Join(name, "tmp")); err != nil {
		return f, err
	}
	if f.varTmp.fd, err = m.openScratch(filepath.Join(name, "var-tmp")); err != nil {
		unix.Close(f.tmp.fd)
	}
	return f, err
}

// openScratch opens a folder below scratch that everybody may write in.
func (m *Machine) openScratch(name string) (int, error) {
	path := filepath.Join(m.Scratch, name)
	err := os.MkdirAll(path, 0o700)
	if err == nil {
		err = os.Chmod(path, os.ModeSticky|0o777) // whatever the umask is
	}
	fd := -1
	if err == nil {
		fd, err = unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return -1, fmt.Errorf("make folder for temporary files: %w", err)
	}
	return fd, nil
}

// shmOptions bound shared memory to half of the node's memory, as the system
// does to half of the machine's.
func (m *Machine) shmOptions() string {
	if m.shmBytes <= 0 {
		return "mode=1777"
	}
	return fmt.Sprintf("mode=1777,size=%d", max(m.shmBytes, int64(os.Getpagesize())))
}

func (f furniture) close() {
	unix.Close(f.tmp.fd)
	unix.Close(f.varTmp.fd)
}

// place mounts all of it over what the machine has, and brings back what stays in
// sight.
func (f furniture) place(all sights) error {
	const flags = unix.MS_NOSUID | unix.MS_NODEV
	replaced := map[string]bool{}
	for _, piece := range []struct {
		path  string
		mount func(path string) error
	}{
		{"/tmp", f.tmp.mount},
		{"/var/tmp", f.varTmp.mount},
		{"/dev/shm", func(path string) error { return unix.Mount("tmpfs", path, "tmpfs", flags, f.shm) }},
		{"/dev/mqueue", func(path string) error { return unix.Mount("mqueue", path, "mqueue", flags|unix.MS_NOEXEC, "") }},
	} {
		path, err := filepath.EvalSymlinks(piece.path)
		if err != nil || replaced[path] || all.show(path) {
			continue // the machine has none, or it is the same, or stays
		}
		replaced[path] = true
		if err = piece.mount(path); err == nil {
			err = all.uncover(path)
		}
		if err != nil {
			return fmt.Errorf("mount %s: %w", piece.path, err)
		}
	}
	return nil
}
