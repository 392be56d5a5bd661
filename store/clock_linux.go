package store

import (
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// bootName names this boot of the machine; empty if the kernel does not say.
func bootName() string {
	name, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(name))
}

// uptime is how long the machine has been up, asleep or not.
func uptime() time.Duration {
	var at unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &at); err != nil {
		return 0 // every kernel that Go runs on has this clock
	}
	return time.Duration(at.Nano())
}
