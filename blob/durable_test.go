package blob_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob"

	"github.com/batchyard/batchyard/blob"
	"github.com/batchyard/batchyard/store"
	"github.com/batchyard/batchyard/store/storetest"
)

func TestReadersKeepTheOldContent(t *testing.T) {
	t.Parallel()
	// More than the buffers of a connection hold, so that most of it is read
	// after the change.
	old := pattern(40 << 20)
	for name, change := range map[string]func(context.Context, *azblob.Client) error{
		"while the blob is replaced": func(ctx context.Context, client *azblob.Client) error {
			_, err := client.UploadBuffer(ctx, "inputs", "blob", pattern(100_000)[1:], nil)
			return err
		},
		"while the blob is deleted": func(ctx context.Context, client *azblob.Client) error {
			_, err := client.DeleteBlob(ctx, "inputs", "blob", nil)
			return err
		},
		"while the container is deleted": func(ctx context.Context, client *azblob.Client) error {
			_, err := client.DeleteContainer(ctx, "inputs", nil)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := start(t)
			ctx, client := t.Context(), e.container(t, "inputs")
			if _, err := client.UploadStream(ctx, "inputs", "blob", bytes.NewReader(old), &azblob.UploadStreamOptions{BlockSize: 1 << 20}); err != nil {
				t.Fatal(err)
			}
			response, err := client.DownloadStream(ctx, "inputs", "blob", nil)
			if err != nil {
				t.Fatal(err)
			}
			defer response.Body.Close()
			begin := make([]byte, 1000)
			if _, err := io.ReadFull(response.Body, begin); err != nil {
				t.Fatal(err)
			}
			if err := change(ctx, client); err != nil {
				t.Fatal(err)
			}
			e.clock.advance(24 * time.Hour)
			if err := e.server.Sweep(ctx); err != nil {
				t.Fatal(err)
			}
			rest, err := io.ReadAll(response.Body)
			if err != nil || !bytes.Equal(append(begin, rest...), old) {
				t.Errorf("read %d bytes of %d: %v", len(begin)+len(rest), len(old), err)
			}
		})
	}
}

func TestReplacedFilesAreRemoved(t *testing.T) {
	t.Parallel()
	e := start(t)
	client := e.container(t, "inputs")
	for n := range 5 {
		if _, err := client.UploadBuffer(t.Context(), "inputs", "blob", pattern(50_000+n), nil); err != nil {
			t.Fatal(err)
		}
	}
	if n := e.files(t); n != 1 {
		t.Errorf("%d files after five writes of one blob, want 1", n)
	}
	e.put(t, "/inputs/blob", "short")
	if n := e.files(t); n != 0 {
		t.Errorf("%d files, and the content is in the row", n)
	}
}

func TestSweep(t *testing.T) {
	t.Parallel()

	t.Run("a file without a row goes when it is old, one with a row stays", func(t *testing.T) {
		t.Parallel()
		e := start(t)
		e.container(t, "inputs")
		e.put(t, "/inputs/blob", strings.Repeat("x", 10_000))
		for _, name := range []string{"zorphan", "zorphan2.part"} {
			path := filepath.Join(e.folder, "z", name)
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte("left behind"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		sweep := func(want int) {
			t.Helper()
			if err := e.server.Sweep(t.Context()); err != nil {
				t.Fatal(err)
			}
			if n := e.files(t); n != want {
				t.Errorf("%d files, want %d", n, want)
			}
		}
		sweep(3)
		e.clock.advance(7 * time.Hour)
		sweep(1)
		if got := e.get(t, "/inputs/blob"); len(got) != 10_000 {
			t.Errorf("%d bytes", len(got))
		}
	})

	t.Run("uncommitted blocks go a week after the last of their blob", func(t *testing.T) {
		t.Parallel()
		e := start(t)
		e.container(t, "inputs")
		stage := func(blob, id string) {
			t.Helper()
			q := request{method: "PUT", path: "/inputs/" + blob + "?comp=block&blockid=" + id, body: "x"}
			if a := e.do(t, q); a.status != http.StatusCreated {
				t.Fatal(a)
			}
		}
		sweep := func(want int) {
			t.Helper()
			if err := e.server.Sweep(t.Context()); err != nil {
				t.Fatal(err)
			}
			if n := e.files(t); n != want {
				t.Errorf("%d files, want %d", n, want)
			}
		}
		stage("given-up", "MDAx")
		stage("slow", "MDAx")
		e.clock.advance(5 * 24 * time.Hour)
		stage("slow", "MDAy")
		sweep(3)
		e.clock.advance(3 * 24 * time.Hour)
		sweep(2)
		e.clock.advance(5 * 24 * time.Hour)
		sweep(0)
	})

	t.Run("a deleted container leaves nothing, however much was in it", func(t *testing.T) {
		t.Parallel()
		e := start(t)
		client := e.container(t, "inputs")
		for n := range 450 {
			e.put(t, "/inputs/"+strconv.Itoa(n), strings.Repeat("x", 8<<10+n%2))
		}
		if _, err := client.DeleteContainer(t.Context(), "inputs", nil); err != nil {
			t.Fatal(err)
		}
		e.container(t, "inputs")
		if a := e.do(t, request{method: "GET", path: "/inputs/7"}); a.code() != "BlobNotFound" {
			t.Errorf("a blob of the container's former life: %d %s", a.status, a.code())
		}
		e.put(t, "/inputs/new", strings.Repeat("y", 10_000))
		if err := e.server.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := e.files(t); n != 1 {
			t.Errorf("%d files, want that of the new blob", n)
		}
	})
}

// TestSweepStopsWhenMostFilesHaveNoRow is about a database that is not that of
// the folder, and about one that has lost its rows.
func TestSweepStopsWhenMostFilesHaveNoRow(t *testing.T) {
	t.Parallel()
	e := start(t)
	e.container(t, "inputs")
	for n := range 120 {
		e.put(t, "/inputs/"+strconv.Itoa(n), strings.Repeat("x", 10_000))
	}
	update := func(statement string) {
		t.Helper()
		err := e.db.Update(t.Context(), func(tx *store.Tx) error {
			_, err := tx.Exec(statement)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	update(`UPDATE storage_blob SET content = 'gone' || content`)
	e.clock.advance(7 * time.Hour)
	err := e.server.Sweep(t.Context())
	if err == nil || !strings.Contains(err.Error(), "knows nothing of 120 of 120 files") {
		t.Errorf("the sweep says %v", err)
	}
	if n := e.files(t); n != 120 {
		t.Errorf("%d files are left, want all 120", n)
	}
	update(`UPDATE storage_blob SET content = substr(content, 5) WHERE name <> '7'`)
	if err := e.server.Sweep(t.Context()); err != nil {
		t.Error(err)
	}
	if n := e.files(t); n != 119 {
		t.Errorf("%d files are left, want the 119 that have a row", n)
	}
}

// TestAServerSweepsFilesLate is about the time between the start on a wrong
// database and somebody noticing.
func TestAServerSweepsFilesLate(t *testing.T) {
	t.Parallel()
	folder, path := t.TempDir(), storetest.SQLite(t)
	file := filepath.Join(folder, "z", "zorphan")
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		then := time.Now().Add(-24 * time.Hour) // of the bubble
		if err := os.Chtimes(file, then, then); err != nil {
			t.Fatal(err)
		}
		disk, err := blob.OpenDisk(folder)
		if err != nil {
			t.Fatal(err)
		}
		defer disk.Close()
		var log bytes.Buffer
		server, err := blob.New(blob.Options{
			DB: storetest.Open(t, store.Options{URL: path}), Bytes: disk, Log: slog.New(slog.NewTextHandler(&log, nil)),
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- server.Run(ctx) }()
		time.Sleep(14 * time.Minute)
		if _, err := os.Stat(file); err != nil {
			t.Errorf("after 14 minutes: %v", err)
		}
		time.Sleep(2 * time.Minute)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(file); !os.IsNotExist(err) {
			t.Errorf("after 16 minutes: %v", err)
		}
		if !strings.Contains(log.String(), "removed=1 left=0 files=1") {
			t.Errorf("the log says:\n%s", log.String())
		}
	})
}

// TestLostBytesAreAnAnswer is about blobs whose files are missing or too short.
func TestLostBytesAreAnAnswer(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]func(path string) error{
		"missing": os.Remove, "too short": func(path string) error { return os.Truncate(path, 100) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := start(t)
			client := e.container(t, "inputs")
			e.put(t, "/inputs/whole", strings.Repeat("x", 10_000))
			lost := e.paths(t)
			if _, err := client.UploadStream(t.Context(), "inputs", "blocks", bytes.NewReader(pattern(3<<20)), &azblob.UploadStreamOptions{BlockSize: 1 << 20}); err != nil {
				t.Fatal(err)
			}
			var parts []store.BlobPart
			err := e.db.View(t.Context(), func(tx *store.Tx) error {
				var content string
				if err := tx.QueryRow(`SELECT content FROM storage_blob WHERE name = 'blocks'`).Scan(&content); err != nil {
					return err
				}
				var err error
				parts, err = tx.BlobParts(content, 0, 3<<20)
				return err
			})
			if err != nil || len(parts) != 3 {
				t.Fatalf("parts are %v, %v", parts, err)
			}
			last := parts[2].File // the answer would long have begun
			for _, path := range append(lost, filepath.Join(e.folder, last[:1], last)) {
				if err := lose(path); err != nil {
					t.Fatal(err)
				}
			}
			for _, q := range []request{
				{method: "GET", path: "/inputs/whole"},
				{method: "GET", path: "/inputs/blocks"},
				{method: "GET", path: "/inputs/blocks", header: map[string]string{"x-ms-range": "bytes=2500000-2600000"}},
			} {
				if a := e.do(t, q); a.status != http.StatusInternalServerError || a.code() != "InternalError" || a.header.Get("ETag") != "" {
					t.Errorf("%s %v: %d %s, ETag %q", q.path, q.header, a.status, a.code(), a.header.Get("ETag"))
				}
			}
			q := request{method: "GET", path: "/inputs/blocks", header: map[string]string{"x-ms-range": "bytes=0-99"}}
			if a := e.do(t, q); a.status != http.StatusPartialContent {
				t.Errorf("a part that is there: %d %s", a.status, a.code())
			}
		})
	}
}

// brokenDisk fails at one step of an upload.
type brokenDisk struct {
	blob.Bytes
	create, write, commit error
}

func (d *brokenDisk) Create(ctx context.Context) (blob.Writer, error) {
	if d.create != nil {
		return nil, d.create
	}
	w, err := d.Bytes.Create(ctx)
	return &brokenWriter{Writer: w, disk: d}, err
}

type brokenWriter struct {
	blob.Writer
	disk *brokenDisk
}

func (w *brokenWriter) Write(p []byte) (int, error) {
	if w.disk.write != nil {
		return 0, w.disk.write
	}
	return w.Writer.Write(p)
}

func (w *brokenWriter) Commit(ctx context.Context) (string, error) {
	if w.disk.commit != nil {
		return "", w.disk.commit
	}
	return w.Writer.Commit(ctx)
}

func TestDiskThatFails(t *testing.T) {
	t.Parallel()
	broken := errors.New("input/output error")
	for name, disk := range map[string]*brokenDisk{
		"when a file is made":    {create: broken},
		"when a file is written": {write: broken},
		"when a file is synced":  {commit: broken},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := start(t)
			good, err := blob.OpenDisk(e.folder)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = good.Close() })
			e.container(t, "inputs")
			e.put(t, "/inputs/blob", strings.Repeat("old", 10_000))
			disk.Bytes = good
			e.serve(t, disk)
			a := e.do(t, request{
				method: "PUT", path: "/inputs/blob", body: strings.Repeat("new", 10_000),
				header: map[string]string{"X-Ms-Blob-Type": "BlockBlob"},
			})
			if a.status != http.StatusInternalServerError || a.code() != "InternalError" || strings.Contains(a.body, "input/output") {
				t.Errorf("%d %s", a.status, a.body)
			}
			if got := e.get(t, "/inputs/blob"); !strings.HasPrefix(got, "old") {
				t.Error("the old content is gone")
			}
			if n := e.files(t); n != 1 {
				t.Errorf("%d files, want that of the old content", n)
			}
		})
	}
}
