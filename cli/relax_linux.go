package cli

import (
	"os"
	"strconv"
)

// timerSlack is how late, in nanoseconds, timers may fire of a program that
// serves: a node's shortest wait is two milliseconds.
const timerSlack = 1_000_000

// relax lets this process's timers fire late. The Go runtime has a thread that
// looks after the others every 20 µs while there is work; for a process that
// works in bursts of a fraction of a millisecond that costs a fifth of all its
// processor time. Threads to come inherit it; without CAP_SYS_NICE nothing
// changes.
func relax() {
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return
	}
	for _, thread := range threads {
		_ = os.WriteFile("/proc/"+thread.Name()+"/timerslack_ns", []byte(strconv.Itoa(timerSlack)), 0)
	}
}
