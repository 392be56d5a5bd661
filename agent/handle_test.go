package agent_test

import (
	"testing"

	"golang.org/x/sys/unix"
)

// awaitHandle tells whether the process that a handle is of ends in time.
func awaitHandle(t *testing.T, handle uintptr) bool {
	t.Helper()
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(handle), Events: unix.POLLIN}}, int(testTime.Milliseconds()))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		return n > 0
	}
}
