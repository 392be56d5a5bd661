package hostile_test

import (
	"context"
	"crypto/rand"
	"net/url"
	"os/exec"
	"strings"
	"testing"
)

// schema makes a schema of a test's own in a database and gives the URL that leads to it.
func schema(t *testing.T, database string) string {
	t.Helper()
	name := "hostile_" + strings.ToLower(rand.Text()[:12])
	psql := func(statement string) {
		command := exec.CommandContext(context.WithoutCancel(t.Context()), "psql", "--quiet", "--command", statement, database)
		if text, err := command.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", statement, err, text)
		}
	}
	psql("CREATE SCHEMA " + name)
	t.Cleanup(func() { psql("SET client_min_messages = warning; DROP SCHEMA " + name + " CASCADE") })
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	query := u.Query()
	query.Set("search_path", name)
	u.RawQuery = query.Encode()
	return u.String()
}
