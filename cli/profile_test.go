package cli_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/batchyard/batchyard/auth"
	"github.com/batchyard/batchyard/client"
)

// TestProfilesOfARunningInstallation takes them as docs/performance.md tells to.
func TestProfilesOfARunningInstallation(t *testing.T) {
	t.Parallel()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	debug := listener.Addr().String()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	r, _ := startDev(t, "--nodes", "1", "--debug-listen", debug)
	key, err := auth.ParseKey(r.AccountKey)
	if err != nil {
		t.Fatal(err)
	}
	// Once a task has run there are an agent and a keeper.
	c := &client.Client{Endpoint: r.Endpoint, Account: r.Account, Key: key}
	if err := c.AddJob(t.Context(), "job", "local"); err != nil {
		t.Fatal(err)
	}
	if err := c.AddTask(t.Context(), "job", map[string]any{"id": "task", "commandLine": "/bin/true"}); err != nil {
		t.Fatal(err)
	}
	awaitTask(t, c)

	const path = "/debug/pprof/profile?seconds=1"
	profiles := map[string]string{"server": get(t, http.DefaultClient, "http://"+debug+path)}
	for _, part := range []string{"agent", "keeper"} {
		sockets, err := filepath.Glob(filepath.Join(r.DataDir, "nodes", "*", "state", part+".sock"))
		if err != nil || len(sockets) != 1 {
			t.Fatalf("sockets of the %s: %q, %v", part, sockets, err)
		}
		if part == "keeper" { // whom a signal that is meant for the server does not reach
			terminate(t, filepath.Join(filepath.Dir(sockets[0]), "keeper", "keeper.lock"))
		}
		through := &http.Client{Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				// The whole path is longer than that of a socket may be.
				folder, err := os.Open(filepath.Dir(sockets[0]))
				if err != nil {
					return nil, err
				}
				defer folder.Close()
				path := fmt.Sprintf("/proc/self/fd/%d/%s", folder.Fd(), filepath.Base(sockets[0]))
				return (&net.Dialer{}).DialContext(ctx, "unix", path)
			},
		}}
		profiles[part] = get(t, through, "http://node"+path)
	}
	for part, profile := range profiles {
		if !strings.HasPrefix(profile, "\x1f\x8b") { // compressed
			t.Errorf("the %s answers %.100q", part, profile)
		}
	}
}

// terminate signals the process whose number a lock has.
func terminate(t *testing.T, lock string) {
	t.Helper()
	text, err := os.ReadFile(lock)
	if err != nil {
		t.Fatal(err)
	}
	number, _, _ := strings.Cut(strings.TrimSpace(string(text)), " ")
	pid, err := strconv.Atoi(number)
	if err == nil {
		err = syscall.Kill(pid, syscall.SIGTERM)
	}
	if err != nil {
		t.Fatal(err)
	}
}
