//go:build !linux

package run

import (
	"context"
	"errors"
	"time"
)

// errPlatform is the honest answer on systems that have no keeper yet.
var errPlatform = errors.New("compute nodes run on Linux only")

func prepareDir(*Options) error { return errPlatform }

func (k *Keeper) connect(context.Context) (*session, error) { return nil, errPlatform }

// BootTime reads a clock in nanoseconds.
func BootTime() int64 { return time.Now().UnixNano() }
