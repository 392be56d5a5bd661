package cli

import (
	"os"
	"runtime/debug"
	"strconv"
)

const (
	// timerSlack is how late, in nanoseconds, timers may fire of a program that
	// serves: a node's shortest wait is two milliseconds.
	timerSlack = 1_000_000
	// heapGrowth is by how many percent the heap of such a program may grow
	// before garbage is collected. Its heap is a few MiB, so growing costs
	// little memory, and collecting costs a tenth of the work.
	heapGrowth = 300
)

// relax makes this process, which works in bursts of a fraction of a
// millisecond, do less besides its work: it collects garbage less often, unless
// GOGC says otherwise, and lets timers fire late. The Go runtime has a thread
// that looks after the others every 20 µs while there is work, which would cost
// a fifth of all processor time. Threads to come inherit it; without
// CAP_SYS_NICE timers stay as they are.
func relax() {
	relaxGarbage()
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return
	}
	for _, thread := range threads {
		_ = os.WriteFile("/proc/"+thread.Name()+"/timerslack_ns", []byte(strconv.Itoa(timerSlack)), 0)
	}
}

func relaxGarbage() {
	if _, said := os.LookupEnv("GOGC"); !said {
		debug.SetGCPercent(heapGrowth)
	}
}
