//go:build !linux

package agent

import (
	"os"
)

// unfreeze does nothing: nodes run on Linux.
func unfreeze(*os.Root, string) error { return nil }
