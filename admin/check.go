package admin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/blob"
	"github.com/batchyard/batchyard/fleet"
	"github.com/batchyard/batchyard/site"
	"github.com/batchyard/batchyard/store"
)

// DefaultGrace is how old something must be before it counts that no row speaks
// of it. It is what a server leaves uploads that are under way, and more than it
// takes to clear up after itself.
const DefaultGrace = 6 * time.Hour

// CheckOptions say what to check and whether to mend it.
type CheckOptions struct {
	site.Place
	// Repair mends what is found. No server may run.
	Repair bool
	// Lost names what is missing for good, so that Repair goes on although most
	// of it is.
	Lost []Part
	// Deep reads every byte of every blob.
	Deep bool
	// Grace is the age below which left-overs are no fault.
	Grace time.Duration
	// Now reads the clock; time.Now if nil.
	Now func() time.Time
	// Note is told where Repair has put what it took away; may be nil.
	Note func(string)
}

// Finding is something that is not as it should be.
type Finding struct {
	Kind  string // one word for the rule that is broken
	Where string // what it is about
	What  string // what is wrong with it
	Mend  string // what Repair does about it; empty if it can do nothing
	// LeftOver: a running server clears it up by itself, and it is not old
	// enough for that to have failed.
	LeftOver bool
	// Mended: Repair has done what Mend says.
	Mended bool
}

// checker is one check.
type checker struct {
	CheckOptions
	reader *store.Reader
	db     *store.DB // nil unless things are mended
	disk   *blob.Disk
	unlock func() error // nil unless things are mended
	aside  string       // what folders are called that hold what is taken away
	found  func(Finding) error
}

// Check compares the database, the files of blobs and the folders of nodes, and
// tells found of each thing that is wrong, one at a time. An error means that
// the check could not be done, or not to its end.
//
// Beside a running server each thing is looked at twice before it is told, so
// that nothing is told that the server was about to do.
func Check(ctx context.Context, o CheckOptions, found func(Finding) error) (err error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Note == nil {
		o.Note = func(string) {}
	}
	c := &checker{CheckOptions: o, found: found, aside: "aside-" + o.Now().UTC().Format("20060102T150405Z")}
	if err := c.open(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	if o.Repair {
		if err := c.prepare(ctx); err != nil {
			return err
		}
	}
	for _, part := range []func(context.Context) error{
		c.checkFile, c.checkRows, c.checkBlobRows, c.checkSums, c.checkBlobFiles, c.checkFolders, c.checkTemporary,
	} {
		if err := part(ctx); err != nil {
			return err
		}
	}
	return nil
}

// open opens what is there. To mend, the reader makes sure that there is a
// database before the writer would make one, and is closed then: SQLite's locks
// are lost when any other descriptor of its file is closed.
func (c *checker) open(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, c.close())
		}
	}()
	if err := c.RefuseHalf(); err != nil {
		return err
	}
	if c.Repair {
		first, err := store.OpenReader(ctx, store.Options{URL: c.URL()}, false)
		if err != nil {
			return err
		}
		if err := first.Close(); err != nil {
			return err
		}
		if c.unlock, err = c.Lock(); err != nil {
			return err
		}
		if c.db, err = store.Open(ctx, store.Options{URL: c.URL(), Now: c.Now}); err != nil {
			return err
		}
	}
	if c.reader, err = store.OpenReader(ctx, store.Options{URL: c.URL(), Now: c.Now}, false); err != nil {
		return err
	}
	if err := c.reader.View(ctx, c.Compare); err != nil {
		return err
	}
	c.disk, err = openBlobs(c.Data)
	return err
}

// close gives the lock back last, when nothing is open any more that it was for.
func (c *checker) close() error {
	var errs []error
	if c.disk != nil {
		errs = append(errs, c.disk.Close())
	}
	if c.reader != nil {
		errs = append(errs, c.reader.Close())
	}
	if c.db != nil {
		errs = append(errs, c.db.Close())
	}
	if c.unlock != nil {
		errs = append(errs, c.unlock())
	}
	return errors.Join(errs...)
}

// openBlobs opens the folder of blobs, if there is one: to look must not make
// it.
func openBlobs(data string) (*blob.Disk, error) {
	folder := filepath.Join(data, site.BlobsName)
	if _, err := os.Stat(folder); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return blob.OpenDisk(folder)
}

// checkFile has the database look at its own file. Indexes can be made anew from
// their tables; the rest needs a backup.
func (c *checker) checkFile(ctx context.Context) error {
	broken, err := c.lookAtFile(ctx)
	if err != nil || len(broken) == 0 {
		return err
	}
	var still []string
	if c.Repair {
		err := c.db.Update(ctx, func(tx *store.Tx) error {
			_, err := tx.Exec("REINDEX")
			return err
		})
		if err != nil {
			return fmt.Errorf("make indexes anew: %w", err)
		}
		if still, err = c.lookAtFile(ctx); err != nil {
			return err
		}
	}
	for _, what := range broken {
		f := Finding{Kind: "database-file", Where: c.URL(), What: what, Mend: "make the indexes anew, which helps if nothing else is broken"}
		switch {
		case c.Repair && slices.Contains(still, what):
			f.Mend = "" // restore a backup
		case c.Repair:
			f.Mended = true
		}
		if err := c.found(f); err != nil {
			return err
		}
	}
	return nil
}

// lookAtFile gathers what the database says of its file; it is looked at once more
// after the indexes were made anew.
func (c *checker) lookAtFile(ctx context.Context) (broken []string, err error) {
	err = c.reader.CheckFile(ctx, func(what string) error {
		broken = append(broken, what)
		return nil
	})
	return broken, err
}

// checkRows looks for rows that contradict each other.
func (c *checker) checkRows(ctx context.Context) error {
	tell := func(f Fault) error {
		return c.found(Finding{Kind: f.Kind, Where: f.Where, What: f.What, Mend: f.Mend, Mended: c.Repair})
	}
	if c.Repair {
		// It runs again if the database asks for it, which happens to a server
		// that shares it; this one is alone.
		return c.db.Update(ctx, func(tx *store.Tx) error { return mendFaults(tx, tell) })
	}
	return c.reader.View(ctx, func(tx *store.Tx) error { return Faults(tx, tell) })
}

// checkFolders looks for folders of nodes that are no more.
func (c *checker) checkFolders(ctx context.Context) error {
	dir := c.Nodes()
	folders, err := fleet.Folders(dir)
	if err != nil || len(folders) == 0 {
		return err
	}
	known := map[batch.NodeID]bool{}
	err = c.reader.View(ctx, func(tx *store.Tx) error {
		nodes, err := tx.AllNodes()
		for i := range nodes {
			known[nodes[i].ID] = true
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, f := range folders {
		if known[f.Node] {
			continue
		}
		if err := c.checkFolder(f); err != nil {
			return err
		}
	}
	return nil
}

// checkFolder tells of the folder of a node that is no more. One in which
// something runs is left alone: what runs ends by itself when its lease is over,
// or when it hears from a server that it is not wanted.
func (c *checker) checkFolder(f fleet.Folder) error {
	finding := Finding{
		Kind: "folder-without-node", Where: f.Path, What: "there is no such node",
		Mend: "move the folder aside", LeftOver: c.young(f.Modified),
	}
	switch {
	case f.Keeper:
		finding.Kind, finding.Mend = "keeper-without-node", ""
		finding.What = "there is no such node, and its keeper runs, perhaps with tasks; it ends when its lease is over"
	case f.Agent:
		finding.Kind, finding.Mend = "agent-without-node", ""
		finding.What = "there is no such node, and its agent runs; it ends when it hears so from a server"
	case c.Repair:
		if err := fleet.SetAside(f, c.aside); err != nil {
			return err
		}
		finding.Mended = true
	}
	return c.found(finding)
}

// young tells whether something is so new that its row may be under way, or its
// removal.
func (c *checker) young(modified time.Time) bool { return modified.After(c.Now().Add(-c.Grace)) }

// checkTemporary looks for files that were being written when their writer was
// killed. Nobody reads them, and most are written anew.
func (c *checker) checkTemporary(context.Context) error {
	for _, pattern := range []string{site.DatabaseName + ".before-*.partial", filepath.Join(site.NodesName, "*", "state", "node.json.new")} {
		files, err := filepath.Glob(filepath.Join(c.Data, pattern))
		if err != nil {
			return fmt.Errorf("look for temporary files: %w", err)
		}
		for _, file := range files {
			info, err := os.Stat(file)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return fmt.Errorf("look at temporary file: %w", err)
			}
			finding := Finding{
				Kind: "temporary-file", Where: file, What: "it was never finished",
				Mend: "delete it", LeftOver: c.young(info.ModTime()), Mended: c.Repair,
			}
			if c.Repair {
				if err := os.Remove(file); err != nil {
					return fmt.Errorf("remove temporary file: %w", err)
				}
			}
			if err := c.found(finding); err != nil {
				return err
			}
		}
	}
	return nil
}
