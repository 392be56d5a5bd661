//go:build unix

package blob

import "os"

// syncNames makes the names in a folder durable.
func syncNames(folder *os.File) error { return folder.Sync() }
