package blob

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/batchyard/batchyard/store"
)

const (
	// orphanAge is how long a file without a row is left alone. Between its
	// last write and the commit of its row lie milliseconds; an upload that
	// stalls for longer than this has been cut off.
	orphanAge = 6 * time.Hour

	// blockAge is how long uncommitted blocks are kept after the last of their
	// blob, as the protocol has it.
	blockAge = 7 * 24 * time.Hour

	// sweepStep is how many rows go in one update, so that others wait little.
	sweepStep = 200

	// lookStep is how many files are looked up in one view.
	lookStep = 1000
)

// Run sweeps at once and then every hour, until ctx is done. A sweep that fails
// is logged: the next one finds the same again.
func (s *Server) Run(ctx context.Context) error {
	ticker := time.NewTicker(time.Hour)
	defer ticker.Stop()
	for {
		if err := s.Sweep(ctx); err != nil && ctx.Err() == nil {
			s.log.Error("sweep of storage failed", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// Sweep removes what belongs to no blob: blobs of deleted containers,
// uncommitted blocks that were given up, and files that no row speaks of,
// because the server was stopped between a file and its row or between a row
// and the removal of its file.
func (s *Server) Sweep(ctx context.Context) error {
	return errors.Join(
		s.sweepContainers(ctx),
		s.sweepBlocks(ctx),
		s.sweepFiles(ctx),
	)
}

func (s *Server) sweepContainers(ctx context.Context) error {
	var dropped []string
	err := s.db.View(ctx, func(tx *store.Tx) (err error) {
		dropped, err = tx.DroppedBlobContainers()
		return err
	})
	if err != nil {
		return err
	}
	for _, id := range dropped {
		for done := false; !done; {
			if done, err = s.purge(ctx, id); err != nil {
				return fmt.Errorf("purge dropped container: %w", err)
			}
		}
	}
	return nil
}

// purge removes some of what was in a dropped container.
func (s *Server) purge(ctx context.Context, id string) (done bool, err error) {
	var freed []string
	err = s.db.Update(ctx, func(tx *store.Tx) (err error) {
		freed, done, err = tx.PurgeBlobContainer(id, sweepStep)
		return err
	})
	if err == nil {
		s.free(ctx, freed)
	}
	return done, err
}

func (s *Server) sweepBlocks(ctx context.Context) error {
	for done := false; !done; {
		var freed []string
		err := s.db.Update(ctx, func(tx *store.Tx) (err error) {
			freed, done, err = tx.ExpireBlobBlocks(tx.Now().Add(-blockAge), sweepStep)
			return err
		})
		if err != nil {
			return err
		}
		s.free(ctx, freed)
	}
	return nil
}

func (s *Server) sweepFiles(ctx context.Context) error {
	var batch []string
	for file, err := range s.bytes.Old(ctx, s.now().Add(-orphanAge)) {
		if err != nil {
			return err
		}
		if batch = append(batch, file); len(batch) == lookStep {
			if err := s.sweepUnused(ctx, batch); err != nil {
				return err
			}
			batch = batch[:0]
		}
	}
	return s.sweepUnused(ctx, batch)
}

// sweepUnused removes those of some old files that have no row. A row is never
// given to an old file that has none, so none can come while this goes on.
func (s *Server) sweepUnused(ctx context.Context, files []string) error {
	var unused []string
	err := s.db.View(ctx, func(tx *store.Tx) (err error) {
		unused, err = tx.UnusedBlobFiles(files)
		return err
	})
	if err != nil {
		return err
	}
	s.metrics.swept.Add(float64(len(unused)))
	s.free(ctx, unused)
	return nil
}
