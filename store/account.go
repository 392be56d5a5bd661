package store

import (
	"fmt"
	"time"

	"github.com/batchyard/batchyard/batch"
)

const accountColumns = `name, key1, key2, created`

// Account returns the account, or ErrNotFound.
func (tx *Tx) Account(name batch.AccountName) (batch.Account, error) {
	return one("get account", tx.QueryRow(`
		SELECT `+accountColumns+`
		FROM account
		WHERE name = $1`, string(name)), scanAccount)
}

// Accounts returns all accounts in the order of their names.
func (tx *Tx) Accounts() ([]batch.Account, error) {
	rows, err := tx.Query(`
		SELECT ` + accountColumns + `
		FROM account
		ORDER BY name`)
	return all("list accounts", rows, err, scanAccount)
}

// InsertAccount adds an account. If there is one of that name the error is one
// that IsDuplicate knows.
func (tx *Tx) InsertAccount(a *batch.Account) error {
	_, err := tx.Exec(`
		INSERT INTO account (`+accountColumns+`)
		VALUES ($1, $2, $3, $4)`,
		string(a.Name), a.Keys[0], a.Keys[1], a.Created.UnixMicro())
	if err != nil {
		return fmt.Errorf("insert account: %w", err)
	}
	return nil
}

// UpdateAccountKeys replaces both keys; whoever replaces one gives the other as
// it is. ErrNotFound if there is no such account.
func (tx *Tx) UpdateAccountKeys(name batch.AccountName, keys [2][]byte) error {
	return tx.changeOne("update account keys", `
		UPDATE account
		SET key1 = $1, key2 = $2
		WHERE name = $3`, keys[0], keys[1], string(name))
}

// DeleteAccount removes the account alone: it is for the caller to see that no
// pool and no job of it is left. ErrNotFound if there is no such account.
func (tx *Tx) DeleteAccount(name batch.AccountName) error {
	return tx.changeOne("delete account", `
		DELETE FROM account
		WHERE name = $1`, string(name))
}

func scanAccount(row scanner) (batch.Account, error) {
	var a batch.Account
	var created int64
	err := row.Scan(&a.Name, &a.Keys[0], &a.Keys[1], &created)
	a.Created = time.UnixMicro(created).UTC()
	return a, err
}
