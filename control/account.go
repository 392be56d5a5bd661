package control

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/store"
)

// accounts remembers accounts, because every request needs one. A change of
// any account, on any server, makes it forget all of them.
type accounts struct {
	mu      sync.Mutex
	known   map[batch.AccountName]batch.Account // guarded by mu
	changes *store.Watch                        // guarded by mu; nil before the first look-up
}

func (a *accounts) get(db *store.DB, name batch.AccountName) (batch.Account, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.changes == nil {
		a.changes = db.Watch(store.AccountsTopic)
	}
	select {
	case <-a.changes.C:
		a.known = nil
	default:
	}
	account, ok := a.known[name]
	return account, ok
}

// put keeps what was read after get began to watch: had it changed since, the
// wake-up is waiting and the next get forgets it.
func (a *accounts) put(account batch.Account) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.known == nil {
		a.known = make(map[batch.AccountName]batch.Account)
	}
	a.known[account.Name] = account
}

// Account returns an account by name, without reading the database most of the
// time. AccountNotFound if there is none.
func (s *Service) Account(ctx context.Context, name batch.AccountName) (batch.Account, error) {
	name = batch.AccountName(batch.Key(name))
	if account, ok := s.accounts.get(s.db, name); ok {
		return account, nil
	}
	var account batch.Account
	err := s.db.View(ctx, func(tx *store.Tx) (err error) {
		account, err = tx.Account(name)
		return err
	})
	if errors.Is(err, store.ErrNotFound) {
		return batch.Account{}, batch.NotFound("account", name)
	}
	if err != nil {
		return batch.Account{}, fmt.Errorf("read account: %w", err)
	}
	s.accounts.put(account)
	return account, nil
}

// Accounts returns all accounts, by name.
func (s *Service) Accounts(ctx context.Context) ([]batch.Account, error) {
	var accounts []batch.Account
	err := s.db.View(ctx, func(tx *store.Tx) (err error) {
		accounts, err = tx.Accounts()
		return err
	})
	return accounts, err
}

// AddAccount adds an account, or gives one that exists the keys it has here.
func (s *Service) AddAccount(ctx context.Context, account batch.Account) error {
	if err := account.Validate(); err != nil {
		return err
	}
	return s.db.Update(ctx, func(tx *store.Tx) error {
		tx.Changed(store.AccountsTopic)
		switch _, err := tx.Account(account.Name); {
		case err == nil:
			return tx.UpdateAccountKeys(account.Name, account.Keys)
		case !errors.Is(err, store.ErrNotFound):
			return err
		}
		a := account
		if a.Created.IsZero() {
			a.Created = tx.Now()
		}
		return tx.InsertAccount(&a)
	})
}
