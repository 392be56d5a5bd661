package storetest_test

import (
	"errors"
	"testing"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/store"
	"github.com/batchyard/batchyard/store/storetest"
)

func TestAccounts(t *testing.T) {
	t.Parallel()
	storetest.EachOpen(t, func(t *testing.T, db *store.DB) {
		a := batch.Account{Name: "one", Keys: [2][]byte{{1, 0, 255}, {2}}, Created: noon}
		b := batch.Account{Name: "another", Keys: [2][]byte{{3}, {4}}, Created: noon}
		update(t, db, func(tx *store.Tx) error { return errors.Join(tx.InsertAccount(&a), tx.InsertAccount(&b)) })
		diff(t, []batch.Account{b, a}, view(t, db, (*store.Tx).Accounts))
		if err := db.Update(t.Context(), func(tx *store.Tx) error { return tx.InsertAccount(&a) }); !store.IsDuplicate(err) {
			t.Errorf("second insert: got error %v", err)
		}

		update(t, db, func(tx *store.Tx) error { return tx.UpdateAccountKeys("one", [2][]byte{a.Keys[0], {9}}) })
		a.Keys[1] = []byte{9}
		get := func(tx *store.Tx) (batch.Account, error) { return tx.Account("one") }
		diff(t, a, view(t, db, get))

		update(t, db, func(tx *store.Tx) error { return tx.DeleteAccount("one") })
		err := db.Update(t.Context(), func(tx *store.Tx) error {
			_, err := tx.Account("one")
			if !errors.Is(err, store.ErrNotFound) {
				t.Errorf("get: got error %v", err)
			}
			return tx.DeleteAccount("one")
		})
		if !errors.Is(err, store.ErrNotFound) {
			t.Errorf("second delete: got error %v", err)
		}
	})
}
