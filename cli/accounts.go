package cli

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/batchyard/batchyard/auth"
	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/blob"
	"github.com/batchyard/batchyard/site"
)

// The accounts of dev are known to everybody; they are therefore served to this
// machine only.
const (
	devAccount = site.DevAccount
	devSecret  = "batchyard-development-key-not-a-secret"
)

// devKey is the key of the development account in base64: 64 bytes.
func devKey() string {
	return base64.StdEncoding.EncodeToString([]byte(devSecret + strings.Repeat("!", 64-len(devSecret))))
}

// account is the domain's form of a configured account.
func (c AccountConfig) account(now time.Time) (batch.Account, error) {
	a := batch.Account{Name: batch.AccountName(c.Name), Created: now}
	if err := a.Validate(); err != nil {
		return a, fmt.Errorf("account %q: %w", c.Name, err)
	}
	if c.Key2 == "" {
		c.Key2 = c.Key1 // an account has two keys; one key is both
	}
	for i, text := range []string{c.Key1, c.Key2} {
		key, err := auth.ParseKey(text)
		if err != nil {
			return a, fmt.Errorf("account %q, key %d: %w", c.Name, i+1, err)
		}
		a.Keys[i] = key
	}
	return a, nil
}

// uniqueNames refuses a second account of one name, whose keys would replace
// those of the first.
func uniqueNames(part string, accounts []AccountConfig) error {
	seen := map[string]bool{}
	for _, a := range accounts {
		if seen[a.Name] {
			return fmt.Errorf("configuration: %s has %q twice", part, a.Name)
		}
		seen[a.Name] = true
	}
	return nil
}

// isPublicKey tells whether everybody knows a key: that of dev, or the one that
// clients mean by UseDevelopmentStorage=true.
func isPublicKey(text string) bool {
	key, err := auth.ParseKey(text)
	if err != nil {
		return false
	}
	return slices.ContainsFunc([]string{devKey(), blob.DevKey}, func(public string) bool {
		known, err := auth.ParseKey(public)
		return err == nil && bytes.Equal(key, known)
	})
}

// publicAccount names an account whose key everybody knows, if there is one.
func (c Config) publicAccount() (name string, found bool) {
	for _, a := range slices.Concat(c.Accounts, c.Storage) {
		if isPublicKey(a.Key1) || isPublicKey(a.Key2) {
			return a.Name, true
		}
	}
	return "", false
}

// refusePublic keeps accounts whose keys everybody knows on this machine.
func (c Config) refusePublic() error {
	name, found := c.publicAccount()
	if !found {
		return nil
	}
	for setting, address := range map[string]string{"listen.api": c.Listen.API, "listen.blob": c.Listen.Blob} {
		if !isLoopback(address) {
			return fmt.Errorf("configuration: account %q has a key that is public knowledge and %s is %s, which others reach; give it a key of its own: openssl rand -base64 64", name, setting, address)
		}
	}
	return nil
}

// keepPublicHere is refusePublic again, by the address that a port really has:
// a name may mean anything.
func (c Config) keepPublicHere(listener net.Listener) error {
	name, found := c.publicAccount()
	address, ok := listener.Addr().(*net.TCPAddr)
	if !found || ok && address.IP.IsLoopback() {
		return nil
	}
	return fmt.Errorf("account %q has a key that is public knowledge, and %s is not on loopback", name, listener.Addr())
}

// provision has the server serve the accounts of the configuration, with the
// keys that they have there, and no others.
func (s *stack) provision(ctx context.Context) error {
	now := time.Now().UTC()
	for _, c := range s.config.Accounts {
		account, err := c.account(now)
		if err != nil {
			return err
		}
		if err := s.control.AddAccount(ctx, account); err != nil {
			return fmt.Errorf("add account %s: %w", c.Name, err)
		}
	}
	for _, c := range s.config.Storage {
		account, err := c.account(now)
		if err != nil {
			return fmt.Errorf("storage %w", err)
		}
		if err := s.blob.Provision(ctx, c.Name, auth.Keys{account.Keys[0], account.Keys[1]}); err != nil {
			return fmt.Errorf("add storage account %s: %w", c.Name, err)
		}
	}
	return s.tellUnserved(ctx)
}

// tellUnserved says which accounts have data here that nobody can reach.
func (s *stack) tellUnserved(ctx context.Context) error {
	accounts, err := s.control.UnservedAccounts(ctx)
	storage, storageErr := s.blob.UnservedAccounts(ctx)
	if err := errors.Join(err, storageErr); err != nil {
		return fmt.Errorf("look for accounts that are not served: %w", err)
	}
	if len(accounts)+len(storage) > 0 {
		s.log.Warn("accounts are not served, because the configuration does not name them; their data stay",
			"accounts", accounts, "storage", storage)
	}
	return nil
}
