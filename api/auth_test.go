package api_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/batchyard/batchyard/auth"
)

func TestSignatures(t *testing.T) {
	t.Parallel()
	e := newEdge(t)
	sign := func(t *testing.T, r *http.Request) {
		t.Helper()
		if err := auth.SignBatch(r, string(e.account), e.key, e.now()); err != nil {
			t.Fatal(err)
		}
	}
	for name, tc := range map[string]struct {
		spoil  func(*testing.T, *http.Request)
		status int
		code   string
	}{
		"a request without a signature": {func(*testing.T, *http.Request) {}, 401, "InvalidAuthenticationInfo"},
		"a bearer token": {func(_ *testing.T, r *http.Request) {
			r.Header.Set("Authorization", "Bearer abc")
		}, 401, "InvalidAuthenticationInfo"},
		"a header that does not parse": {func(_ *testing.T, r *http.Request) {
			r.Header.Set("Authorization", "SharedKey test")
		}, 401, "InvalidAuthenticationInfo"},
		"an account that is not here": {func(t *testing.T, r *http.Request) {
			if err := auth.SignBatch(r, "stranger", auth.NewKey(), e.now()); err != nil {
				t.Fatal(err)
			}
		}, 403, "AuthenticationFailed"},
		"the key of somebody else": {func(t *testing.T, r *http.Request) {
			if err := auth.SignBatch(r, string(e.account), auth.NewKey(), e.now()); err != nil {
				t.Fatal(err)
			}
		}, 403, "AuthenticationFailed"},
		"a query that was changed": {func(t *testing.T, r *http.Request) {
			sign(t, r)
			r.URL.RawQuery += "&maxresults=1"
		}, 403, "AuthenticationFailed"},
		"an old request": {func(t *testing.T, r *http.Request) {
			if err := auth.SignBatch(r, string(e.account), e.key, e.now().Add(-time.Hour)); err != nil {
				t.Fatal(err)
			}
		}, 403, "AuthenticationFailed"},
	} {
		t.Run(name+" is refused", func(t *testing.T) {
			t.Parallel()
			r := e.request(t, "GET", "/pools", newest, "")
			tc.spoil(t, r)
			a := send(t, r)
			if diff := cmp.Diff([]any{a.status, a.code(t)}, []any{tc.status, tc.code}); diff != "" {
				t.Error(diff)
			}
			if a.detail(t, "AuthenticationErrorDetail") == "" {
				t.Errorf("no detail says why: %s", a.body)
			}
			if challenge := a.header.Get("WWW-Authenticate"); (challenge != "") != (tc.status == 401) {
				t.Errorf("WWW-Authenticate is %q with status %d", challenge, a.status)
			}
		})
	}

	t.Run("Shared Key Lite and an account name in capitals are accepted", func(t *testing.T) {
		t.Parallel()
		r := e.request(t, "GET", "/pools", newest, "")
		if err := auth.SignBatchLite(r, strings.ToUpper(string(e.account)), e.key, e.now()); err != nil {
			t.Fatal(err)
		}
		if a := send(t, r); a.status != 200 {
			t.Errorf("status %d: %s", a.status, a.body)
		}
	})

	t.Run("a body is not read before its sender is known", func(t *testing.T) {
		t.Parallel()
		r := e.request(t, "POST", "/pools", newest, "not JSON")
		if a := send(t, r); a.status != 401 {
			t.Errorf("status %d, want 401", a.status)
		}
	})
}

func TestAccounts(t *testing.T) {
	t.Parallel()
	e := withTask(t)
	other := *e
	other.account = "other"
	other.key = e.addAccount(t, other.account)

	if items := other.must(t, 200, "GET", "/pools", newest, "").items(t); len(items) != 0 {
		t.Errorf("an account sees %d pools of another", len(items))
	}
	other.must(t, 404, "GET", "/pools/p", newest, "")
	other.must(t, 404, "GET", "/jobs/j/tasks/t", newest, "")
	other.must(t, 201, "POST", "/pools", newest, linuxPool)
	other.must(t, 202, "DELETE", "/pools/p", newest, "")
	e.must(t, 200, "GET", "/pools/p", newest, "")
}
