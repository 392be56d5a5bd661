package blob

import (
	"context"
	"fmt"
	"sync"

	"github.com/batchyard/batchyard/auth"
	"github.com/batchyard/batchyard/store"
)

// The storage account that clients mean by UseDevelopmentStorage=true, with the
// key that is known to everybody. It must not be reachable from elsewhere.
const (
	DevAccount = "devstoreaccount1"
	DevKey     = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)

// accounts are those that this server serves, with their keys. The database
// knows every account that ever had data; who may call is what this process was
// told since it started.
type accounts struct {
	mu     sync.RWMutex
	served map[string]auth.Keys // guarded by mu
}

// get gives the keys of an account that is served, for each request.
func (a *accounts) get(name string) (auth.Keys, bool) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	keys, ok := a.served[name]
	return keys, ok
}

// put serves an account, or gives it other keys: requests that are signed with the
// old ones are refused from then on.
func (a *accounts) put(name string, keys auth.Keys) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.served == nil {
		a.served = make(map[string]auth.Keys)
	}
	a.served[name] = keys
}

// ProvisionDev has the server serve the development account. Both its keys are
// the known one.
func (s *Server) ProvisionDev(ctx context.Context) error {
	key, err := auth.ParseKey(DevKey)
	if err != nil {
		return err
	}
	return s.Provision(ctx, DevAccount, auth.Keys{key, key})
}

// Provision has the server serve a storage account with these keys and no
// others. One that has no row gets one. A nil key is none, but one there must
// be.
func (s *Server) Provision(ctx context.Context, account string, keys auth.Keys) error {
	if !isAccountName(account) {
		return fmt.Errorf("storage account %q: a name is 3 to 24 lower-case letters and digits", account)
	}
	if len(keys[0])+len(keys[1]) == 0 {
		return fmt.Errorf("storage account %q: a key is needed", account)
	}
	for i, key := range keys {
		if key == nil {
			keys[i] = auth.Key{} // a column holds no nil
		}
	}
	err := s.db.Update(ctx, func(tx *store.Tx) error {
		return tx.PutStorageAccount(store.StorageAccount{Name: account, Keys: keys})
	})
	if err != nil {
		return err
	}
	s.accounts.put(account, keys)
	return nil
}

// UnservedAccounts names the storage accounts that have a row, and perhaps data,
// and that nobody has told this server to serve.
func (s *Server) UnservedAccounts(ctx context.Context) (unserved []string, err error) {
	var known []string
	err = s.db.View(ctx, func(tx *store.Tx) (err error) {
		known, err = tx.StorageAccounts()
		return err
	})
	for _, name := range known {
		if _, ok := s.accounts.get(name); !ok {
			unserved = append(unserved, name)
		}
	}
	return unserved, err
}
