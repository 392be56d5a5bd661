package store

import (
	"fmt"
	"strings"
	"time"
)

// sweepBatch is how many files UnusedBlobFiles asks for in one statement.
const sweepBatch = 100

// UnusedBlobFiles gives those of the files to which no row refers.
func (tx *Tx) UnusedBlobFiles(files []string) ([]string, error) {
	var unused []string
	for start := 0; start < len(files); start += sweepBatch {
		batch := files[start:min(start+sweepBatch, len(files))]
		used, err := tx.usedBlobFiles(batch)
		if err != nil {
			return nil, err
		}
		for _, file := range batch {
			if !used[file] {
				unused = append(unused, file)
			}
		}
	}
	return unused, nil
}

// usedBlobFiles looks up at most sweepBatch files. A short batch is filled up
// with the empty name, which no file has, so that there is one statement.
func (tx *Tx) usedBlobFiles(files []string) (map[string]bool, error) {
	args := make([]any, sweepBatch)
	marks := make([]string, sweepBatch)
	for i := range args {
		args[i] = ""
		if i < len(files) {
			args[i] = files[i]
		}
		marks[i] = fmt.Sprintf("$%d", i+1)
	}
	list := strings.Join(marks, ", ")
	names, err := tx.blobFiles("look up files", `
		SELECT content FROM storage_blob WHERE content <> '' AND content IN (`+list+`)
		UNION ALL
		SELECT file FROM storage_part WHERE file IN (`+list+`)
		UNION ALL
		SELECT file FROM storage_block WHERE file IN (`+list+`)`, args...)
	if err != nil {
		return nil, err
	}
	used := make(map[string]bool, len(names))
	for _, name := range names {
		used[name] = true
	}
	return used, nil
}

// ExpireBlobBlocks removes the uncommitted blocks of at most limit blobs to
// which none has been added since a time, and gives their files. done says that
// there are no more.
func (tx *Tx) ExpireBlobBlocks(before time.Time, limit int) (freed []string, done bool, err error) {
	rows, err := tx.Query(`
		SELECT container, blob
		FROM storage_block
		GROUP BY container, blob
		HAVING max(created) < $1
		LIMIT $2`, tx.due(before), limit)
	stale, err := all("find stale blocks", rows, err, func(row scanner) (key [2]string, err error) {
		return key, row.Scan(&key[0], &key[1])
	})
	if err != nil {
		return nil, false, err
	}
	for _, key := range stale {
		files, err := tx.blobFiles("remove stale blocks", `
			DELETE FROM storage_block
			WHERE container = $1 AND blob = $2
			RETURNING file`, key[0], key[1])
		if err != nil {
			return nil, false, err
		}
		freed = append(freed, files...)
	}
	return freed, len(stale) < limit, nil
}

// DroppedBlobContainers gives the containers that are to be purged.
func (tx *Tx) DroppedBlobContainers() ([]string, error) {
	return tx.blobFiles("list dropped containers", `SELECT container FROM storage_dropped`)
}

// PurgeBlobContainer removes at most limit blobs, and the blocks of as many, of
// a dropped container and gives their files. done says that nothing is left of
// it.
func (tx *Tx) PurgeBlobContainer(id string, limit int) (freed []string, done bool, err error) {
	blobs, err := tx.blobsFrom(id, "", "", limit)
	if err != nil {
		return nil, false, err
	}
	for _, b := range blobs {
		gone, err := tx.DeleteBlob(id, b)
		if err != nil {
			return nil, false, err
		}
		freed = append(freed, gone...)
	}
	files, err := tx.blobFiles("remove blocks of a dropped container", `
		DELETE FROM storage_block
		WHERE (container, blob, block) IN (
			SELECT container, blob, block FROM storage_block WHERE container = $1 LIMIT $2)
		RETURNING file`, id, limit)
	if err != nil {
		return nil, false, err
	}
	freed = append(freed, files...)
	if len(blobs) == limit || len(files) == limit {
		return freed, false, nil
	}
	if _, err := tx.Exec(`DELETE FROM storage_dropped WHERE container = $1`, id); err != nil {
		return nil, false, fmt.Errorf("forget dropped container: %w", err)
	}
	return freed, true, nil
}
