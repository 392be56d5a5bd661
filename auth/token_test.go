package auth_test

import (
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/batchyard/batchyard/auth"
)

func TestTokens(t *testing.T) {
	t.Parallel()
	token, other := auth.NewToken(), auth.NewToken()
	if token == other || len(token) < 40 {
		t.Fatalf("got tokens %q and %q", token, other)
	}
	hash := auth.HashToken(token)
	if !auth.CheckToken(token, hash) {
		t.Error("a token does not fit its own hash")
	}
	for name, wrong := range map[string]string{
		"another": other, "none": "", "a longer one": token + "x", "the hash": hash, "an endless one": strings.Repeat("x", 1<<20),
	} {
		if auth.CheckToken(wrong, hash) {
			t.Errorf("%s token is accepted", name)
		}
	}
	if auth.CheckToken("", "") || auth.CheckToken(token, "") {
		t.Error("an empty hash is fitted")
	}
}

func TestBearerToken(t *testing.T) {
	t.Parallel()
	header := func(v string) http.Header { return http.Header{"Authorization": {v}} }
	got, err := auth.BearerToken(header("bearer byt_X"))
	if err != nil || got != "byt_X" {
		t.Errorf("got %q and error %v", got, err)
	}
	for value, want := range map[string]auth.Reason{
		"":                                    auth.CredentialMissing,
		"SharedKey a:b":                       auth.SchemeUnknown,
		"Bearer ":                             auth.HeaderMalformed,
		"Bearer " + strings.Repeat("x", 300):  auth.HeaderMalformed,
		"Bearer " + strings.Repeat("x", 9000): auth.HeaderMalformed,
	} {
		_, err := auth.BearerToken(header(value))
		wantReason(t, err, want)
	}
	if e := auth.BadToken(); e.Status() != http.StatusUnauthorized {
		t.Errorf("got status %d, want 401", e.Status())
	}
}

func TestKeys(t *testing.T) {
	t.Parallel()
	key := auth.NewKey()
	if len(key) != 64 {
		t.Errorf("got a key of %d bytes, want 64", len(key))
	}
	back, err := auth.ParseKey(key.Base64())
	if err != nil || string(back) != string(key) {
		t.Errorf("got another key back, error %v", err)
	}
	for name, s := range map[string]string{"empty": "", "short": "AAAA", "not base64": key.Base64() + "*", "long": strings.Repeat("AAAA", 200)} {
		if _, err := auth.ParseKey(s); err == nil {
			t.Errorf("a key that is %s is accepted", name)
		} else if len(s) > 10 && strings.Contains(err.Error(), s[:10]) {
			t.Errorf("the error quotes the key: %v", err)
		}
	}
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "key", key)
	hex, decimal := fmt.Sprintf("%x", string(key))[:8], fmt.Sprintf("%d %d %d", key[0], key[1], key[2])
	for _, shown := range []string{fmt.Sprint(key), fmt.Sprintf("%v %+v %#v %s %x", key, key, key, key, key), fmt.Sprint(auth.Keys{key}), log.String()} {
		if strings.Contains(shown, key.Base64()[:8]) || strings.Contains(shown, hex) || strings.Contains(shown, decimal) {
			t.Errorf("the key is shown: %s", shown)
		}
	}
}
