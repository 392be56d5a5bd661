package store

import (
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json"

	"github.com/batchyard/batchyard/auth"
)

// StorageAccount is an account of the storage endpoint.
type StorageAccount struct {
	Name string
	Keys auth.Keys
}

// BlobContainer is a container of a storage account. ID names this life of it:
// one that is made again under its old name has another.
type BlobContainer struct {
	Account  string
	Name     string
	ID       string
	ETag     string // without quotes
	Modified time.Time
	Metadata map[string]string
}

// PutStorageAccount adds an account or replaces the keys of one.
func (tx *Tx) PutStorageAccount(a StorageAccount) error {
	_, err := tx.Exec(`
		INSERT INTO storage_account (name, key1, key2, created)
		VALUES ($1, $2, $3, $4)
		ON CONFLICT (name) DO UPDATE SET key1 = $2, key2 = $3`,
		a.Name, []byte(a.Keys[0]), []byte(a.Keys[1]), tx.Now().UnixMicro())
	if err != nil {
		return fmt.Errorf("put storage account: %w", err)
	}
	return nil
}

// StorageAccount gives an account, or ErrNotFound.
func (tx *Tx) StorageAccount(name string) (StorageAccount, error) {
	return one("get storage account", tx.QueryRow(`
		SELECT key1, key2
		FROM storage_account
		WHERE name = $1`, name), func(row scanner) (StorageAccount, error) {
		var key1, key2 []byte
		err := row.Scan(&key1, &key2)
		return StorageAccount{Name: name, Keys: auth.Keys{key1, key2}}, err
	})
}

// StorageAccounts names all accounts, in order.
func (tx *Tx) StorageAccounts() ([]string, error) {
	return tx.blobFiles("list storage accounts", `SELECT name FROM storage_account ORDER BY name`)
}

// AddBlobContainer adds a container of which there is none of that name.
func (tx *Tx) AddBlobContainer(c BlobContainer) error {
	metadata, err := json.Marshal(c.Metadata)
	if err != nil {
		return fmt.Errorf("encode container metadata: %w", err)
	}
	_, err = tx.Exec(`
		INSERT INTO storage_container (account, name, id, etag, modified, metadata)
		VALUES ($1, $2, $3, $4, $5, $6)`,
		c.Account, c.Name, c.ID, c.ETag, c.Modified.UnixMicro(), string(metadata))
	if err != nil {
		return fmt.Errorf("add container: %w", err)
	}
	return nil
}

// BlobContainer gives a container, or ErrNotFound.
func (tx *Tx) BlobContainer(account, name string) (BlobContainer, error) {
	return one("get container", tx.QueryRow(`
		SELECT account, name, id, etag, modified, metadata
		FROM storage_container
		WHERE account = $1 AND name = $2`, account, name), scanBlobContainer)
}

// SetBlobContainer writes the metadata, ETag and time of a container that exists.
func (tx *Tx) SetBlobContainer(c BlobContainer) error {
	metadata, err := json.Marshal(c.Metadata)
	if err != nil {
		return fmt.Errorf("encode container metadata: %w", err)
	}
	_, err = tx.Exec(`
		UPDATE storage_container
		SET etag = $1, modified = $2, metadata = $3
		WHERE id = $4`, c.ETag, c.Modified.UnixMicro(), string(metadata), c.ID)
	if err != nil {
		return fmt.Errorf("set container: %w", err)
	}
	return nil
}

// DropBlobContainer removes a container. Its blobs are out of reach from then
// on; PurgeBlobContainer removes them, in slices.
func (tx *Tx) DropBlobContainer(id string) error {
	if _, err := tx.Exec(`DELETE FROM storage_container WHERE id = $1`, id); err != nil {
		return fmt.Errorf("drop container: %w", err)
	}
	_, err := tx.Exec(`
		INSERT INTO storage_dropped (container, dropped)
		VALUES ($1, $2)`, id, tx.Now().UnixMicro())
	if err != nil {
		return fmt.Errorf("note dropped container: %w", err)
	}
	return nil
}

// BlobContainers lists containers of an account in the order of their names:
// those with the prefix, from a name on, at most limit.
func (tx *Tx) BlobContainers(account, prefix, from string, limit int) ([]BlobContainer, error) {
	rows, err := tx.Query(`
		SELECT account, name, id, etag, modified, metadata
		FROM storage_container
		WHERE account = $1 AND name >= $2 AND substr(name, 1, $3) = $4
		ORDER BY name
		LIMIT $5`, account, max(from, prefix), utf8.RuneCountInString(prefix), prefix, limit)
	return all("list containers", rows, err, scanBlobContainer)
}

func scanBlobContainer(row scanner) (BlobContainer, error) {
	var c BlobContainer
	var modified int64
	var metadata string
	if err := row.Scan(&c.Account, &c.Name, &c.ID, &c.ETag, &modified, &metadata); err != nil {
		return BlobContainer{}, err
	}
	c.Modified = time.UnixMicro(modified).UTC()
	return c, json.Unmarshal([]byte(metadata), &c.Metadata)
}
