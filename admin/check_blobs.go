package admin

import (
	"context"
	"crypto/md5" //nolint:gosec // the protocol's sum of a blob, no secret
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"github.com/batchyard/batchyard/store"
)

// batchSize is how many files are looked up, or dropped, at once.
const batchSize = 1000

// missing is a row whose file is not there, or not as long as it says.
type missing struct {
	store.BlobFile
	what string
}

// checkBlobRows looks for the file of every row.
func (c *checker) checkBlobRows(ctx context.Context) error {
	var suspects []missing
	err := c.reader.View(ctx, func(tx *store.Tx) error {
		return tx.EachBlobFile(func(f store.BlobFile) error {
			what, err := c.lookAt(f)
			if err != nil || what == "" {
				return err
			}
			suspects = append(suspects, missing{f, what})
			if len(suspects) < batchSize {
				return nil
			}
			defer func() { suspects = suspects[:0] }()
			return c.tellMissing(ctx, suspects)
		})
	})
	if err != nil {
		return err
	}
	return c.tellMissing(ctx, suspects)
}

// lookAt says what is wrong with the file of a row, or nothing.
func (c *checker) lookAt(f store.BlobFile) (what string, err error) {
	if c.disk == nil {
		return "its file " + f.File + " is not there, nor is the folder of blobs", nil
	}
	size, _, err := c.disk.Stat(f.File)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "its file " + f.File + " is not there", nil
	case err != nil:
		return "", err
	case size != f.Size:
		return fmt.Sprintf("its file %s has %d bytes and should have %d", f.File, size, f.Size), nil
	}
	return "", nil
}

// tellMissing tells of rows without their file, unless the rows have gone
// meanwhile: a server removes the row first.
func (c *checker) tellMissing(ctx context.Context, suspects []missing) error {
	if len(suspects) == 0 {
		return nil
	}
	files := make([]string, len(suspects))
	for i, m := range suspects {
		files[i] = m.File
	}
	unused := map[string]bool{}
	err := c.reader.View(ctx, func(tx *store.Tx) error {
		names, err := tx.UnusedBlobFiles(files)
		for _, name := range names {
			unused[name] = true
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, m := range suspects {
		if unused[m.File] {
			continue
		}
		f := Finding{Kind: "blob-without-file", Where: blobName(m.BlobFile), What: m.what, Mend: "delete the blob, whose bytes are lost"}
		if !m.Committed {
			f.Kind, f.Mend = "block-without-file", "delete the block, which the client has to upload again"
		}
		if c.Repair {
			if err := c.db.Update(ctx, func(tx *store.Tx) error { return tx.DropBlobFile(m.BlobFile) }); err != nil {
				return err
			}
			f.Mended = true
		}
		if err := c.found(f); err != nil {
			return err
		}
	}
	return nil
}

// blobName is how a person would name the blob, or the block, that a file is of.
func blobName(f store.BlobFile) string {
	if f.Block == "" {
		return "blob " + f.Container + "/" + f.Blob
	}
	return "block " + f.Block + " of blob " + f.Container + "/" + f.Blob
}

// checkSums compares bytes with the MD5 that their blob has. A client may give a
// blob another one, so nothing is mended.
func (c *checker) checkSums(ctx context.Context) error {
	if !c.Deep {
		return nil
	}
	tell := func(name, want, got string) error {
		if got == want {
			return nil
		}
		return c.found(Finding{
			Kind: "blob-sum", Where: "blob " + name,
			What: fmt.Sprintf("its bytes have the MD5 %s and the blob says %s, unless its client set that itself", got, want),
		})
	}
	return c.reader.View(ctx, func(tx *store.Tx) error {
		err := tx.EachInlineBlob(func(container, name, want string, data []byte) error {
			sum := md5.Sum(data) //nolint:gosec // see the import
			return tell(container+"/"+name, want, base64.StdEncoding.EncodeToString(sum[:]))
		})
		if err != nil {
			return err
		}
		return tx.EachBlobFile(func(f store.BlobFile) error {
			got, err := c.sum(ctx, f)
			if errors.Is(err, fs.ErrNotExist) {
				return nil // told already, or removed just now
			}
			if err != nil || f.MD5 == "" {
				return err
			}
			return tell(f.Container+"/"+f.Blob, f.MD5, got)
		})
	})
}

// sum reads all of a file.
func (c *checker) sum(ctx context.Context, f store.BlobFile) (string, error) {
	if c.disk == nil {
		return "", fs.ErrNotExist
	}
	r, err := c.disk.Open(ctx, f.File, 0, f.Size)
	if err != nil {
		return "", err
	}
	hash := md5.New() //nolint:gosec // see the import
	_, err = io.Copy(hash, r)
	if err = errors.Join(err, r.Close()); err != nil {
		return "", fmt.Errorf("read content file %s: %w", f.File, err)
	}
	return base64.StdEncoding.EncodeToString(hash.Sum(nil)), nil
}

// checkBlobFiles looks for files of which no row speaks.
func (c *checker) checkBlobFiles(ctx context.Context) error {
	if c.disk == nil {
		return nil
	}
	var files []string
	for file, err := range c.disk.Old(ctx, c.Now().Add(time.Hour)) {
		if err != nil {
			return err
		}
		if files = append(files, file); len(files) == batchSize {
			if err := c.tellUnused(ctx, files); err != nil {
				return err
			}
			files = files[:0]
		}
	}
	return c.tellUnused(ctx, files)
}

// tellUnused tells of those of the files that no row names. One that has gone since
// it was listed was being removed.
func (c *checker) tellUnused(ctx context.Context, files []string) error {
	var unused []string
	err := c.reader.View(ctx, func(tx *store.Tx) (err error) {
		unused, err = tx.UnusedBlobFiles(files)
		return err
	})
	if err != nil {
		return err
	}
	for _, file := range unused {
		size, modified, err := c.disk.Stat(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it was being removed
		}
		if err != nil {
			return err
		}
		f := Finding{
			Kind: "file-without-blob", Where: c.disk.PathOf(file), What: fmt.Sprintf("no blob has it (%d bytes)", size),
			Mend: "move the file aside", LeftOver: c.young(modified),
		}
		if c.Repair {
			if err := c.disk.SetAside(file, c.aside); err != nil {
				return err
			}
			f.Mended = true
		}
		if err := c.found(f); err != nil {
			return err
		}
	}
	return nil
}
