package store

import (
	"fmt"
	"time"
)

// Site says which data folder belongs to a database; package site compares the
// two.
type Site struct {
	ID      string
	Use     string
	Created time.Time
}

// Site gives what the database says, or ErrNotFound if it says nothing: it is
// new, or was last used by a program that knew of no sites.
func (tx *Tx) Site() (Site, error) {
	return one("get site", tx.QueryRow(`SELECT id, use, created FROM site`), func(row scanner) (Site, error) {
		var s Site
		var created int64
		err := row.Scan(&s.ID, &s.Use, &created)
		s.Created = time.UnixMicro(created).UTC()
		return s, err
	})
}

// PutSite replaces what the database says.
func (tx *Tx) PutSite(s Site) error {
	if _, err := tx.Exec(`DELETE FROM site`); err != nil {
		return fmt.Errorf("put site: %w", err)
	}
	_, err := tx.Exec(`
		INSERT INTO site (id, use, created)
		VALUES ($1, $2, $3)`, s.ID, s.Use, s.Created.UnixMicro())
	if err != nil {
		return fmt.Errorf("put site: %w", err)
	}
	return nil
}
