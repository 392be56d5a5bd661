package blob

import (
	"context"
	"fmt"

	"github.com/batchyard/batchyard/auth"
	"github.com/batchyard/batchyard/store"
)

// The storage account that clients mean by UseDevelopmentStorage=true, with the
// key that is known to everybody. It must not be reachable from elsewhere.
const (
	DevAccount = "devstoreaccount1"
	DevKey     = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)

// ProvisionDev makes the development account. Both its keys are the known one.
func ProvisionDev(ctx context.Context, db *store.DB) error {
	key, err := auth.ParseKey(DevKey)
	if err != nil {
		return err
	}
	return Provision(ctx, db, DevAccount, auth.Keys{key, key})
}

// Provision makes a storage account or replaces its keys. A nil key is none,
// but one there must be.
func Provision(ctx context.Context, db *store.DB, account string, keys auth.Keys) error {
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
	return db.Update(ctx, func(tx *store.Tx) error {
		return tx.PutStorageAccount(store.StorageAccount{Name: account, Keys: keys})
	})
}
