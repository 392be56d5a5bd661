package auth_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/batchyard/batchyard/auth"
)

// FuzzSignature signs requests as a client does, in both forms and for both endpoints, and has them
// verified as a server does. What was signed is accepted, with another key or another address it is
// not, and nothing that was sent stops the verifier.
func FuzzSignature(f *testing.F) {
	f.Add("GET", "/pools", "api-version=2025-06-01&$filter=id%20eq%20'a'", "ocp-a", "b", "", int64(0))
	f.Add("POST", "/jobs/j/tasks", "timeout=30&TIMEOUT=&maxresults=5&maxresults=6", "If-Match", "*", "application/json", int64(17))
	f.Add("PUT", "/acmestore/box/a%2Fb", "comp=block&blockid=QUFB", "x-ms-blob-type", "BlockBlob", "", int64(5))
	f.Add("HEAD", "//../%2e%2e/", "a&b=&=c&%zz&;", "X-Ms-A_b-c", "", "", int64(-1))
	f.Add("GET", "/", "resize", "x-ms-meta-a", "line\r\nline", "", int64(0))
	f.Fuzz(func(t *testing.T, method, path, query, header, value, contentType string, length int64) {
		make := func(query string) *http.Request {
			u, err := url.ParseRequestURI("http://127.0.0.1" + path + "?" + query)
			if err != nil || len(method) > 20 {
				t.Skip()
			}
			r := &http.Request{Method: method, URL: u, Header: http.Header{"Content-Type": {contentType}}, ContentLength: length}
			r.Header.Set(header, value)
			for _, date := range []string{"Date", "Ocp-Date", "X-Ms-Date", "Authorization", "Content-Length"} {
				r.Header.Del(date)
			}
			return r
		}
		for name, sign := range forms() {
			r := make(query)
			key := auth.Key(strings.Repeat("k", 64))
			if err := sign.sign(r, key); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			credential, err := auth.ParseHeader(r.Header.Get("Authorization"))
			if err != nil {
				t.Fatalf("%s: what was signed is malformed: %v", name, err)
			}
			switch n, err := sign.verify(r, credential, auth.Keys{auth.NewKey(), key}); {
			case isLong(err):
				return
			case err != nil || n != 2:
				t.Fatalf("%s: what was signed is refused: %v", name, err)
			}
			if _, err := sign.verify(r, credential, auth.Keys{auth.NewKey(), auth.NewKey()}); err == nil {
				t.Fatalf("%s: another key made the signature", name)
			}
			other := make(query)
			other.Header = r.Header
			other.URL.Path, other.URL.RawPath = r.URL.Path+"x", ""
			if _, err := sign.verify(other, credential, auth.Keys{key, key}); err == nil && other.URL.EscapedPath() != r.URL.EscapedPath() {
				t.Fatalf("%s: the signature is good for another address too", name)
			}
		}
	})
}

// form is one form of signatures.
type form struct {
	sign   func(*http.Request, auth.Key) error
	verify func(*http.Request, auth.Credential, auth.Keys) (int, error)
}

func forms() map[string]form {
	batch := func(r *http.Request, c auth.Credential, k auth.Keys) (int, error) {
		return auth.VerifyBatch(r, c, k, noon)
	}
	blob := func(r *http.Request, c auth.Credential, k auth.Keys) (int, error) {
		return auth.VerifyBlob(r, c, k, noon)
	}
	return map[string]form{
		"Batch":      {func(r *http.Request, k auth.Key) error { return auth.SignBatch(r, "acme", k, noon) }, batch},
		"Batch Lite": {func(r *http.Request, k auth.Key) error { return auth.SignBatchLite(r, "acme", k, noon) }, batch},
		"Blob":       {func(r *http.Request, k auth.Key) error { return auth.SignBlob(r, "acme", k, noon) }, blob},
		"Blob Lite":  {func(r *http.Request, k auth.Key) error { return auth.SignBlobLite(r, "acme", k, noon) }, blob},
	}
}

// isLong tells that a request is too long to be looked at.
func isLong(err error) bool {
	return err != nil && strings.Contains(err.Error(), "longer than")
}
