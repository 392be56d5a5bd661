package isolation

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/batchyard/batchyard/disk"
)

// Clear empties the node's machine as if it had been started anew: temporary
// files, shared memory, message queues and other IPC objects are gone. No task
// may run meanwhile.
func (m *Machine) Clear() error {
	err := m.unmountBelow(nodeScratch)
	if err == nil {
		err = errors.Join(
			m.empty(filepath.Join(m.Scratch, nodeScratch, "tmp"), "/tmp"),
			m.empty(filepath.Join(m.Scratch, nodeScratch, "var-tmp"), "/var/tmp"),
			m.empty("/dev/shm", "/dev/shm"),
			m.empty("/dev/mqueue", "/dev/mqueue"),
			removeObjects(),
		)
	}
	if err != nil {
		return fmt.Errorf("clear node: %w", err)
	}
	return nil
}

// empty removes what is in a folder, but for the ways to what stays in sight at
// the path where tasks see it.
func (m *Machine) empty(folder, path string) error {
	entries, err := os.ReadDir(folder)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if resolved, err := filepath.EvalSymlinks(path); err == nil {
		path = resolved
	}
	if m.keep.show(path) {
		return nil // it is the machine's
	}
	errs := []error{err}
	for _, entry := range entries {
		if !m.keep.lead(filepath.Join(path, entry.Name())) {
			errs = append(errs, disk.RazePath(filepath.Join(folder, entry.Name())))
		}
	}
	return errors.Join(errs...)
}

// lead tells whether a path leads to what stays in sight.
func (all sights) lead(path string) bool {
	for _, s := range all {
		if below(s.path, path) {
			return true
		}
	}
	return false
}

// removeObjects removes the objects of System V in the IPC namespace of this
// process.
func removeObjects() error {
	var errs []error
	for _, kind := range []struct {
		file   string
		remove func(id int) error
	}{
		{"shm", func(id int) error { _, err := unix.SysvShmCtl(id, unix.IPC_RMID, nil); return err }},
		{"sem", func(id int) error { return control(unix.SYS_SEMCTL, id, 0, unix.IPC_RMID) }},
		{"msg", func(id int) error { return control(unix.SYS_MSGCTL, id, unix.IPC_RMID, 0) }},
	} {
		text, err := os.ReadFile("/proc/sysvipc/" + kind.file)
		if err != nil {
			continue // the kernel has none of that kind
		}
		for line := range strings.Lines(string(text)) {
			fields := strings.Fields(line)
			if len(fields) < 2 {
				continue
			}
			if id, err := strconv.Atoi(fields[1]); err == nil { // the headline has none
				errs = append(errs, kind.remove(id))
			}
		}
	}
	return errors.Join(errs...)
}

func control(call uintptr, args ...int) error {
	if _, _, errno := unix.Syscall6(call, uintptr(args[0]), uintptr(args[1]), uintptr(args[2]), 0, 0, 0); errno != 0 {
		return errno
	}
	return nil
}
