//go:build !linux

package agent

import "math"

// availableMemory is not known on this system.
func availableMemory() int64 { return math.MaxInt64 }

func groupMemory(string) (used, shared int64) { return 0, 0 }
