package site

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/blob"
	"github.com/batchyard/batchyard/fleet"
	"github.com/batchyard/batchyard/store"
)

// share is how many there are of something, and how many of these the other side
// knows nothing of.
type share struct{ all, unknown int }

// mostly tells whether the other side knows too little of what there is. A few
// may have been left by a server that was killed, but not all of them.
func (s share) mostly() bool {
	const few = 10
	return s.unknown > 0 && s.unknown == s.all || s.unknown > few && 2*s.unknown > s.all
}

// evidence is what folder and database hold of each other, by a sample.
type evidence struct {
	files   share // files of blobs in the folder, those without a row
	rows    share // rows that name a file, those whose file is not there
	folders share // folders of nodes, those without a row
}

func (e evidence) folderHolds() bool { return e.files.all+e.folders.all > 0 }

func (e evidence) held() string {
	return fmt.Sprintf("%d files of blobs and %d folders of nodes, if not more", e.files.all, e.folders.all)
}

// contradiction says what of the evidence speaks against it that folder and
// database belong together.
func (e evidence) contradiction() (what string, found bool) {
	switch {
	case e.files.mostly():
		return fmt.Sprintf("of %d files of blobs in the folder the database knows nothing of %d", e.files.all, e.files.unknown), true
	case e.rows.mostly():
		return fmt.Sprintf("of %d files that the database names %d are not in the folder", e.rows.all, e.rows.unknown), true
	case e.folders.mostly():
		return fmt.Sprintf("of %d folders of nodes the database knows nothing of %d", e.folders.all, e.folders.unknown), true
	}
	return "", false
}

// sample is how many things of a kind are looked at.
const sample = 1000

var errEnough = errors.New("enough was seen")

// look gathers the evidence. tx is nil if there is no database yet. Nothing is
// changed, and nothing made.
func (p Place) look(ctx context.Context, tx *store.Tx) (e evidence, err error) {
	disk, err := p.openBlobs()
	if err != nil {
		return e, err
	}
	if disk != nil {
		defer func() { err = errors.Join(err, disk.Close()) }()
		if e.files, err = lookAtFiles(ctx, tx, disk); err != nil {
			return e, err
		}
	}
	if e.folders, err = p.lookAtFolders(tx); err != nil || tx == nil {
		return e, err
	}
	err = tx.EachBlobFile(func(f store.BlobFile) error {
		if e.rows.all++; e.rows.all > sample {
			e.rows.all--
			return errEnough
		}
		if disk == nil {
			e.rows.unknown++
			return nil
		}
		_, _, err := disk.Stat(f.File)
		if errors.Is(err, fs.ErrNotExist) {
			e.rows.unknown++
			err = nil
		}
		return err
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	return e, err
}

// openBlobs opens the folder of blobs, if there is one.
func (p Place) openBlobs() (*blob.Disk, error) {
	if _, err := os.Stat(p.Blobs()); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return blob.OpenDisk(p.Blobs())
}

// lookAtFiles leaves out what was being written when its writer was killed.
func lookAtFiles(ctx context.Context, tx *store.Tx, disk *blob.Disk) (s share, err error) {
	var files []string
	for file, err := range disk.Old(ctx, time.Now().Add(time.Hour)) {
		if err != nil {
			return s, err
		}
		if strings.HasSuffix(file, blob.PartSuffix) {
			continue
		}
		if files = append(files, file); len(files) == sample {
			break
		}
	}
	s.all, s.unknown = len(files), len(files)
	if tx != nil {
		unused, err := tx.UnusedBlobFiles(files)
		if err != nil {
			return s, err
		}
		s.unknown = len(unused)
	}
	return s, nil
}

func (p Place) lookAtFolders(tx *store.Tx) (s share, err error) {
	folders, err := fleet.Folders(p.Nodes())
	if err != nil {
		return s, err
	}
	known := map[batch.NodeID]bool{}
	if tx != nil {
		nodes, err := tx.AllNodes()
		if err != nil {
			return s, err
		}
		for i := range nodes {
			known[nodes[i].ID] = true
		}
	}
	for _, f := range folders {
		s.all++
		if !known[f.Node] {
			s.unknown++
		}
	}
	return s, nil
}
