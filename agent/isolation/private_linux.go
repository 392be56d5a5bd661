package isolation

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/batchyard/batchyard/disk"
)

// Private calls fork with the calling thread in namespaces that are made for
// what it forks: temporary files, shared memory, message queues and other IPC
// objects are the child's own, and gone when its last process is, except for the
// files, which [Machine.Forget] removes. The caller has locked the thread, and
// must not use it further if the error is a [*StrandedError].
func (m *Machine) Private(slot int, fork func() error) error {
	if err := m.Forget(slot); err != nil {
		return err
	}
	p, err := m.pack(slot)
	defer p.close()
	if err != nil {
		return err
	}
	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_NEWIPC); err != nil {
		return fmt.Errorf("make namespaces of a task: %w", err)
	}
	if err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err == nil {
		err = p.place(p.sights)
	}
	if err == nil {
		err = fork()
	}
	return errors.Join(err, m.comeBack())
}

// luggage is what a task takes to namespaces of its own. Folders of the node's
// are of no use there, mounts of their own are.
type luggage struct {
	furniture
	sights sights
}

// pack makes the folders of the task in a slot, and detaches everything.
func (m *Machine) pack(slot int) (p luggage, err error) {
	p.tmp.fd, p.varTmp.fd = -1, -1 // which are closed in vain
	f, err := m.furniture(slotName(slot))
	if err != nil {
		return p, err
	}
	defer f.close()
	p.shm = f.shm
	if p.tmp, err = f.tmp.detach(); err != nil {
		return p, err
	}
	if p.varTmp, err = f.varTmp.detach(); err != nil {
		return p, err
	}
	for _, s := range m.keep {
		detached, err := s.detach()
		if err != nil {
			return p, err
		}
		p.sights = append(p.sights, sight{s.path, detached})
	}
	return p, nil
}

func (p luggage) close() {
	p.furniture.close()
	for _, s := range p.sights {
		unix.Close(s.fd)
	}
}

func (m *Machine) private(slot int) string { return filepath.Join(m.Scratch, slotName(slot)) }

// StrandedError says that a thread could not leave a task's namespaces, so that
// what it forks next would be in them.
type StrandedError struct{ err error }

func (e *StrandedError) Error() string { return "leave namespaces of a task: " + e.err.Error() }

func (e *StrandedError) Unwrap() error { return e.err }

// comeBack takes the calling thread to the node's namespaces. That can only fail
// for want of memory, which may pass.
func (m *Machine) comeBack() (err error) {
	for range 10 {
		if err = errors.Join(unix.Setns(m.mounts, unix.CLONE_NEWNS), unix.Setns(m.ipc, unix.CLONE_NEWIPC)); err == nil {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return &StrandedError{err}
}

// Forget removes the temporary files of the private task that was in a slot,
// which must have ended.
func (m *Machine) Forget(slot int) error {
	// A removal would go on in what is mounted there.
	err := m.unmountBelow(slotName(slot))
	if err == nil {
		err = disk.RazePath(m.private(slot))
	}
	if err != nil {
		return fmt.Errorf("remove temporary files of a task: %w", err)
	}
	return nil
}

// unmountBelow unmounts whatever is mounted below a folder of scratch, by
// administrators in all likelihood.
func (m *Machine) unmountBelow(name string) error {
	text, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		return fmt.Errorf("read mounts: %w", err)
	}
	var below []string
	for line := range strings.Lines(string(text)) {
		const mountPoint = 4
		fields := strings.Fields(line)
		if len(fields) <= mountPoint {
			continue
		}
		if rest, ok := strings.CutPrefix(unescape(fields[mountPoint]), m.scratchPath+"/"+name+"/"); ok {
			below = append(below, rest)
		}
	}
	for _, rest := range slices.Backward(below) {
		if err := unix.Unmount(filepath.Join(m.Scratch, name, rest), unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			return fmt.Errorf("unmount %s: %w", rest, err)
		}
	}
	return nil
}
