//go:build !linux

package agent

import "math"

// availableMemory is not known on this system.
func availableMemory() int64 { return math.MaxInt64 }
