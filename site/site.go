package site

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"time"

	"github.com/batchyard/batchyard/disk"
	"github.com/batchyard/batchyard/store"
)

// Options say what to open and what for.
type Options struct {
	Place
	// Use is what the data are to be used for.
	Use Use
	// Now reads the clock; time.Now if nil.
	Now func() time.Time
	// Log gets what the store has to say; discarded if nil.
	Log *slog.Logger
}

// Site is open data that nobody else may write.
type Site struct {
	Place
	Identity Identity
	DB       *store.DB

	unlock func() error
}

// Open opens the data of a server and makes them where there are none. It fails
// with store.ErrInUse if another process may write them, and with ErrMismatch if
// folder and database do not belong together; a database that is not there is
// not made then.
func Open(ctx context.Context, o Options) (s *Site, err error) {
	// Tasks of other users pass the folder to reach their own.
	if err := disk.MakeFolder(o.Data, 0o711); err != nil {
		return nil, fmt.Errorf("make data folder: %w", err)
	}
	s = &Site{Place: o.Place}
	defer func() {
		if err != nil {
			err, s = errors.Join(err, s.Close()), nil
		}
	}()
	if s.unlock, err = o.Lock(); err != nil {
		return s, err
	}
	if err := o.RefuseHalf(); err != nil {
		return s, err
	}
	if !o.hasDatabase() {
		if _, err := o.judge(ctx, nil, o.Use); err != nil {
			return s, err
		}
	}
	if s.DB, err = store.Open(ctx, store.Options{URL: o.URL(), Now: o.Now, Log: o.Log}); err != nil {
		return s, err
	}
	return s, s.identify(ctx, o.Use)
}

// identify has folder and database carry one identity.
func (s *Site) identify(ctx context.Context, use Use) error {
	err := s.DB.View(ctx, func(tx *store.Tx) (err error) {
		s.Identity, err = s.judge(ctx, tx, use)
		return err
	})
	if err != nil {
		return err
	}
	if s.Identity.ID == "" {
		s.Identity.ID = NewID()
		err := s.DB.Update(ctx, func(tx *store.Tx) error {
			return tx.PutSite(store.Site{ID: s.Identity.ID, Use: string(s.Identity.Use), Created: tx.Now()})
		})
		if err != nil {
			return err
		}
	}
	if folder, err := s.OfFolder(); err != nil || folder != nil {
		return err
	}
	return s.Mark(s.Identity)
}

// NewID names a site as no other is named.
func NewID() string { return rand.Text() }

// Compare fails with ErrMismatch if a database that is being looked at says that
// it is not that of the folder. It is for those who look or mend, and who may
// know better where one of the two says nothing.
func (p Place) Compare(tx *store.Tx) error {
	f, err := p.facts(tx)
	if err != nil || f.folder == nil {
		return err
	}
	_, err = f.identity("")
	return err
}

// judge looks at folder and database and decides; tx is nil if there is no
// database yet.
func (p Place) judge(ctx context.Context, tx *store.Tx, use Use) (i Identity, err error) {
	f, err := p.facts(tx)
	if err != nil {
		return i, err
	}
	if f.folder == nil {
		if f.seen, err = p.look(ctx, tx); err != nil {
			return i, fmt.Errorf("look at data folder: %w", err)
		}
	}
	return f.judge(use)
}

func (p Place) facts(tx *store.Tx) (f facts, err error) {
	f = facts{place: p, fresh: true}
	if f.folder, err = p.OfFolder(); err != nil || tx == nil {
		return f, err
	}
	return f, f.ask(tx)
}

// ask has the database say what it is.
func (f *facts) ask(tx *store.Tx) (err error) {
	if f.database, err = ofDatabase(tx); err != nil {
		return err
	}
	known, err := tx.Accounts()
	if err != nil {
		return err
	}
	for i := range known {
		f.accounts = append(f.accounts, known[i].Name)
	}
	storage, err := tx.StorageAccounts()
	f.fresh = len(known)+len(storage) == 0
	return err
}

// Close ends the work on the data.
func (s *Site) Close() error {
	var errs []error
	if s.DB != nil {
		errs = append(errs, s.DB.Close())
	}
	if s.unlock != nil {
		errs = append(errs, s.unlock())
	}
	return errors.Join(errs...)
}

// shown is the database for people, without its password.
func (p Place) shown() string {
	at, err := url.Parse(p.URL())
	if err != nil {
		return "(of the configuration)"
	}
	return at.Redacted()
}
