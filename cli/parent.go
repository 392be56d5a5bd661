package cli

import (
	"context"
	"os"

	"github.com/batchyard/batchyard/fleet"
)

// withParent ends the context when the process that started this one ends,
// however it ends.
func withParent(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	parent := os.Getppid()
	go func() {
		_ = fleet.Await(ctx, parent)
		cancel()
	}()
	if os.Getppid() != parent {
		cancel() // it ended before we looked
	}
	return ctx, cancel
}
