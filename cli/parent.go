package cli

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

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

// outlive is a context that ends by SIGINT alone. The signals that a service
// manager or a terminal sends to a server and all that it started are noted and
// otherwise ignored.
func outlive(ctx context.Context, log *slog.Logger) (context.Context, context.CancelFunc) {
	ctx, cancel := signal.NotifyContext(context.WithoutCancel(ctx), os.Interrupt)
	ignored := make(chan os.Signal, 1)
	signal.Notify(ignored, syscall.SIGTERM, syscall.SIGHUP)
	go func() {
		for {
			select {
			case <-ctx.Done():
				signal.Stop(ignored)
				return
			case got := <-ignored:
				log.Info("a signal that is not for the agent is ignored; SIGINT ends it, and its tasks go on", "signal", got)
			}
		}
	}()
	return ctx, cancel
}
