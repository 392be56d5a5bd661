package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// idleBefore is how long a server is left alone before it counts as idle.
const idleBefore = 10 * time.Second

// measureIdle watches a server that has nothing to do, first without nodes,
// which is what is judged, then with one.
func (b *bench) measureIdle(ctx context.Context) (err error) {
	s, err := b.startServer(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	alone, err := s.watchIdle(ctx, b.idle)
	if err != nil {
		return err
	}
	if err := s.pool(ctx, "idle", 1, 2); err != nil {
		return err
	}
	beside, err := s.watchIdle(ctx, b.idle/2)
	if err != nil {
		return err
	}
	b.add(figure{
		row: "16", what: "idle server", goal: "≤ 40 MiB, ≤ 0.2 % CPU / 25 MiB",
		value:   fmt.Sprintf("%.0f MiB, %.2f %% CPU", alone.memory, alone.server),
		verdict: worst(atMost(alone.memory, 40, 25), atMost(alone.server, 0.2, 0.2)),
		how: fmt.Sprintf("resident memory after, and processor time over, %.0f s, of one core; with one idle node: server %.0f MiB, %.2f %%, agent and keeper %.2f %%",
			b.idle.Seconds(), beside.memory, beside.server, beside.nodes),
	})
	return nil
}

// idleness is what a server and its nodes use while nobody wants anything:
// memory in MiB, processor time in percent of a core.
type idleness struct{ memory, server, nodes float64 }

func (s *server) watchIdle(ctx context.Context, length time.Duration) (idleness, error) {
	if err := pause(ctx, idleBefore); err != nil {
		return idleness{}, err
	}
	before, err := s.used()
	if err != nil {
		return idleness{}, err
	}
	if err := pause(ctx, length); err != nil {
		return idleness{}, err
	}
	after, err := s.used()
	if err != nil {
		return idleness{}, err
	}
	memory, _, err := s.memory()
	spent := after.minus(before)
	percent := func(d time.Duration) float64 { return 100 * d.Seconds() / length.Seconds() }
	return idleness{memory, percent(spent.server), percent(spent.agent + spent.keeper)}, err
}

func pause(ctx context.Context, length time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(length):
		return nil
	}
}
