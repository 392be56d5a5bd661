package store

import (
	"context"
	"errors"
	"fmt"
)

// BlobFile is a file that a row speaks of.
type BlobFile struct {
	Container string // the life of it that the blob is in
	Blob      string
	Block     string // empty if the file is all of the blob
	Committed bool   // it is in a blob, and not just a block that may get into one
	File      string
	Size      int64
	MD5       string // base64, as far as the blob says it; of whole blobs only
}

// EachBlobFile calls fn with each file of a blob or block, one at a time, in no
// order. Blocks that a blob has twice come twice. An error of fn ends it.
func (tx *Tx) EachBlobFile(fn func(BlobFile) error) error {
	return tx.eachBlobFile(selectBlobFiles("storage_blob", "storage_part", "storage_block"), fn)
}

// singularSchema is the first schema that names a table for one of its rows. A
// backup of a server that has yet to be brought up to date is of an older one.
const singularSchema = 10

// EachBlobFile is [Tx.EachBlobFile] for a database of any schema.
func (r *Reader) EachBlobFile(ctx context.Context, fn func(BlobFile) error) error {
	return r.View(ctx, func(tx *Tx) error {
		if r.Schema < singularSchema {
			return tx.eachBlobFile(selectBlobFiles("storage_blobs", "storage_parts", "storage_blocks"), fn)
		}
		return tx.EachBlobFile(fn)
	})
}

// selectBlobFiles asks tables of these names.
func selectBlobFiles(blob, part, block string) string {
	return `
		SELECT container, name, '', TRUE, content, size, COALESCE(properties ->> 'contentMD5', '')
		FROM ` + blob + `
		WHERE content <> '' AND blocks = 0
		UNION ALL
		SELECT b.container, b.name, p.block, TRUE, p.file, p.size, ''
		FROM ` + part + ` AS p
		JOIN ` + blob + ` AS b ON b.content = p.content AND b.content <> '' AND b.blocks > 0
		UNION ALL
		SELECT container, blob, block, FALSE, file, size, ''
		FROM ` + block
}

func (tx *Tx) eachBlobFile(text string, fn func(BlobFile) error) error {
	rows, err := tx.Query(text)
	if err != nil {
		return fmt.Errorf("list files of blobs: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var f BlobFile
		if err := rows.Scan(&f.Container, &f.Blob, &f.Block, &f.Committed, &f.File, &f.Size, &f.MD5); err != nil {
			return fmt.Errorf("list files of blobs: %w", err)
		}
		if err := fn(f); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("list files of blobs: %w", err)
	}
	return nil
}

// EachInlineBlob calls fn with each blob whose bytes are in the database and of
// which an MD5 is known, base64.
func (tx *Tx) EachInlineBlob(fn func(container, name, md5 string, data []byte) error) error {
	rows, err := tx.Query(`
		SELECT container, name, properties ->> 'contentMD5', data
		FROM storage_blob
		WHERE content = '' AND COALESCE(properties ->> 'contentMD5', '') <> ''`)
	if err != nil {
		return fmt.Errorf("list small blobs: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var container, name, md5 string
		var data []byte
		if err := rows.Scan(&container, &name, &md5, &data); err != nil {
			return fmt.Errorf("list small blobs: %w", err)
		}
		if err := fn(container, name, md5, data); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("list small blobs: %w", err)
	}
	return nil
}

// DropBlobFile removes what speaks of a file that is lost: the blob that has it,
// or the uncommitted block that is it.
func (tx *Tx) DropBlobFile(f BlobFile) error {
	if !f.Committed {
		_, err := tx.Exec(`DELETE FROM storage_block WHERE container = $1 AND blob = $2 AND block = $3 AND file = $4`,
			f.Container, f.Blob, f.Block, f.File)
		if err != nil {
			return fmt.Errorf("delete block: %w", err)
		}
		return nil
	}
	b, err := tx.Blob(f.Container, f.Blob)
	if errors.Is(err, ErrNotFound) {
		return nil // another file of it was lost too
	}
	if err != nil {
		return err
	}
	_, err = tx.DeleteBlob(f.Container, b)
	return err
}

// CheckFile has SQLite look through its whole file and tells found of what is
// broken in it, at most a hundred things. PostgreSQL looks after its files
// itself.
func (r *Reader) CheckFile(ctx context.Context, found func(what string) error) error {
	if r.Dialect() != SQLite {
		return nil
	}
	return r.View(ctx, func(tx *Tx) error { return tx.CheckFile(found) })
}

// CheckFile is [Reader.CheckFile] in a transaction.
func (tx *Tx) CheckFile(found func(what string) error) error {
	rows, err := tx.Query(`PRAGMA integrity_check(100)`)
	lines, err := all("check database file", rows, err, func(row scanner) (s string, err error) { return s, row.Scan(&s) })
	if err != nil {
		return err
	}
	for _, line := range lines {
		if line == "ok" {
			continue
		}
		if err := found(line); err != nil {
			return err
		}
	}
	return nil
}
