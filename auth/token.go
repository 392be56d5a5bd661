package auth

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"net/http"
	"strings"
)

// tokenPrefix marks our tokens, so that a scanner for leaked secrets can find
// them and a person can tell them from other text.
const tokenPrefix = "byt_"

const maxToken = 256 // bytes

// NewToken makes a secret for a compute node, or for whoever else speaks for
// itself alone. It has 256 bits of randomness, letters and digits only.
func NewToken() string {
	return tokenPrefix + rand.Text() + rand.Text()
}

// HashToken gives what may be stored of a token: 64 hexadecimal digits. The
// plain hash is enough because a token is random; it must not be used for
// passwords.
func HashToken(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

// CheckToken reports whether the hash is that of the token, in constant time.
// No token fits an empty hash.
func CheckToken(token, hash string) bool {
	if len(token) > maxToken {
		return false
	}
	return subtle.ConstantTimeCompare([]byte(HashToken(token)), []byte(hash)) == 1
}

// BearerToken takes the token out of "Authorization: Bearer <token>".
// It does not check it.
func BearerToken(h http.Header) (string, error) {
	value := h.Get("Authorization")
	if value == "" {
		return "", refuse(CredentialMissing, "the request has no Authorization header")
	}
	if len(value) > maxAuthorization {
		return "", refuse(HeaderMalformed, "the Authorization header is longer than %d bytes", maxAuthorization)
	}
	word, token, _ := strings.Cut(value, " ")
	if !strings.EqualFold(word, "Bearer") {
		return "", refuse(SchemeUnknown, "authorization scheme %q is not accepted here: use Bearer", clip(word))
	}
	token = strings.TrimSpace(token)
	if token == "" || len(token) > maxToken {
		return "", refuse(HeaderMalformed, "the bearer token is empty or longer than %d bytes", maxToken)
	}
	return token, nil
}

// BadToken is the refusal for a token that [CheckToken] did not accept.
func BadToken() *Error {
	return refuse(TokenInvalid, "the bearer token is not valid here: it may have been replaced or revoked")
}
