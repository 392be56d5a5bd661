package nodelogs_test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/batchyard/batchyard/e2e/nodelogs"
)

// TestWatch has a node begin, panic and go, and wants to be told.
func TestWatch(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		log, text string
		want      int
	}{
		"an agent that ends by a panic":  {"state/agent.log", "level=INFO msg=x\npanic: boom\n\ngoroutine 7 [running]:\nmain.main()\n", 1},
		"one that catches it":            {"state/agent.log", `level=ERROR msg="request panicked" panic=boom` + "\n", 1},
		"a keeper with a fault":          {"state/keeper/keeper.log", "fatal error: all goroutines are asleep\n", 1},
		"a race":                         {"state/keeper/keeper.log", "WARNING: DATA RACE\n", 1},
		"a log that is long and healthy": {"state/agent.log", strings.Repeat("level=WARN msg=\"server not reached\"\n", 1000), 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			data := filepath.Join(t.TempDir(), "data")
			w, err := nodelogs.Begin(data)
			check(t, err)
			node := filepath.Join(data, "nodes", "tvm-1")
			file := filepath.Join(node, c.log)
			check(t, os.MkdirAll(filepath.Dir(file), 0o700))
			log, err := os.Create(file)
			check(t, err)
			awaitLinks(t, log)
			check(t, os.RemoveAll(node))
			_, err = log.WriteString(c.text)
			check(t, err)
			check(t, log.Close())
			seen, found, err := w.End()
			check(t, err)
			if seen != 1 || len(found) != c.want {
				t.Errorf("%d logs seen, found %q", seen, found)
			}
		})
	}
}

// awaitLinks waits until the log has a second name.
func awaitLinks(t *testing.T, log *os.File) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if names(t, log) > 1 {
			return
		}
	}
	t.Fatal("the log is not kept")
}

// names is how many names a file has.
func names(t *testing.T, file *os.File) uint64 {
	t.Helper()
	info, err := file.Stat()
	check(t, err)
	return uint64(info.Sys().(*syscall.Stat_t).Nlink) //nolint:unconvert // it has 32 bits on some systems
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
