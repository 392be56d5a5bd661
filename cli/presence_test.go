package cli_test

import (
	"context"
	"database/sql"
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/batchyard/batchyard/auth"
	"github.com/batchyard/batchyard/client"
	"github.com/batchyard/batchyard/store/storetest"
)

// takeover is how long after the death of a server its successor does all of its
// work, at most.
const takeover = 5 * time.Second

// On one PostgreSQL there is one server: another is refused, and one that is
// started after it was killed does its work at once.
func TestOneServerOnOnePostgreSQL(t *testing.T) {
	t.Parallel()
	database := storetest.PostgreSQL(t)
	key := auth.NewKey()
	config := fmt.Sprintf("database = %q\nnodes = {max = 0}\n%s", database, accountsOf(map[string]auth.Key{"acme": key}, nil))
	folder := dataFolder(t)
	first := startServer(t, folder, config).await()

	if said := startServer(t, dataFolder(t), config).refused(); !strings.Contains(said, "in use by another server: one at ") {
		t.Errorf("a second server on the database says:\n%s", said)
	}
	if said := startServer(t, folder, config).refused(); !strings.Contains(said, "locked by process") {
		t.Errorf("a second server on the folder says:\n%s", said)
	}
	if _, err := first.account("acme", key).Call(t.Context(), http.MethodGet, "/jobs", nil, nil, nil); err != nil {
		t.Errorf("the first server, beside them: %v", err)
	}

	_ = first.stop(syscall.SIGKILL)
	died := time.Now()
	next := startServer(t, folder, config).await()
	c := next.account("acme", key)
	pool := map[string]any{
		"id": "pool", "vmSize": "custom_1c_1g", "targetDedicatedNodes": 1,
		"virtualMachineConfiguration": map[string]any{
			"nodeAgentSKUId": "batch.node.debian 12", "imageReference": map[string]any{"publisher": "debian", "offer": "debian-12", "sku": "12"},
		},
	}
	if _, err := c.Call(t.Context(), http.MethodPost, "/pools", nil, pool, nil); err != nil {
		t.Fatal(err)
	}
	// That a node is made is the work of a duty, which one server has.
	ctx, cancel := context.WithTimeout(t.Context(), 2*takeover)
	defer cancel()
	err := client.WaitFor(ctx, func(ctx context.Context) (bool, error) {
		var nodes struct {
			Value []struct{} `json:"value"`
		}
		_, err := c.Call(ctx, http.MethodGet, "/pools/pool/nodes", nil, nil, &nodes)
		return len(nodes.Value) == 1, err
	})
	if err != nil {
		_ = next.stop(syscall.SIGTERM)
		t.Fatalf("no node is made: %v\n%s", err, next.text())
	}
	if took := time.Since(died); took > takeover {
		t.Errorf("the successor works after %s", took)
	}
}

// A server whose database was taken over ends, and says why.
func TestAServerThatLostItsDatabaseEnds(t *testing.T) {
	t.Parallel()
	database := storetest.PostgreSQL(t)
	key := auth.NewKey()
	config := fmt.Sprintf("database = %q\n%s", database, accountsOf(map[string]auth.Key{"acme": key}, nil))
	s := startServer(t, dataFolder(t), config).await()
	takeAway(t, database)
	// Its next write finds out.
	_, err := s.account("acme", key).Call(t.Context(), http.MethodPost, "/pools", nil, map[string]any{
		"id": "pool", "vmSize": "custom_1c_1g",
		"virtualMachineConfiguration": map[string]any{
			"nodeAgentSKUId": "batch.node.debian 12", "imageReference": map[string]any{"publisher": "debian", "offer": "debian-12", "sku": "12"},
		},
	}, nil)
	if err == nil {
		t.Error("a write is accepted after the database was taken over")
	}
	<-s.ended
	if s.err == nil || !strings.Contains(s.text(), "taken over by another server") {
		t.Errorf("the server ends with %v:\n%s", s.err, s.text())
	}
}

// takeAway names another server as the one that has a database, and ends all
// other connections to it.
func takeAway(t *testing.T, database string) {
	t.Helper()
	db, err := sql.Open("pgx", database)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	for _, statement := range []string{
		`UPDATE lease SET holder = 'another' WHERE name = 'server'`,
		`SELECT pg_terminate_backend(l.pid, 5000) FROM pg_locks AS l
			WHERE l.locktype = 'advisory' AND l.granted AND ((l.classid::bigint << 32) | l.objid::bigint) = hashtextextended('batchyard server ' || current_schema(), 0)`,
	} {
		if _, err := db.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
}
