//go:build !linux

package store

import (
	"crypto/rand"
	"time"
)

// started stands for the boot of a machine that does not tell.
var started, boot = time.Now(), rand.Text()

// bootName names this process: nothing is carried over its end.
func bootName() string { return boot }

// uptime is how long the process has run.
func uptime() time.Duration { return time.Since(started) }
