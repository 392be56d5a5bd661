package site

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/batchyard/batchyard/disk"
	"github.com/batchyard/batchyard/store"
)

// Use says what the data are for.
type Use string

// The uses there are.
const (
	ForServer Use = "server"
	// ForDev has accounts whose keys everybody knows.
	ForDev Use = "dev"
)

// DevAccount is the account of a development server.
const DevAccount = "devaccount"

// Identity is what folder and database have in common.
type Identity struct {
	ID  string `json:"id"`
	Use Use    `json:"use"`
}

// OfFolder reads what the folder says; nil if it says nothing.
func (p Place) OfFolder() (*Identity, error) {
	text, err := os.ReadFile(p.path(FileName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read site: %w", err)
	}
	var i Identity
	if err := json.Unmarshal(text, &i); err != nil || i.ID == "" {
		return nil, fmt.Errorf("%s does not say which site it is of: %w", p.path(FileName), errors.Join(err, errNoSite))
	}
	return &i, nil
}

var errNoSite = errors.New("it has no id")

// UseOf tells what a database is used for, by its accounts if it does not say.
func UseOf(tx *store.Tx) (Use, error) {
	var f facts
	if err := f.ask(tx); err != nil {
		return "", err
	}
	if f.database != nil {
		return f.database.Use, nil
	}
	return f.usedBefore(ForServer), nil
}

// ofDatabase reads what a database says; nil if it says nothing.
func ofDatabase(tx *store.Tx) (*Identity, error) {
	s, err := tx.Site()
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &Identity{ID: s.ID, Use: Use(s.Use)}, nil
}

// Mark has the folder say which site it is of. The database says so before: a
// folder that does is of a database that does.
func (p Place) Mark(i Identity) error {
	text, err := json.Marshal(i)
	if err != nil {
		return err
	}
	if err := disk.WriteFile(p.path(FileName), append(text, '\n'), 0o600); err != nil {
		return fmt.Errorf("mark data folder: %w", err)
	}
	return nil
}
