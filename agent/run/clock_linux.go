package run

import "golang.org/x/sys/unix"

// BootTime reads the clock that leases are measured by, in nanoseconds. It
// cannot be set, and goes on while the machine sleeps, which the monotonic clock
// of Go does not.
func BootTime() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		// Every kernel that Go runs on has this clock; without it no lease is
		// ever valid.
		return 1<<63 - 1
	}
	return ts.Nano()
}
