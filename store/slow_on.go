//go:build slowcommit && linux

package store

import (
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// delay is by how much longer a commit takes than the disk does:
// BATCHYARD_SLOW_COMMIT, a duration as 2ms. It is for measuring how the program
// does on a slow disk; this file is not in the program that is shipped.
var delay = sync.OnceValue(func() time.Duration {
	d, err := time.ParseDuration(os.Getenv("BATCHYARD_SLOW_COMMIT"))
	if err != nil {
		panic("BATCHYARD_SLOW_COMMIT: " + err.Error())
	}
	return d
})

// slowCommit waits in the kernel, holding a thread as fdatasync does. The timers
// of a program that serves fire late; those of this thread must not.
func slowCommit() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	usual, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
	if err != nil || unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0) != nil {
		panic("timers of the slow commit cannot be set")
	}
	defer func() { _ = unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(usual), 0, 0, 0) }()
	left := unix.NsecToTimespec(int64(delay()))
	for unix.Nanosleep(&left, &left) == unix.EINTR { //nolint:errorlint // the kernel's own number
	}
}
