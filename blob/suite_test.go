package blob_test

import (
	"bytes"
	"context"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"

	"github.com/batchyard/batchyard/auth"
	"github.com/batchyard/batchyard/blob"
	"github.com/batchyard/batchyard/store"
	"github.com/batchyard/batchyard/store/storetest"
)

// endpoint is a storage endpoint that runs for one test: a real database, a
// real folder and a real connection.
type endpoint struct {
	server *blob.Server
	db     *store.DB
	folder string
	url    string // of the development account, without a slash at the end
	key    auth.Key
	clock  *clock
}

// clock is the time, moved by hand beyond the real one.
type clock struct {
	mu    sync.Mutex
	ahead time.Duration
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.ahead).Round(0) // a played time: that of the machine's other clocks does not matter
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ahead += d
}

func start(t testing.TB) *endpoint {
	t.Helper()
	e := &endpoint{folder: t.TempDir(), clock: &clock{}}
	e.db = storetest.Open(t, store.Options{URL: storetest.SQLite(t), Now: e.clock.now})
	disk, err := blob.OpenDisk(e.folder)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = disk.Close() })
	e.serve(t, disk)
	return e
}

// serve starts a server over the endpoint's database.
func (e *endpoint) serve(t testing.TB, content blob.Bytes) {
	t.Helper()
	var err error
	if e.key, err = auth.ParseKey(blob.DevKey); err != nil {
		t.Fatal(err)
	}
	e.server, err = blob.New(blob.Options{
		DB: e.db, Bytes: content, Now: e.clock.now,
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.server.ProvisionDev(t.Context()); err != nil {
		t.Fatal(err)
	}
	listener := httptest.NewServer(e.server)
	t.Cleanup(listener.Close)
	e.url = listener.URL + "/" + blob.DevAccount
}

// client is the official client with the account's key.
func (e *endpoint) client(t testing.TB) *azblob.Client {
	t.Helper()
	credential, err := azblob.NewSharedKeyCredential(blob.DevAccount, blob.DevKey)
	if err != nil {
		t.Fatal(err)
	}
	client, err := azblob.NewClientWithSharedKeyCredential(e.url, credential, nil)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// container makes a container and gives the official client.
func (e *endpoint) container(t testing.TB, name string) *azblob.Client {
	t.Helper()
	client := e.client(t)
	if _, err := client.CreateContainer(t.Context(), name, nil); err != nil {
		t.Fatal(err)
	}
	return client
}

// request is a raw one, for what clients do not send.
type request struct {
	method string
	path   string // from the container on, with its query
	host   string
	header map[string]string
	body   string
	sas    string // in place of Shared Key
	bare   bool   // not signed at all
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   string
}

// code is the error code, which a HEAD has in its header alone.
func (a answer) code() string { return a.header.Get("X-Ms-Error-Code") }

func (e *endpoint) do(t testing.TB, q request) answer {
	t.Helper()
	address := e.url
	if q.host != "" {
		address = strings.TrimSuffix(e.url, "/"+blob.DevAccount)
	}
	address += q.path
	if q.sas != "" {
		join := "?"
		if strings.Contains(address, "?") {
			join = "&"
		}
		address += join + q.sas
	}
	r, err := http.NewRequestWithContext(t.Context(), q.method, address, strings.NewReader(q.body))
	if err != nil {
		t.Fatal(err)
	}
	if q.host != "" {
		r.Host = q.host
	}
	r.Header.Set("X-Ms-Version", "2021-12-02")
	for name, value := range q.header {
		r.Header.Set(name, value)
	}
	if q.sas == "" && !q.bare {
		if err := auth.SignBlob(r, blob.DevAccount, e.key, e.clock.now()); err != nil {
			t.Fatal(err)
		}
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{status: response.StatusCode, header: response.Header, body: string(body)}
}

// put makes a blob, or fails the test.
func (e *endpoint) put(t testing.TB, path, body string, header ...string) answer {
	t.Helper()
	q := request{method: http.MethodPut, path: path, body: body, header: map[string]string{"X-Ms-Blob-Type": "BlockBlob"}}
	for i := 0; i+1 < len(header); i += 2 {
		q.header[header[i]] = header[i+1]
	}
	a := e.do(t, q)
	if a.status != http.StatusCreated {
		t.Fatalf("put %s: %d %s", path, a.status, a.body)
	}
	return a
}

// get reads a blob, or fails the test.
func (e *endpoint) get(t testing.TB, path string) string {
	t.Helper()
	a := e.do(t, request{method: http.MethodGet, path: path})
	if a.status != http.StatusOK {
		t.Fatalf("get %s: %d %s", path, a.status, a.body)
	}
	return a.body
}

// download reads a blob with the official client.
func download(ctx context.Context, t testing.TB, client *azblob.Client, container, name string, o *azblob.DownloadStreamOptions) []byte {
	t.Helper()
	response, err := client.DownloadStream(ctx, container, name, o)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

// wantCode fails the test unless the official client reports a code.
func wantCode(t testing.TB, err error, code bloberror.Code) {
	t.Helper()
	if !bloberror.HasCode(err, code) {
		t.Errorf("error %v, want %s", err, code)
	}
}

// pattern is content of a size in which every part differs from every other.
func pattern(size int) []byte {
	var b bytes.Buffer
	for n := uint32(1); b.Len() < size; n++ {
		b.Write([]byte{byte(n), byte(n >> 8), byte(n >> 16), byte(n >> 24)})
	}
	return b.Bytes()[:size]
}

// files counts the files in the content folder.
func (e *endpoint) files(t testing.TB) int {
	t.Helper()
	return len(e.paths(t))
}

// paths are where the files in the folder are.
func (e *endpoint) paths(t testing.TB) (paths []string) {
	t.Helper()
	err := filepath.WalkDir(e.folder, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			paths = append(paths, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths
}
