package e2e_test

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// TestServerOnPostgres walks as TestPython15 does, on a server for real: HTTPS only, accounts of
// its configuration, PostgreSQL below it.
func TestServerOnPostgres(t *testing.T) {
	t.Parallel()
	database := os.Getenv("BATCHYARD_TEST_POSTGRES")
	if database == "" {
		t.Skip("BATCHYARD_TEST_POSTGRES names no database; make test-e2e starts one")
	}
	s := startProduction(t, database)
	runProgram(t, s, s.Endpoint, "postgres", python("15"), "walks/python/walk15.py")
}

// startProduction starts `batchyard server` and stops it with the test.
func startProduction(t *testing.T, database string) *server {
	t.Helper()
	s, err := newServer()
	if err != nil {
		t.Fatal(err)
	}
	s.ready = ready{
		Account: "acme", AccountKey: newKey(), StorageAccount: "acmestore", StorageKey: newKey(),
		DataDir: filepath.Join(s.folder, "data"),
	}
	config := filepath.Join(s.folder, "server.toml")
	text := fmt.Sprintf(`
		data = %q
		database = %q
		listen = {api = "127.0.0.1:0", blob = "127.0.0.1:0"}
		log = {format = "json"}
		nodes = {lease = "10s"}
		[[accounts]]
		name = %q
		key1 = %q
		[[storage]]
		name = %q
		key1 = %q
		`, s.DataDir, database, s.Account, s.AccountKey, s.StorageAccount, s.StorageKey)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	stdout, stderr, err := s.start("server", "--config", config)
	if err != nil {
		t.Fatal(err)
	}
	go io.Copy(io.Discard, stdout)
	t.Cleanup(func() {
		if err := s.stop(); err != nil {
			t.Errorf("stop the server: %v\n%s", err, s.tail())
		}
	})
	if err := s.awaitLog(stderr); err != nil {
		t.Fatalf("%v\n%s", err, s.tail())
	}
	return s
}

// awaitLog reads the addresses from the log's entry that says the server is ready.
func (s *server) awaitLog(log io.Reader) error {
	var entry struct{ Msg, API, Storage, Authority string }
	_, err := firstLine(log, func(line string) bool {
		return json.Unmarshal([]byte(line), &entry) == nil && entry.Msg == "server ready"
	})
	s.Endpoint, s.CAFile = entry.API, entry.Authority
	s.BlobEndpoint = "https://" + entry.Storage + "/" + s.StorageAccount
	return err
}

func newKey() string {
	key := make([]byte, 64)
	rand.Read(key)
	return base64.StdEncoding.EncodeToString(key)
}
