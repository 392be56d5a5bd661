package agent

import (
	"bytes"
	"math"
	"os"
	"strconv"
)

// availableMemory is how many bytes of memory the machine can still give to
// programs; very many if it does not tell.
func availableMemory() int64 {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return math.MaxInt64
	}
	_, after, found := bytes.Cut(text, []byte("\nMemAvailable:"))
	fields := bytes.Fields(after[:min(len(after), 40)])
	if !found || len(fields) == 0 {
		return math.MaxInt64
	}
	kib, err := strconv.ParseInt(string(fields[0]), 10, 64)
	if err != nil {
		return math.MaxInt64
	}
	return kib << 10
}
