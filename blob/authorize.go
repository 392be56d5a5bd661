package blob

import (
	"context"
	"errors"
	"net/netip"
	"strings"

	"github.com/batchyard/batchyard/auth"
	"github.com/batchyard/batchyard/store"
)

// grant is what the signature of a request allows: everything in the account
// if it was made with Shared Key, else what the SAS says.
type grant struct{ sas *auth.SAS }

func (g grant) allow(level auth.Level, anyOf string) error {
	if g.sas == nil {
		return nil
	}
	return g.sas.Allow(level, anyOf)
}

// owner reports whether the request speaks for the account itself.
func (g grant) owner() bool { return g.sas == nil }

// authenticate verifies the signature of a request: an Authorization header, or
// else a SAS in the query. There is no anonymous access.
func (s *Server) authenticate(c *call) (grant, error) {
	header := c.r.Header.Get("Authorization")
	if header == "" && auth.HasSAS(c.r.URL.RawQuery) {
		return s.verifySAS(c, c.at, c.r.URL.RawQuery)
	}
	credential, err := auth.ParseHeader(header)
	if err != nil {
		return grant{}, err
	}
	if !strings.EqualFold(credential.Account, c.at.account) {
		return grant{}, refuse(authenticationFailed, "The request is signed for the account %q and its address names %q.",
			clip(credential.Account), c.at.account)
	}
	keys, err := s.keys(c.r.Context(), c.at.account)
	if err != nil {
		return grant{}, err
	}
	_, err = auth.VerifyBlob(c.r, credential, keys, c.now)
	return grant{}, err
}

// verifySAS verifies the SAS in a query for a place: that of the request or
// that of the source of a copy.
func (s *Server) verifySAS(c *call, at place, query string) (grant, error) {
	sas, err := auth.ParseSAS(query)
	if err != nil {
		return grant{}, err
	}
	keys, err := s.keys(c.r.Context(), at.account)
	if err != nil {
		return grant{}, err
	}
	remote, _ := netip.ParseAddrPort(c.r.RemoteAddr) // what does not parse is in no range
	_, err = sas.Verify(keys, auth.SASRequest{
		Target: at.target(),
		Remote: remote.Addr(),
		HTTPS:  c.r.TLS != nil,
		Now:    c.now,
	})
	return grant{sas: &sas}, err
}

// keys looks the keys of an account up.
func (s *Server) keys(ctx context.Context, account string) (auth.Keys, error) {
	var a store.StorageAccount
	err := s.db.View(ctx, func(tx *store.Tx) (err error) {
		a, err = tx.StorageAccount(account)
		return err
	})
	if errors.Is(err, store.ErrNotFound) {
		return auth.Keys{}, auth.UnknownAccount(account)
	}
	return a.Keys, err
}
