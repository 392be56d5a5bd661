package agent

import (
	"time"

	"golang.org/x/sys/unix"
)

// clock is what leases go by. Differences between its readings include the time
// that the machine was suspended, when the monotonic clock stands still, and
// nobody who sets the machine's date moves it.
func clock() time.Time {
	return time.Now().Add(reading(unix.CLOCK_BOOTTIME) - reading(unix.CLOCK_MONOTONIC))
}

func reading(id int32) time.Duration {
	var at unix.Timespec
	if err := unix.ClockGettime(id, &at); err != nil {
		return 0
	}
	return time.Duration(at.Nano())
}
