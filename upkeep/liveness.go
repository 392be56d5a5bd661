package upkeep

import (
	"context"
	"errors"
	"time"

	"github.com/batchyard/batchyard/store"
)

// liveness gives up nodes that are silent for longer than their lease.
func (u *Upkeep) liveness() duty {
	return duty{name: "liveness", do: u.control.LoseNodes}
}

// expectNodes begins to watch over the nodes there are.
func (u *Upkeep) expectNodes(ctx context.Context) {
	for {
		err := u.control.ExpectNodes(ctx)
		if err == nil || ctx.Err() != nil || errors.Is(err, store.ErrClosed) {
			return
		}
		u.log.Error("cannot list nodes", "err", err)
		timer := time.NewTimer(retryDelay)
		select {
		case <-ctx.Done():
			timer.Stop()
		case <-timer.C:
		}
	}
}
