package portal_test

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/control"
	"github.com/batchyard/batchyard/portal"
	"github.com/batchyard/batchyard/store"
)

const account = batch.AccountName("acme")

func noon() time.Time { return time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC) }

// show is the page of a server with a pool and 21 jobs.
func show(t *testing.T, public batch.AccountName, closed bool) (*httptest.ResponseRecorder, string) {
	t.Helper()
	db, err := store.Open(t.Context(), store.Options{URL: filepath.Join(t.TempDir(), "batchyard.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	verbs := control.New(control.Options{DB: db})
	if err := verbs.AddAccount(t.Context(), batch.Account{Name: account, Keys: [2][]byte{{1}, {2}}}); err != nil {
		t.Fatal(err)
	}
	fill(t, verbs)
	if closed {
		_ = db.Close()
	}
	page := portal.Page{Options: portal.Options{
		Control: verbs, Log: slog.New(slog.DiscardHandler), Version: "v1", Oldest: "2015-06-01.2.0", Newest: "2025-06-01",
		Endpoint: "https://batch.example", Account: public, Now: noon,
	}}
	w := httptest.NewRecorder()
	page.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil))
	return w, w.Body.String()
}

func fill(t *testing.T, verbs *control.Service) {
	t.Helper()
	pool := batch.PoolSpecification{
		ID: "render", VMSize: "custom_1c_1g", TargetDedicatedNodes: 3,
		VirtualMachineConfiguration: &batch.VirtualMachineConfiguration{
			NodeAgentSKUID: "batch.node.ubuntu 22.04",
			ImageReference: batch.ImageReference{Publisher: "canonical", Offer: "0001-com-ubuntu-server-jammy", SKU: "22_04-lts"},
		},
	}
	if _, err := verbs.AddPool(t.Context(), account, pool); err != nil {
		t.Fatal(err)
	}
	for i := range 21 {
		id := batch.JobID("job-" + string(rune('a'+i)))
		if _, err := verbs.AddJob(t.Context(), account, batch.JobSpecification{ID: id, PoolInfo: batch.PoolInfo{PoolID: "render"}}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestPage(t *testing.T) {
	t.Parallel()
	t.Run("of a public account shows pools and the newest jobs", func(t *testing.T) {
		t.Parallel()
		w, body := show(t, account, false)
		for _, want := range []string{"https://batch.example", "2015-06-01.2.0 to 2025-06-01", ">render<", "0 of 3", ">job-u<", "the newest 20"} {
			if !strings.Contains(body, want) {
				t.Errorf("the page has no %q", want)
			}
		}
		if strings.Contains(body, ">job-a<") || strings.Contains(body, "<script") {
			t.Error("the page shows the oldest of 21 jobs, or has a script")
		}
		if policy := w.Header().Get("Content-Security-Policy"); !strings.Contains(policy, "default-src 'none'") || !strings.Contains(policy, "frame-ancestors 'none'") {
			t.Errorf("the policy is %q", policy)
		}
	})
	t.Run("of any other server shows nothing of an account", func(t *testing.T) {
		t.Parallel()
		_, body := show(t, "", false)
		for _, secret := range []string{"render", "job-u", "acme"} {
			if strings.Contains(body, secret) {
				t.Errorf("the page shows %q to everybody", secret)
			}
		}
		if !strings.Contains(body, "sign their requests") {
			t.Error("the page does not say how to see more")
		}
	})
	t.Run("says so when the database does not answer", func(t *testing.T) {
		t.Parallel()
		w, body := show(t, account, true)
		if w.Code != http.StatusOK || !strings.Contains(body, "The database does not answer now") {
			t.Errorf("%d: %s", w.Code, body)
		}
	})
}

func TestIsFor(t *testing.T) {
	t.Parallel()
	ask := func(method, path string, header ...string) *http.Request {
		r := httptest.NewRequestWithContext(context.Background(), method, path, nil)
		for i := 0; i < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		return r
	}
	const browser = "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"
	for name, c := range map[string]struct {
		request *http.Request
		want    bool
	}{
		"a browser at the root":  {ask("GET", "/", "Accept", browser), true},
		"a browser at a pool":    {ask("GET", "/pools/p", "Accept", browser), false},
		"a client of the API":    {ask("GET", "/", "Accept", "application/json"), false},
		"a signed request":       {ask("GET", "/", "Accept", browser, "Authorization", "SharedKey a:b"), false},
		"a form that is sent":    {ask("POST", "/", "Accept", browser), false},
		"one that says nothing":  {ask("GET", "/"), false},
		"a browser that listens": {ask("HEAD", "/", "Accept", browser), true},
	} {
		if got := portal.IsFor(c.request); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
