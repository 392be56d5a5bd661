//go:build !linux

package disk

import (
	"os"
)

// unfreeze does nothing: nodes run on Linux.
func unfreeze(*os.Root, string) error { return nil }
