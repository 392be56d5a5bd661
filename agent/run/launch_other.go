//go:build !linux

package run

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"time"
)

// errPlatform is the honest answer on systems whose processes this package
// cannot yet hold.
var errPlatform = errors.New("compute nodes run on Linux only")

func prepareDir(*Options) error { return errPlatform }

func (k *Keeper) connect(context.Context) (*session, error) { return nil, errPlatform }

func writeOnce(uintptr, []byte) int { return 0 }

func readBlocking(uintptr, []byte) (int, error) { return 0, errPlatform }

func bootTime() int64 { return time.Now().UnixNano() }

// KeeperMain returns an error: compute nodes run on Linux only.
func KeeperMain(context.Context, *os.File, *os.File, *slog.Logger) error { return errPlatform }
