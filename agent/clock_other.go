//go:build !linux

package agent

import "time"

// clock is what leases go by: the monotonic clock, which nobody who sets the
// machine's date moves.
func clock() time.Time { return time.Now() }
