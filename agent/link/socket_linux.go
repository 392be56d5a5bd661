package link

import (
	"errors"
	"io"

	"golang.org/x/sys/unix"
)

// writeOnce writes to a socket what it takes without waiting.
func writeOnce(fd uintptr, b []byte) int {
	n, err := unix.SendmsgN(int(fd), b, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	if err != nil {
		return 0
	}
	return n
}

// readBlocking waits in the kernel until a socket can be read, and reads.
func readBlocking(fd uintptr, b []byte) (int, error) {
	for {
		n, err := unix.Read(int(fd), b)
		switch {
		case n > 0:
			return n, nil
		case err == nil:
			return 0, io.EOF
		case errors.Is(err, unix.EAGAIN):
			_, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
		}
		if err != nil && !errors.Is(err, unix.EINTR) {
			return 0, err
		}
	}
}
