package agent

import (
	"bytes"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
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

// groupMemory is what a control group has of memory that only its end or its
// removal gives back, and how much of that is shared, both in bytes. What the
// kernel keeps of files is not counted, since it makes way.
func groupMemory(folder string) (used, shared int64) {
	text, err := os.ReadFile(filepath.Join(folder, "memory.stat"))
	if err != nil {
		return 0, 0
	}
	stat := map[string]int64{}
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			stat[name], _ = strconv.ParseInt(value, 10, 64)
		}
	}
	// The first version of control groups counts those below apart.
	if rss, first := stat["total_rss"]; first {
		return rss + stat["total_shmem"], stat["total_shmem"]
	}
	return stat["anon"] + stat["shmem"], stat["shmem"]
}
