package admin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/disk"
	"github.com/batchyard/batchyard/fleet"
	"github.com/batchyard/batchyard/site"
	"github.com/batchyard/batchyard/store"
)

// Part is something that may be missing.
type Part string

// What a repair can be told is lost.
const (
	// LostBlobs are files that rows of blobs name.
	LostBlobs Part = "blobs"
	// LostRows are rows that would name files of blobs and folders of nodes.
	LostRows Part = "rows"
)

// ErrMissing says that so much is missing that it is more likely elsewhere, on a
// disk that is not mounted or in another database, than lost.
var ErrMissing = errors.New("nothing was mended, because most of it is missing")

// few is how much of which no row speaks may be left of a server that was killed.
const few = 10

// prepare looks at all there is before anything is changed: it refuses to take
// what is not there for lost, and keeps a copy of a database that is going to be
// changed.
func (c *checker) prepare(ctx context.Context) error {
	s, err := c.survey(ctx)
	if err != nil {
		return err
	}
	if err := s.refuse(c.Place, c.Lost); err != nil {
		return err
	}
	wrong, err := c.rowsWrong(ctx)
	if err != nil || !wrong && s.rowsMissing == 0 {
		return err
	}
	return c.copyDatabase(ctx)
}

// survey counts what folder and database know of each other.
type survey struct {
	rows, rowsMissing       int // rows that name a file, those whose file is not there
	files, filesUnknown     int // files of blobs, those without a row
	folders, foldersUnknown int // folders of nodes, those without a row
}

// survey holds the folder against one snapshot of the database. No server runs, so
// that nothing comes or goes meanwhile.
func (c *checker) survey(ctx context.Context) (s survey, err error) {
	err = c.reader.View(ctx, func(tx *store.Tx) error {
		return errors.Join(c.surveyRows(tx, &s), c.surveyFiles(ctx, tx, &s), c.surveyFolders(tx, &s))
	})
	return s, err
}

// surveyRows counts the files that rows name. Without a folder all are missing:
// more likely it is not mounted.
func (c *checker) surveyRows(tx *store.Tx, s *survey) error {
	return tx.EachBlobFile(func(f store.BlobFile) error {
		s.rows++
		if c.disk == nil {
			s.rowsMissing++
			return nil
		}
		_, _, err := c.disk.Stat(f.File)
		if errors.Is(err, fs.ErrNotExist) {
			s.rowsMissing++
			return nil
		}
		return err
	})
}

// surveyFiles counts the files of blobs, a batch at a time, since a folder may have
// millions of them.
func (c *checker) surveyFiles(ctx context.Context, tx *store.Tx, s *survey) error {
	if c.disk == nil {
		return nil
	}
	count := func(files []string) error {
		unused, err := tx.UnusedBlobFiles(files)
		s.files += len(files)
		s.filesUnknown += len(unused)
		return err
	}
	var files []string
	for file, err := range c.disk.Old(ctx, c.Now().Add(time.Hour)) {
		if err != nil {
			return err
		}
		if files = append(files, file); len(files) == batchSize {
			if err := count(files); err != nil {
				return err
			}
			files = files[:0]
		}
	}
	return count(files)
}

// surveyFolders counts the folders of nodes, of which there are few.
func (c *checker) surveyFolders(tx *store.Tx, s *survey) error {
	folders, err := fleet.Folders(c.Nodes())
	if err != nil {
		return err
	}
	nodes, err := tx.AllNodes()
	if err != nil {
		return err
	}
	known := map[batch.NodeID]bool{}
	for i := range nodes {
		known[nodes[i].ID] = true
	}
	for _, f := range folders {
		s.folders++
		if !known[f.Node] {
			s.foldersUnknown++
		}
	}
	return nil
}

// refuse fails if too much is missing that was not said to be lost: more than half
// of one side. A row without its file is suspicious at once where there is no file
// at all; files without rows only if they are more than a killed server leaves.
func (s survey) refuse(place site.Place, lost []Part) error {
	told := func(part Part) bool { return slices.Contains(lost, part) }
	switch {
	case s.rowsMissing > 0 && s.files == 0 && !told(LostBlobs):
		return fmt.Errorf("%w: %s is empty or not there, and the database names %d files in it; mount it or bring it back, or say --lost %s",
			ErrMissing, place.Blobs(), s.rows, LostBlobs)
	case 2*s.rowsMissing > s.rows && !told(LostBlobs):
		return fmt.Errorf("%w: of %d files that the database names %d are not in %s; bring them back, or say --lost %s",
			ErrMissing, s.rows, s.rowsMissing, place.Blobs(), LostBlobs)
	case s.filesUnknown > few && 2*s.filesUnknown > s.files && !told(LostRows):
		return fmt.Errorf("%w: of %d files in %s the database knows nothing of %d; name the right database, or say --lost %s",
			ErrMissing, s.files, place.Blobs(), s.filesUnknown, LostRows)
	case s.foldersUnknown > few && 2*s.foldersUnknown > s.folders && !told(LostRows):
		return fmt.Errorf("%w: of %d folders in %s the database knows nothing of %d; name the right database, or say --lost %s",
			ErrMissing, s.folders, place.Nodes(), s.foldersUnknown, LostRows)
	}
	return nil
}

// errFirst ends a search of which only the outcome is wanted.
var errFirst = errors.New("one was found")

// rowsWrong tells whether anything in the database is to be mended.
func (c *checker) rowsWrong(ctx context.Context) (bool, error) {
	err := c.reader.View(ctx, func(tx *store.Tx) error {
		return Faults(tx, func(Fault) error { return errFirst })
	})
	if errors.Is(err, errFirst) {
		return true, nil
	}
	return false, err
}

// copyDatabase keeps the database as it is, in the data folder. The copy has its
// name only once it is whole.
func (c *checker) copyDatabase(ctx context.Context) error {
	final := c.URL()
	if c.Database != "" {
		final = site.Place{Data: c.Data}.URL()
	}
	final += ".before-repair-" + c.Now().UTC().Format("20060102T150405Z")
	partial := final + ".partial"
	if err := c.reader.CopyTo(ctx, partial); err != nil {
		return err
	}
	if err := os.Rename(partial, final); err != nil {
		return fmt.Errorf("keep copy of database: %w", err)
	}
	c.Note("the database as it was is in " + final)
	return disk.SyncFolder(c.Data)
}
