package blob

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/batchyard/batchyard/batch"
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

	// firstSweep is how long after its start a server first looks for files
	// without a row: a wrong setting has been noticed by then.
	firstSweep = 15 * time.Minute

	// maxSwept is how many files one sweep removes.
	maxSwept = 10_000

	// fewUnused is how many files without a row a server may leave that is
	// killed: more are removed only if most files have one.
	fewUnused = 100
)

// Run does what rows ask for at once and every hour, and sweeps files a while
// later, until ctx is done. A sweep that fails is logged: the next one finds the
// same again.
func (s *Server) Run(ctx context.Context) error {
	rows, files := time.NewTimer(0), time.NewTimer(firstSweep)
	defer rows.Stop()
	defer files.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return nil
		case <-rows.C:
			err = batch.Guard(func() error { return s.sweepRows(ctx) })
			rows.Reset(time.Hour)
		case <-files.C:
			err = batch.Guard(func() error { return s.sweepFiles(ctx) })
			files.Reset(time.Hour)
		}
		if err != nil && ctx.Err() == nil {
			s.log.Error("sweep of storage failed", "err", err)
		}
	}
}

// Sweep removes what belongs to no blob: blobs of deleted containers,
// uncommitted blocks that were given up, and files that no row speaks of,
// because the server was stopped between a file and its row or between a row
// and the removal of its file.
func (s *Server) Sweep(ctx context.Context) error {
	return errors.Join(s.sweepRows(ctx), s.sweepFiles(ctx))
}

// sweepRows removes what rows say is to go.
func (s *Server) sweepRows(ctx context.Context) error {
	return errors.Join(s.sweepContainers(ctx), s.sweepBlocks(ctx))
}

// sweepContainers empties containers that were deleted, a slice an update, so that
// nobody waits long for the writer, however much was in them.
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

// sweepBlocks removes blocks that no block list took up, with the age that the
// service gives them.
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

// sweepFiles removes old files without a row: so many at most, and none if they
// are most of what there is. Then the rows are missing, or this is the folder of
// another database.
func (s *Server) sweepFiles(ctx context.Context) error {
	g, err := s.findGarbage(ctx)
	if err != nil {
		return err
	}
	if g.unused > fewUnused && 2*g.unused > g.files {
		return fmt.Errorf("no file was removed, because the database knows nothing of %d of %d files; if it is the right one, stop the server and use 'batchyard admin fsck --repair --lost rows'",
			g.unused, g.files)
	}
	if g.unused == 0 {
		return nil
	}
	s.metrics.swept.Add(float64(len(g.names)))
	s.free(ctx, g.names)
	s.log.Info("removed files that belong to no blob", "removed", len(g.names), "left", g.unused-len(g.names), "files", g.files)
	return nil
}

// garbage is what a look at all files has found.
type garbage struct {
	files  int      // all of them, those too young to look at left out
	unused int      // those of them without a row
	names  []string // of the first of these
}

// findGarbage looks through all files that are older than any upload may take. A
// younger one may be waiting for its row.
func (s *Server) findGarbage(ctx context.Context) (g garbage, err error) {
	var batch []string
	for file, err := range s.bytes.Old(ctx, s.now().Add(-orphanAge)) {
		if err != nil {
			return g, err
		}
		if batch = append(batch, file); len(batch) == lookStep {
			if err := s.lookUp(ctx, batch, &g); err != nil {
				return g, err
			}
			batch = batch[:0]
		}
	}
	return g, s.lookUp(ctx, batch, &g)
}

// lookUp finds those of some old files that have no row. A row is never given to
// an old file that has none, so none can come while this goes on.
func (s *Server) lookUp(ctx context.Context, files []string, g *garbage) error {
	var unused []string
	err := s.db.View(ctx, func(tx *store.Tx) (err error) {
		unused, err = tx.UnusedBlobFiles(files)
		return err
	})
	if err != nil {
		return err
	}
	g.files += len(files)
	g.unused += len(unused)
	g.names = append(g.names, unused[:min(len(unused), maxSwept-len(g.names))]...)
	return nil
}
