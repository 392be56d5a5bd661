package auth

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"strings"
	"time"
)

// DateWindow is how far the date of a signed request may lie from the clock of
// the server, before or after. A captured request is worthless after it.
const DateWindow = 15 * time.Minute

const (
	maxAuthorization = 8 << 10 // bytes of an Authorization header; tokens of other schemes are long
	maxAccount       = 64      // bytes of an account name
)

// Scheme is the first word of an Authorization header.
type Scheme string

// The schemes of [Credential].
const (
	SharedKey     Scheme = "SharedKey"
	SharedKeyLite Scheme = "SharedKeyLite"
)

// Credential is what an Authorization header claims. Nothing of it is true
// before [VerifyBatch] or [VerifyBlob] says so; the account is there to find
// the keys by.
type Credential struct {
	Scheme    Scheme
	Account   string // as sent; account names ignore case
	signature []byte
}

// ParseHeader reads the value of an Authorization header,
// "SharedKey account:signature". The scheme ignores case, as HTTP asks.
func ParseHeader(value string) (Credential, error) {
	if value == "" {
		return Credential{}, refuse(CredentialMissing, "the request has no Authorization header")
	}
	if len(value) > maxAuthorization {
		return Credential{}, refuse(HeaderMalformed, "the Authorization header is longer than %d bytes", maxAuthorization)
	}
	word, rest, _ := strings.Cut(strings.TrimSpace(value), " ")
	scheme, ok := knownScheme(word)
	if !ok {
		return Credential{}, refuse(SchemeUnknown, "authorization scheme %q is not accepted here: use SharedKey", clip(word))
	}
	account, signature, ok := strings.Cut(strings.TrimSpace(rest), ":")
	if !ok || !isAccountName(account) {
		return Credential{}, refuse(HeaderMalformed, "the Authorization header must read %s <account>:<signature>", scheme)
	}
	mac, err := decodeSignature(signature)
	if err != nil {
		return Credential{}, err
	}
	return Credential{Scheme: scheme, Account: account, signature: mac}, nil
}

func knownScheme(word string) (Scheme, bool) {
	for _, s := range []Scheme{SharedKey, SharedKeyLite} {
		if strings.EqualFold(word, string(s)) {
			return s, true
		}
	}
	return "", false
}

// isAccountName is wider than the rule for new accounts, since what fails here
// is called malformed; whether the account exists is asked later.
func isAccountName(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_') {
			return false
		}
	}
	return s != "" && len(s) <= maxAccount
}

func decodeSignature(s string) ([]byte, error) {
	const want = sha256.Size
	if len(s) != base64.StdEncoding.EncodedLen(want) {
		return nil, refuse(HeaderMalformed, "the signature must be the base64 of %d bytes", want)
	}
	mac, err := base64.StdEncoding.DecodeString(s)
	if err != nil || len(mac) != want {
		return nil, refuse(HeaderMalformed, "the signature must be the base64 of %d bytes", want)
	}
	return mac, nil
}

// checkDate finds the time at which the request says it was made and holds it
// against now. The protocol's own header wins over Date.
func checkDate(h http.Header, own string, now time.Time) error {
	name, value := own, h.Get(own)
	if value == "" {
		name, value = "Date", h.Get("Date")
	}
	if value == "" {
		return refuse(DateMissing, "the request has neither the header %s nor Date", own)
	}
	made, err := http.ParseTime(value)
	if err != nil {
		return refuse(DateMalformed, "the header %s must be a date like %q, not %q", name, http.TimeFormat, clip(value))
	}
	skew := now.Sub(made)
	if skew.Abs() <= DateWindow {
		return nil
	}
	side := "behind"
	if skew < 0 {
		side = "ahead of"
	}
	return refuse(DateOutOfWindow, "the request says it was made at %s, which is %s %s the clock of this server (%s); "+
		"at most %s is allowed: check the clock of the client", made.UTC().Format(time.RFC3339),
		skew.Abs().Round(time.Second), side, now.UTC().Format(time.RFC3339), DateWindow)
}
