package auth

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"iter"
	"log/slog"
)

const (
	keyBytes    = 64  // what NewKey makes, as the published services do
	minKeyBytes = 16  // shorter ones are refused: an empty key signs nothing
	maxKeyBytes = 256 // longer ones are a mistake in a configuration
)

// Key is an account's shared key, decoded. It does not print itself: only
// [Key.Base64] gives it away.
type Key []byte

// Keys are the two keys of an account. Both are always accepted, so that one
// can be replaced while clients still use the other. A key may be missing.
type Keys [2]Key

// NewKey makes a random key of 64 bytes.
func NewKey() Key {
	k := make(Key, keyBytes)
	rand.Read(k) // never fails since Go 1.24
	return k
}

// ParseKey reads a key as users keep it: standard base64.
func ParseKey(s string) (Key, error) {
	if len(s) > base64.StdEncoding.EncodedLen(maxKeyBytes) {
		return nil, fmt.Errorf("account key is longer than %d bytes", maxKeyBytes)
	}
	k, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		// The decoder's own message would quote a byte of the key.
		return nil, errors.New("account key is not base64")
	}
	if len(k) < minKeyBytes {
		return nil, fmt.Errorf("account key is shorter than %d bytes", minKeyBytes)
	}
	return k, nil
}

// Base64 is the key as users keep it and as [ParseKey] reads it.
func (k Key) Base64() string { return base64.StdEncoding.EncodeToString(k) }

// String hides the key.
func (k Key) String() string { return "[account key]" }

// GoString hides the key.
func (k Key) GoString() string { return k.String() }

// LogValue hides the key.
func (k Key) LogValue() slog.Value { return slog.StringValue(k.String()) }

func (k Key) sign(text string) []byte {
	mac := hmac.New(sha256.New, k)
	mac.Write([]byte(text))
	return mac.Sum(nil)
}

func (k Key) signBase64(text string) (string, error) {
	if len(k) < minKeyBytes {
		return "", fmt.Errorf("sign: account key is shorter than %d bytes", minKeyBytes)
	}
	return base64.StdEncoding.EncodeToString(k.sign(text)), nil
}

// match finds the key that made the signature over one of the candidate texts
// and gives its number, 1 or 2. Each comparison takes constant time; which
// candidate or key fitted is no secret.
func (keys Keys) match(signature []byte, candidates iter.Seq[string]) (int, error) {
	var first string
	for text := range candidates {
		if first == "" {
			first = text
		}
		for i, k := range keys {
			if len(k) >= minKeyBytes && hmac.Equal(signature, k.sign(text)) {
				return i + 1, nil
			}
		}
	}
	e := refuse(SignatureMismatch, "the signature does not match: check the account key, "+
		"and that method, address and headers arrive as they were signed")
	e.StringToSign = first
	return 0, e
}
