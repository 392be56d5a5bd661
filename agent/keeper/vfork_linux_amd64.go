package keeper

import (
	"errors"
	"os"
	"runtime"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A fork by the Go runtime takes a lock that all threads share, makes a pipe to
// be told of errors, sets 64 signals to their defaults in the child, and asks
// for memory each time. The one here needs none of it: the child shares memory
// with the keeper until its program is loaded, so it can say in a word what went
// wrong; the kernel itself resets the signals; and what the child is to do is a
// list of calls that a thread fills in the same memory each time.

// vfork begins a child with clone and has it ask for calls one after another,
// the last of them execve. It returns once the program is loaded or the child has
// failed, with the child's number or a negative error of clone. The error of a
// call is left in failed.
//
//go:noescape
func vfork(clone *cloneArgs, size uintptr, calls *call, failed *uintptr) (pid int)

// cloneArgs is what the kernel's clone3 reads; what has no name is not used here.
type cloneArgs struct {
	flags      uint64
	_          [3]uint64 // where to put numbers
	exitSignal uint64
	_          [5]uint64 // stack, thread storage, numbers to take
	cgroup     uint64
}

// call is a call of the kernel that a child asks for. If must is not 0 it fails
// unless that is the answer.
type call struct {
	number uintptr
	args   [5]uintptr
	must   uintptr
}

// clearSighand has a child begin with no signal caught (since kernel 5.5).
const clearSighand = 0x1_0000_0000

// maxChild bounds the memory for texts that is kept for the next child.
const maxChild = 64 << 10

// slowForks is set once this host is seen to refuse clone3.
var slowForks atomic.Bool

// cradle is a thread's memory for the child that it is about to fork. Addresses
// in it are numbers to the garbage collector, so everything that they point to
// is held by a field, and nothing is moved before the child is born.
type cradle struct {
	clone  cloneArgs
	calls  []call
	texts  []byte    // ended by zero bytes
	lists  []uintptr // arguments, then environment, both ended by 0
	groups []uint32
	mask   uint64 // no signal is blocked
	failed uintptr
}

// fork starts a program in a child.
func (c *cradle) fork(file string, b *newborn) (pid int, err error) {
	if slowForks.Load() {
		return b.forkSlowly(file)
	}
	c.prepare(file, b)
	pid = vfork(&c.clone, unsafe.Sizeof(c.clone), &c.calls[0], &c.failed)
	runtime.KeepAlive(c)
	if cap(c.texts) > maxChild {
		c.texts, c.lists = nil, nil
	}
	if pid < 0 {
		return c.refused(syscall.Errno(-pid), file, b)
	}
	if c.failed != 0 {
		// It has ended, or does at once; who reaps all may have been quicker.
		for {
			_, err := unix.Wait4(pid, nil, 0, nil)
			if !errors.Is(err, unix.EINTR) {
				return 0, syscall.Errno(c.failed)
			}
		}
	}
	return pid, nil
}

// refused tries the Go runtime's way where clone3 is not known or is forbidden,
// and keeps to it if that goes better.
func (c *cradle) refused(why syscall.Errno, file string, b *newborn) (int, error) {
	if why != syscall.ENOSYS && why != syscall.EINVAL && why != syscall.EPERM {
		return 0, why
	}
	pid, err := b.forkSlowly(file)
	if err == nil {
		slowForks.Store(true)
	}
	return pid, err
}

// prepare says what the child is, and lists what it does.
func (c *cradle) prepare(file string, b *newborn) {
	c.failed = 0
	c.clone = cloneArgs{flags: unix.CLONE_VM | unix.CLONE_VFORK | clearSighand, exitSignal: uint64(unix.SIGCHLD)}
	if b.group >= 0 {
		c.clone.flags |= unix.CLONE_INTO_CGROUP
		c.clone.cgroup = uint64(b.group)
	}
	path, dir := c.write(file, b)
	c.calls = c.calls[:0]
	c.ask(unix.SYS_RT_SIGPROCMASK, uintptr(unix.SIG_SETMASK), uintptr(unsafe.Pointer(&c.mask)), 0, unsafe.Sizeof(c.mask))
	if b.session {
		c.ask(unix.SYS_SETSID)
	} else {
		c.ask(unix.SYS_SETPGID, 0, 0)
	}
	if b.user != nil {
		c.become(b.user)
	}
	c.ask(unix.SYS_CHDIR, dir)
	// After the user, whose change forgets it. Who has died before cannot be
	// followed any more.
	c.ask(unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL))
	c.ask(unix.SYS_GETPPID)
	c.calls[len(c.calls)-1].must = uintptr(os.Getpid())
	for i, fd := range b.files {
		// The keeper's own first three are taken, so these are others.
		c.ask(unix.SYS_DUP3, fd, uintptr(i), 0)
	}
	c.ask(unix.SYS_EXECVE, path, uintptr(unsafe.Pointer(&c.lists[0])), uintptr(unsafe.Pointer(&c.lists[len(b.args)+1])))
}

// become makes the child's user somebody else.
func (c *cradle) become(user *syscall.Credential) {
	c.groups = append(append(c.groups[:0], user.Groups...), 0) // never empty: it has an address
	c.ask(unix.SYS_SETGROUPS, uintptr(len(user.Groups)), uintptr(unsafe.Pointer(&c.groups[0])))
	c.ask(unix.SYS_SETGID, uintptr(user.Gid))
	c.ask(unix.SYS_SETUID, uintptr(user.Uid))
}

func (c *cradle) ask(number uintptr, args ...uintptr) {
	next := call{number: number}
	copy(next.args[:], args)
	c.calls = append(c.calls, next)
}

// write puts all texts into one piece of memory, and returns where path and
// folder are in it. Room is made first, since nothing may move afterwards.
func (c *cradle) write(file string, b *newborn) (path, dir uintptr) {
	size := len(file) + len(b.dir) + 2
	for _, list := range [][]string{b.args, b.env} {
		for _, text := range list {
			size += len(text) + 1
		}
	}
	if cap(c.texts) < size {
		c.texts = make([]byte, 0, max(size, 4<<10))
	}
	c.texts, c.lists = c.texts[:0], c.lists[:0]
	path, dir = c.text(file), c.text(b.dir)
	for _, list := range [][]string{b.args, b.env} {
		for _, text := range list {
			c.lists = append(c.lists, c.text(text))
		}
		c.lists = append(c.lists, 0)
	}
	return path, dir
}

func (c *cradle) text(s string) uintptr {
	at := len(c.texts)
	c.texts = append(append(c.texts, s...), 0)
	return uintptr(unsafe.Pointer(&c.texts[at]))
}
