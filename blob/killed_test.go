package blob_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/batchyard/batchyard/auth"
	"github.com/batchyard/batchyard/blob"
	"github.com/batchyard/batchyard/store"
	"github.com/batchyard/batchyard/store/storetest"
)

// killedFolder names the environment variable with the data folder of the
// process that is to be killed: the test program itself, run once more.
const killedFolder = "BATCHYARD_TEST_KILLED"

// TestKilled kills a server, as kill -9 does, while clients write, and looks
// with another what has become of the writes that were answered.
func TestKilled(t *testing.T) {
	t.Parallel()
	if folder := os.Getenv(killedFolder); folder != "" {
		serveUntilKilled(t, folder)
		return
	}
	folder := t.TempDir()
	writers := make([]writer, 6)
	for i := range writers {
		writers[i] = writer{name: fmt.Sprintf("/inputs/%d", i), size: []int{100, 20_000, 300_000}[i%3]}
	}
	for range 3 {
		kill := startChild(t, folder, writers)
		answered, ended := make(chan struct{}), make(chan struct{})
		for i := range writers {
			go func() {
				for writers[i].write() {
					answered <- struct{}{}
				}
				ended <- struct{}{}
			}()
		}
		for n, left := 0, len(writers); left > 0; {
			select {
			case <-answered:
				if n++; n == 60 {
					kill()
				}
			case <-ended:
				left--
			}
		}
	}
	e := openFolder(t, folder)
	files := 0
	for _, w := range writers {
		// The last write may have been committed without being answered.
		if got := e.get(t, w.name); got != w.version(w.round) && got != w.version(w.round+1) {
			t.Errorf("%s: %d bytes starting %.20q, want round %d or the next", w.name, len(got), got, w.round)
		}
		if w.size > 8<<10 {
			files++
		}
	}
	e.clock.advance(24 * time.Hour)
	if err := e.server.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := e.files(t); n != files {
		t.Errorf("%d files after the sweep, want %d", n, files)
	}
}

// writer overwrites one blob again and again.
type writer struct {
	name  string
	size  int
	url   string // of the account
	round int    // the last that was answered
}

func (w *writer) version(round int) string {
	return strings.Repeat(fmt.Sprintf("%08d", round), w.size/8)
}

// write writes the next round and reports whether it was answered.
func (w *writer) write() bool {
	key, err := auth.ParseKey(blob.DevKey)
	if err != nil {
		return false
	}
	r, err := http.NewRequest(http.MethodPut, w.url+w.name, strings.NewReader(w.version(w.round+1)))
	if err != nil {
		return false
	}
	r.Header.Set("X-Ms-Version", "2021-12-02")
	r.Header.Set("X-Ms-Blob-Type", "BlockBlob")
	if auth.SignBlob(r, blob.DevAccount, key, time.Now()) != nil {
		return false
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return false
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusCreated {
		return false
	}
	w.round++
	return true
}

// startChild starts the process that is to be killed.
func startChild(t *testing.T, folder string, writers []writer) (kill func()) {
	t.Helper()
	child := exec.Command(os.Args[0], "-test.run=^TestKilled$")
	child.Env = append(os.Environ(), killedFolder+"="+folder)
	child.Stderr = os.Stderr
	input, err := child.StdinPipe() // closed when this process ends, however it does
	if err != nil {
		t.Fatal(err)
	}
	output, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	kill = func() {
		_ = child.Process.Kill()
		_ = child.Wait() // it was killed, which is an error
		_ = input.Close()
	}
	t.Cleanup(kill)
	lines := bufio.NewScanner(output)
	for lines.Scan() {
		if url, ok := strings.CutPrefix(lines.Text(), "serving "); ok {
			for i := range writers {
				writers[i].url = url
			}
			return kill
		}
	}
	t.Fatal("the child has not started")
	return nil
}

// serveUntilKilled is the child.
func serveUntilKilled(t *testing.T, folder string) {
	e := openFolder(t, folder)
	if a := e.do(t, request{method: "PUT", path: "/inputs?restype=container"}); a.status != 201 && a.status != 409 {
		t.Fatal(a)
	}
	fmt.Printf("serving %s\n", e.url)
	_, _ = io.Copy(io.Discard, os.Stdin) // until the parent is gone
}

// openFolder starts an endpoint over a folder that may have been used before.
func openFolder(t *testing.T, folder string) *endpoint {
	t.Helper()
	e := &endpoint{folder: filepath.Join(folder, "content"), clock: &clock{}}
	e.db = storetest.Open(t, store.Options{URL: filepath.Join(folder, "batchyard.db"), Now: e.clock.now})
	disk, err := blob.OpenDisk(e.folder)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = disk.Close() })
	e.serve(t, disk)
	return e
}
