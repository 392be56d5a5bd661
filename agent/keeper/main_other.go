//go:build !linux

package keeper

import (
	"context"
	"errors"
	"log/slog"
	"os"
)

// Main returns an error: compute nodes run on Linux only.
func Main(context.Context, *os.File, *os.File, *slog.Logger) error {
	return errors.New("compute nodes run on Linux only")
}
