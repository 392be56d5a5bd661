package store

import (
	"fmt"
	"time"

	"github.com/go-json-experiment/json"
)

// BlobProperties is what a client says of a blob and gets back with it.
type BlobProperties struct {
	ContentType        string            `json:"contentType,omitzero"`
	ContentEncoding    string            `json:"contentEncoding,omitzero"`
	ContentLanguage    string            `json:"contentLanguage,omitzero"`
	ContentDisposition string            `json:"contentDisposition,omitzero"`
	CacheControl       string            `json:"cacheControl,omitzero"`
	ContentMD5         string            `json:"contentMD5,omitzero"` // base64
	Metadata           map[string]string `json:"metadata,omitzero"`
	Copy               *BlobCopy         `json:"copy,omitzero"`
}

// BlobCopy tells of the copy that made a blob.
type BlobCopy struct {
	ID        string    `json:"id"`
	Source    string    `json:"source"` // without its query, which may hold a signature
	Completed time.Time `json:"completed"`
}

// Blob is a committed block blob. Its bytes are Data if Content is empty, else
// the file named Content, or, if Blocks is not zero, the parts under Content.
type Blob struct {
	Name       string
	ETag       string // without quotes
	Size       int64
	Created    time.Time
	Modified   time.Time
	Properties BlobProperties
	Content    string
	Blocks     int
	Data       []byte
}

// Blob gives a committed blob of a container, or ErrNotFound.
func (tx *Tx) Blob(container, name string) (Blob, error) {
	return one("get blob", tx.QueryRow(`
		SELECT name, etag, size, created, modified, properties, content, blocks, data
		FROM storage_blob
		WHERE container = $1 AND name = $2`, container, name), scanBlob)
}

// PutBlob makes b the blob of its name, in the place of old if there is one
// (old.Name is empty if not). With b.Blocks the parts are its content. It gives
// the files, of old and of uncommitted blocks, to which no row refers any more
// once the update is committed.
func (tx *Tx) PutBlob(container string, old, b Blob, parts []BlobPart) ([]string, error) {
	freed, err := tx.freeBlob(container, old, b.Name)
	if err != nil {
		return nil, err
	}
	properties, err := json.Marshal(b.Properties)
	if err != nil {
		return nil, fmt.Errorf("encode blob properties: %w", err)
	}
	_, err = tx.Exec(`
		INSERT INTO storage_blob
			(container, name, etag, size, created, modified, properties, content, blocks, data)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
		ON CONFLICT (container, name) DO UPDATE
		SET etag = $3, size = $4, created = $5, modified = $6,
			properties = $7, content = $8, blocks = $9, data = $10`,
		container, b.Name, b.ETag, b.Size, b.Created.UnixMicro(), b.Modified.UnixMicro(),
		string(properties), b.Content, b.Blocks, b.Data)
	if err != nil {
		return nil, fmt.Errorf("put blob: %w", err)
	}
	if err := tx.addBlobParts(b.Content, parts); err != nil {
		return nil, err
	}
	return keepFiles(freed, b, parts), nil
}

// SetBlob writes the properties, ETag and time of a blob that exists.
func (tx *Tx) SetBlob(container string, b Blob) error {
	properties, err := json.Marshal(b.Properties)
	if err != nil {
		return fmt.Errorf("encode blob properties: %w", err)
	}
	_, err = tx.Exec(`
		UPDATE storage_blob
		SET etag = $1, modified = $2, properties = $3
		WHERE container = $4 AND name = $5`,
		b.ETag, b.Modified.UnixMicro(), string(properties), container, b.Name)
	if err != nil {
		return fmt.Errorf("set blob: %w", err)
	}
	return nil
}

// DeleteBlob removes a blob and its uncommitted blocks and gives their files.
func (tx *Tx) DeleteBlob(container string, old Blob) ([]string, error) {
	freed, err := tx.freeBlob(container, old, old.Name)
	if err != nil {
		return nil, err
	}
	_, err = tx.Exec(`DELETE FROM storage_blob WHERE container = $1 AND name = $2`, container, old.Name)
	if err != nil {
		return nil, fmt.Errorf("delete blob: %w", err)
	}
	return freed, nil
}

// freeBlob removes the parts of old and the uncommitted blocks of that name,
// and gives the files of both.
func (tx *Tx) freeBlob(container string, old Blob, name string) ([]string, error) {
	freed, err := tx.blobFiles("remove uncommitted blocks", `
		DELETE FROM storage_block
		WHERE container = $1 AND blob = $2
		RETURNING file`, container, name)
	if err != nil {
		return nil, err
	}
	if old.Blocks == 0 {
		if old.Content != "" {
			freed = append(freed, old.Content)
		}
		return freed, nil
	}
	parts, err := tx.blobFiles("remove blocks", `
		DELETE FROM storage_part
		WHERE content = $1
		RETURNING file`, old.Content)
	return append(freed, parts...), err
}

// keepFiles takes the files that the new blob uses out of what was freed.
func keepFiles(freed []string, b Blob, parts []BlobPart) []string {
	done := make(map[string]bool, len(parts)+1)
	done[b.Content] = true
	for _, p := range parts {
		done[p.File] = true
	}
	var rest []string
	for _, file := range freed {
		if !done[file] {
			rest = append(rest, file)
		}
		done[file] = true // a block may be in a list twice
	}
	return rest
}

func scanBlob(row scanner) (Blob, error) {
	var b Blob
	var created, modified int64
	var properties string
	err := row.Scan(&b.Name, &b.ETag, &b.Size, &created, &modified, &properties, &b.Content, &b.Blocks, &b.Data)
	if err != nil {
		return Blob{}, err
	}
	b.Created = time.UnixMicro(created).UTC()
	b.Modified = time.UnixMicro(modified).UTC()
	return b, json.Unmarshal([]byte(properties), &b.Properties)
}

// blobFiles runs a statement that returns names of files.
func (tx *Tx) blobFiles(what, query string, args ...any) ([]string, error) {
	rows, err := tx.Query(query, args...)
	return all(what, rows, err, func(row scanner) (file string, err error) { return file, row.Scan(&file) })
}
