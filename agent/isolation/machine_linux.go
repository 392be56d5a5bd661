package isolation

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/batchyard/batchyard/agent/run"
)

// Machine is a node's own view of the machine, in the namespaces of this
// process, which is their first: mounts, process numbers, IPC objects and host
// name. The network is the machine's, since tasks and nodes reach each other by
// addresses.
//
// Nothing that is mounted here is seen outside. What the machine mounts later is
// seen here too, and what it unmounts goes here as well, so that a node does not
// hold on to a disk.
type Machine struct {
	run.Machine
	shmBytes int64
	// keep are the folders that stay in sight wherever they are, open from before
	// anything was mounted over them.
	keep sights
	// scratch is the folder of that name, open; scratchPath is its path outside.
	scratch     *os.File
	scratchPath string
	// separates: tasks can have namespaces of their own.
	separates bool
	// mounts and ipc are the node's own namespaces, to come back to.
	mounts, ipc int
}

// The capabilities that a keeper without root needs in a user namespace of its
// own: to mount, and to go back to a namespace.
var ambient = []uintptr{unix.CAP_SYS_ADMIN, unix.CAP_SYS_CHROOT}

// Namespaces describes to the system a process that is to call [Enter]: the
// first of its namespaces, and a child of the caller's parent, so that the caller
// may end before it.
func Namespaces() *syscall.SysProcAttr {
	sys := &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_PARENT,
	}
	if os.Geteuid() != 0 {
		sys.Cloneflags |= unix.CLONE_NEWUSER
		// The only mapping that needs nobody's help: this user is itself.
		sys.UidMappings = []syscall.SysProcIDMap{{ContainerID: os.Geteuid(), HostID: os.Geteuid(), Size: 1}}
		sys.GidMappings = []syscall.SysProcIDMap{{ContainerID: os.Getegid(), HostID: os.Getegid(), Size: 1}}
		sys.AmbientCaps = ambient
	}
	return sys
}

// Enter makes the namespaces that this process was born into the machine of a
// node. If it fails the process must end, since it may have half of it.
func Enter(config run.Machine, memory int64) (m *Machine, err error) {
	m = &Machine{Machine: config, shmBytes: memory / 2}
	if err := separateMounts(); err != nil {
		return nil, fmt.Errorf("separate mounts: %w", err)
	}
	if err := m.open(); err != nil {
		return nil, err
	}
	hosts, err := os.ReadFile("/etc/hosts")
	if err == nil {
		err = m.prepare(hosts)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	const hidden = "hidepid=2" // of other users, also from tasks of one node
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, hidden); err != nil {
		return nil, fmt.Errorf("mount /proc: %w", err)
	}
	for _, folder := range m.Hide {
		if err := m.keep.cover(folder); err != nil {
			return nil, err
		}
	}
	f, err := m.furniture(nodeScratch)
	if err == nil {
		err = f.place(m.keep)
		f.close()
	}
	if err != nil {
		return nil, err
	}
	if err := unix.Sethostname([]byte(m.Name)); err != nil {
		return nil, fmt.Errorf("set host name: %w", err)
	}
	// Copies of these mounts, for tasks of their own, follow what is mounted here.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return nil, fmt.Errorf("share mounts: %w", err)
	}
	if m.mounts, err = openNamespace("mnt"); err != nil {
		return nil, err
	}
	if m.ipc, err = openNamespace("ipc"); err != nil {
		return nil, err
	}
	trial, err := m.keep[0].detach()
	if m.separates = err == nil; m.separates {
		unix.Close(trial.fd)
	}
	return m, nil
}

// Separates tells whether [Machine.Private] works: kernels before 5.2 cannot take
// to a task what is to stay in its sight.
func (m *Machine) Separates() bool { return m.separates }

func openNamespace(name string) (int, error) {
	fd, err := unix.Open("/proc/thread-self/ns/"+name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open namespace %s: %w", name, err)
	}
	return fd, nil
}

// nodeScratch is the folder below Scratch that all tasks of the node share.
const nodeScratch = "node"

// open opens what is to stay in reach, and empties what tasks of their own have
// left, none of which can run any more.
func (m *Machine) open() error {
	for _, path := range append([]string{m.Root}, m.Show...) {
		fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
		if errors.Is(err, unix.ENOENT) && path != m.Root {
			continue
		}
		if err != nil {
			return fmt.Errorf("open %s: %w", path, err)
		}
		m.keep = append(m.keep, sight{path, source{fd: fd}})
	}
	var err error
	if m.scratch, err = os.Open(m.Scratch); err != nil {
		return fmt.Errorf("open scratch folder: %w", err)
	}
	m.scratchPath, m.Scratch = m.Scratch, procPath(int(m.scratch.Fd())) // its path may be hidden
	return nil
}

// prepare has the host name mean something to the machine's resolver.
func (m *Machine) prepare(hosts []byte) error {
	name := filepath.Join(m.Scratch, "hosts")
	text := append(bytes.TrimRight(hosts, "\n"), "\n127.0.1.1\t"+m.Name+"\n"...)
	if err := os.WriteFile(name, text, 0o644); err != nil {
		return fmt.Errorf("write hosts: %w", err)
	}
	if err := os.Chmod(name, 0o644); err != nil { // whatever the umask is
		return fmt.Errorf("write hosts: %w", err)
	}
	if err := unix.Mount(name, "/etc/hosts", "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount /etc/hosts: %w", err)
	}
	return nil
}
