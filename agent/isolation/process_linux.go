package isolation

import (
	"bytes"
	"context"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// StartTime is when a process began, in the kernel's own count, "" if there is no
// such process. Together with its number it names a process for good.
func StartTime(pid int) string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	// The name of the program stands in parentheses and may contain any.
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	const index = 22 - 3 // counted from the state, which is the third
	if len(fields) <= index {
		return ""
	}
	return string(fields[index])
}

// KillAndAwait kills a process and waits until it has ended, with all processes
// of the namespace that it is the first of.
func KillAndAwait(ctx context.Context, pid int) error {
	list := func() ([]int, error) {
		if isZombie(pid) || StartTime(pid) == "" {
			return nil, nil
		}
		return []int{pid}, nil
	}
	return killUntilGone(ctx, list, func(pid int) { _ = unix.Kill(pid, unix.SIGKILL) })
}
