//go:build !linux

package link

import "errors"

// errPlatform is the honest answer on systems that have no keeper.
var errPlatform = errors.New("compute nodes run on Linux only")

func writeOnce(uintptr, []byte) int { return 0 }

func readBlocking(uintptr, []byte) (int, error) { return 0, errPlatform }
