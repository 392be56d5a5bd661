package blob

import (
	"net/netip"
	"strings"

	"github.com/batchyard/batchyard/auth"
)

// grant is what the signature of a request allows: everything in the account
// if it was made with Shared Key, else what the SAS says.
type grant struct{ sas *auth.SAS }

// allow fails unless the signature allows one of the permissions in anyOf at a
// level. Whoever has the account's key may do everything.
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
	keys, err := s.keys(c.at.account)
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
	keys, err := s.keys(at.account)
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

// keys are those of an account that is served.
func (s *Server) keys(account string) (auth.Keys, error) {
	keys, ok := s.accounts.get(account)
	if !ok {
		return auth.Keys{}, auth.UnknownAccount(account)
	}
	return keys, nil
}
