package auth_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/batchyard/batchyard/auth"
)

const zeroMAC = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="

func TestParseHeader(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name, header string
		scheme       auth.Scheme
		account      string
		want         auth.Reason
	}{
		{"Shared Key", "SharedKey devaccount:" + zeroMAC, auth.SharedKey, "devaccount", ""},
		{"Shared Key Lite", "SharedKeyLite devaccount:" + zeroMAC, auth.SharedKeyLite, "devaccount", ""},
		{"the scheme ignores case", "sharedkey DevAccount:" + zeroMAC, auth.SharedKey, "DevAccount", ""},
		{"room around", "  SharedKey   devaccount:" + zeroMAC + " ", auth.SharedKey, "devaccount", ""},
		{"nothing", "", "", "", auth.CredentialMissing},
		{"a bearer token", "Bearer abc", "", "", auth.SchemeUnknown},
		{"a scheme alone", "SharedKey", "", "", auth.HeaderMalformed},
		{"no signature", "SharedKey devaccount", "", "", auth.HeaderMalformed},
		{"no account", "SharedKey :" + zeroMAC, "", "", auth.HeaderMalformed},
		{"an odd account", "SharedKey a/b:" + zeroMAC, "", "", auth.HeaderMalformed},
		{"a long account", "SharedKey " + strings.Repeat("a", 65) + ":" + zeroMAC, "", "", auth.HeaderMalformed},
		{"a short signature", "SharedKey a:AAAA", "", "", auth.HeaderMalformed},
		{"a signature of 33 bytes", "SharedKey a:" + strings.Repeat("A", 44), "", "", auth.HeaderMalformed},
		{"a signature that is not base64", "SharedKey a:*" + zeroMAC[1:], "", "", auth.HeaderMalformed},
		{"a long header", "SharedKey a:" + strings.Repeat("A", 9000), "", "", auth.HeaderMalformed},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got, err := auth.ParseHeader(c.header)
			if c.want != "" {
				if e := wantReason(t, err, c.want); e.Status() != http.StatusUnauthorized {
					t.Errorf("got status %d, want 401", e.Status())
				}
				return
			}
			if err != nil || got.Scheme != c.scheme || got.Account != c.account {
				t.Errorf("got %s %s and error %v", got.Scheme, got.Account, err)
			}
		})
	}
}

func TestUnknownAccountQuotesLittle(t *testing.T) {
	t.Parallel()
	e := auth.UnknownAccount(strings.Repeat("x", 5000))
	if len(e.Message) > 300 || e.Status() != http.StatusForbidden {
		t.Errorf("got status %d and a message of %d bytes", e.Status(), len(e.Message))
	}
}

func FuzzParseHeader(f *testing.F) {
	f.Add("SharedKey devaccount:" + zeroMAC)
	f.Add("SharedKeyLite a-b_C9:" + zeroMAC)
	f.Add("sharedkey  :=:=")
	f.Add("Bearer x.y.z")
	for _, v := range batchVectors {
		f.Add(v.authorization)
	}
	f.Fuzz(func(t *testing.T, header string) {
		c, err := auth.ParseHeader(header)
		if err != nil {
			var e *auth.Error
			if !errors.As(err, &e) || e.Reason == "" || len(e.Message) > 1000 {
				t.Fatalf("%#v", err)
			}
			return
		}
		if c.Account == "" || strings.ContainsAny(c.Account, " :/\n") {
			t.Fatalf("got account %q", c.Account)
		}
		r, err := http.NewRequest("GET", "http://127.0.0.1/pools", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("ocp-date", noon.Format(http.TimeFormat))
		_, err = auth.VerifyBatch(r, c, auth.Keys{auth.NewKey()}, noon)
		wantReason(t, err, auth.SignatureMismatch)
	})
}
