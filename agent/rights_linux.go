package agent

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"github.com/batchyard/batchyard/agent/run"
	"github.com/batchyard/batchyard/batch"
	"golang.org/x/sys/unix"
)

// as does work with the rights that a user has to files, and no more, where the
// agent is root; a nil user is the agent's own. Work must not leave it to other
// goroutines to open what it opens.
//
// The rights are those of a thread, which nobody else gets and which ends with
// the work.
func as(user *run.User, work func() error) error {
	if user == nil || os.Geteuid() != 0 {
		return work()
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // for good: the runtime ends the thread with the goroutine
		if err := become(user); err != nil {
			done <- fmt.Errorf("take the rights of user %d: %w", user.UID, err)
			return
		}
		done <- batch.Guard(work)
	}()
	return <-done
}

// become gives this thread a user's rights to files. The kernel takes root's
// from it with the number.
func become(user *run.User) error {
	groups := append([]uint32{user.GID}, user.Groups...)
	_, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(&groups[0])), 0)
	if errno != 0 {
		return fmt.Errorf("set groups: %w", errno)
	}
	// Both answer with the number before, and say nothing of errors.
	for _, set := range []struct {
		change func(int) (int, error)
		to     uint32
	}{{unix.SetfsgidRetGid, user.GID}, {unix.SetfsuidRetUid, user.UID}} {
		if _, err := set.change(int(set.to)); err != nil {
			return err
		}
		if now, _ := set.change(-1); now != int(set.to) {
			return errors.New("the kernel refuses")
		}
	}
	return nil
}
