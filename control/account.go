package control

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/store"
)

// accounts are those that this server serves, with their keys. The database
// knows every account that ever had data; who may call is what this process was
// told since it started, and nothing else: a key that was taken out of the
// configuration is no key any more.
type accounts struct {
	mu     sync.RWMutex
	served map[batch.AccountName]batch.Account // guarded by mu
}

func (a *accounts) get(name batch.AccountName) (batch.Account, bool) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	account, ok := a.served[name]
	return account, ok
}

func (a *accounts) put(account batch.Account) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.served == nil {
		a.served = make(map[batch.AccountName]batch.Account)
	}
	a.served[account.Name] = account
}

// Account returns an account that this server serves, by name. AccountNotFound
// if it was not told to serve it, whatever the database knows.
func (s *Service) Account(name batch.AccountName) (batch.Account, error) {
	name = batch.AccountName(batch.Key(name))
	account, ok := s.accounts.get(name)
	if !ok {
		return batch.Account{}, batch.NotFound("account", name)
	}
	return account, nil
}

// UnservedAccounts names the accounts that have a row, and perhaps data, and
// that nobody has told this server to serve.
func (s *Service) UnservedAccounts(ctx context.Context) ([]batch.AccountName, error) {
	var known []batch.Account
	err := s.db.View(ctx, func(tx *store.Tx) (err error) {
		known, err = tx.Accounts()
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read accounts: %w", err)
	}
	var unserved []batch.AccountName
	for i := range known {
		if _, ok := s.accounts.get(known[i].Name); !ok {
			unserved = append(unserved, known[i].Name)
		}
	}
	return unserved, nil
}

// AddAccount has this server serve an account with the keys that it has here.
// One that has no row gets one.
func (s *Service) AddAccount(ctx context.Context, account batch.Account) error {
	if err := account.Validate(); err != nil {
		return err
	}
	err := s.db.Update(ctx, func(tx *store.Tx) error {
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
	if err != nil {
		return err
	}
	s.accounts.put(account)
	return nil
}
