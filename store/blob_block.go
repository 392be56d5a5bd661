package store

import "fmt"

// BlobPart is a committed block: Size bytes of the blob from Start are the file.
type BlobPart struct {
	Block string // base64, as the client named it
	Start int64
	Size  int64
	File  string
}

// BlobBlock is a block that is in no block list yet.
type BlobBlock struct {
	Block string // base64, as the client named it
	Size  int64
	File  string
}

// addBlobParts writes the parts in rows of many, because a blob may have fifty
// thousand and others wait for this update.
func (tx *Tx) addBlobParts(content string, parts []BlobPart) error {
	const many = 50
	for seq := 0; seq < len(parts); {
		n := 1
		if len(parts)-seq >= many {
			n = many
		}
		args := make([]any, 0, 6*n)
		for i, p := range parts[seq : seq+n] {
			args = append(args, content, seq+i, p.Block, p.Start, p.Size, p.File)
		}
		if _, err := tx.Exec(addParts(n), args...); err != nil {
			return fmt.Errorf("add blocks: %w", err)
		}
		seq += n
	}
	return nil
}

// addParts is the statement that inserts n parts.
func addParts(n int) string {
	text := `INSERT INTO storage_part (content, seq, block, start, size, file) VALUES `
	for i := range n {
		if i > 0 {
			text += ", "
		}
		text += fmt.Sprintf("($%d, $%d, $%d, $%d, $%d, $%d)", 6*i+1, 6*i+2, 6*i+3, 6*i+4, 6*i+5, 6*i+6)
	}
	return text
}

// BlobParts gives the parts of a content that hold bytes from one offset up to
// another, in order.
func (tx *Tx) BlobParts(content string, from, to int64) ([]BlobPart, error) {
	rows, err := tx.Query(`
		SELECT block, start, size, file
		FROM storage_part
		WHERE content = $1 AND start < $2 AND start + size > $3
		ORDER BY seq`, content, to, from)
	return all("list blocks", rows, err, func(row scanner) (p BlobPart, err error) {
		return p, row.Scan(&p.Block, &p.Start, &p.Size, &p.File)
	})
}

// PutBlobBlock adds an uncommitted block, in the place of one of the same name,
// whose file it gives.
func (tx *Tx) PutBlobBlock(container, blob string, b BlobBlock) ([]string, error) {
	files, err := tx.blobFiles("replace block", `
		DELETE FROM storage_block
		WHERE container = $1 AND blob = $2 AND block = $3
		RETURNING file`, container, blob, b.Block)
	if err != nil {
		return nil, err
	}
	_, err = tx.Exec(`
		INSERT INTO storage_block (container, blob, block, size, file, created)
		VALUES ($1, $2, $3, $4, $5, $6)`,
		container, blob, b.Block, b.Size, b.File, tx.due(tx.Now()))
	if err != nil {
		return nil, fmt.Errorf("add block: %w", err)
	}
	return files, nil
}

// BlobBlocks gives the uncommitted blocks of a blob in the order of their names.
func (tx *Tx) BlobBlocks(container, blob string) ([]BlobBlock, error) {
	rows, err := tx.Query(`
		SELECT block, size, file
		FROM storage_block
		WHERE container = $1 AND blob = $2
		ORDER BY block`, container, blob)
	return all("list uncommitted blocks", rows, err, func(row scanner) (b BlobBlock, err error) {
		return b, row.Scan(&b.Block, &b.Size, &b.File)
	})
}

// BlobBlockCount says how many uncommitted blocks a blob has. It looks at each.
func (tx *Tx) BlobBlockCount(container, blob string) (int, error) {
	return one("count uncommitted blocks", tx.QueryRow(`
		SELECT count(*)
		FROM storage_block
		WHERE container = $1 AND blob = $2`, container, blob), func(row scanner) (n int, err error) {
		return n, row.Scan(&n)
	})
}

// AnyBlobBlock gives the name of an uncommitted block of a blob, or ErrNotFound.
func (tx *Tx) AnyBlobBlock(container, blob string) (string, error) {
	return one("get an uncommitted block", tx.QueryRow(`
		SELECT block
		FROM storage_block
		WHERE container = $1 AND blob = $2
		LIMIT 1`, container, blob), func(row scanner) (block string, err error) {
		return block, row.Scan(&block)
	})
}
