package cli_test

import (
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/batchyard/batchyard/auth"
	"github.com/batchyard/batchyard/batch"
)

// listContainers asks for the containers of a storage account and gives the
// status of the answer.
func (p *process) listContainers(name string, key auth.Key) int {
	p.t.Helper()
	request, err := http.NewRequestWithContext(p.t.Context(), http.MethodGet, p.Storage+"/"+name+"?comp=list", nil)
	if err != nil {
		p.t.Fatal(err)
	}
	if err := auth.SignBlob(request, name, key, time.Now()); err != nil {
		p.t.Fatal(err)
	}
	response, err := p.caller().Do(request)
	if err != nil {
		p.t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	return response.StatusCode
}

// An account that was taken out of the configuration is refused with the key
// that it had, its data stay, and the server says so.
func TestServerServesTheAccountsItIsToldAndNoOthers(t *testing.T) {
	t.Parallel()
	folder := dataFolder(t)
	stays, goes := auth.NewKey(), auth.NewKey()
	both := accountsOf(map[string]auth.Key{"stays": stays, "goes": goes}, map[string]auth.Key{"staysstore": stays, "goesstore": goes})
	one := accountsOf(map[string]auth.Key{"stays": stays}, map[string]auth.Key{"staysstore": stays})

	s := startServer(t, folder, both).await()
	if _, err := s.account("goes", goes).Call(t.Context(), http.MethodGet, "/jobs", nil, nil, nil); err != nil {
		t.Fatalf("an account that the server is told to serve gets %v", err)
	}
	if status := s.listContainers("goesstore", goes); status != http.StatusOK {
		t.Fatalf("storage answers %d to an account that it is told to serve", status)
	}
	if err := s.stop(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}

	s = startServer(t, folder, one).await()
	if _, err := s.account("stays", stays).Call(t.Context(), http.MethodGet, "/jobs", nil, nil, nil); err != nil {
		t.Errorf("the account that stays is refused: %v", err)
	}
	_, err := s.account("goes", goes).Call(t.Context(), http.MethodGet, "/jobs", nil, nil, nil)
	if batch.CodeOf(err) != batch.CodeAuthenticationFailed {
		t.Errorf("the account that went gets %v, want AuthenticationFailed", err)
	}
	if status := s.listContainers("staysstore", stays); status != http.StatusOK {
		t.Errorf("storage answers %d to the account that stays", status)
	}
	if status := s.listContainers("goesstore", goes); status != http.StatusForbidden {
		t.Errorf("storage answers %d to the account that went, want 403", status)
	}
	if err := s.stop(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if said := s.text(); !strings.Contains(said, `not served`) || !strings.Contains(said, `"accounts":["goes"],"storage":["goesstore"]`) {
		t.Errorf("the log does not say which accounts are not served:\n%s", said)
	}

	s = startServer(t, folder, both).await()
	if _, err := s.account("goes", goes).Call(t.Context(), http.MethodGet, "/jobs", nil, nil, nil); err != nil {
		t.Errorf("an account that came back is refused: %v", err)
	}
}

// The data of dev, whose keys everybody knows, are not opened by a server, nor
// those of a server by dev.
func TestDevAndServerRefuseEachOthersFolders(t *testing.T) {
	t.Parallel()
	config := accountsOf(map[string]auth.Key{"acme": auth.NewKey()}, nil)

	devs := dataFolder(t)
	dev := startProcess(t, "dev", "--data", devs, "--listen", "127.0.0.1:0", "--blob-listen", "127.0.0.1:0", "--nodes", "0", "--log-level", "info")
	dev.awaitDev()
	if err := dev.stop(syscall.SIGTERM); err != nil {
		t.Fatalf("dev ends with %v:\n%s", err, dev.text())
	}
	if said := startServer(t, devs, config).refused(); !strings.Contains(said, "keys everybody knows; use another folder") {
		t.Errorf("a server on the data of dev says:\n%s", said)
	}

	servers := dataFolder(t)
	if err := startServer(t, servers, config).await().stop(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	dev = startProcess(t, "dev", "--data", servers, "--listen", "127.0.0.1:0", "--blob-listen", "127.0.0.1:0", "--nodes", "0")
	if said := dev.refused(); !strings.Contains(said, "it has the data of 'batchyard server'; use another folder") {
		t.Errorf("dev on the data of a server says:\n%s", said)
	}
}
