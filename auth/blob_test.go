package auth_test

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
	"github.com/google/go-cmp/cmp"

	"github.com/batchyard/batchyard/auth"
)

// store is just enough of a storage endpoint to carry out what a client signs.
// It verifies each request and keeps the reason of the last refusal.
type store struct {
	account   string // the first element of the path, when addressed by path
	pathStyle bool
	keys      auth.Keys

	mu      sync.Mutex
	blobs   map[string][]byte
	blocks  map[string][]byte
	refused error
}

func newStore(account string, pathStyle bool, keys auth.Keys) *store {
	return &store{account: account, pathStyle: pathStyle, keys: keys, blobs: map[string][]byte{}, blocks: map[string][]byte{}}
}

func (s *store) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	target := s.target(r)
	if err := s.verify(r, target); err != nil {
		s.refused = err
		w.Header().Set("x-ms-error-code", "AuthenticationFailed")
		w.WriteHeader(http.StatusForbidden)
		return
	}
	s.serve(w, r, target)
}

func (s *store) target(r *http.Request) auth.Target {
	path := strings.TrimPrefix(r.URL.Path, "/")
	if s.pathStyle {
		path = strings.TrimPrefix(strings.TrimPrefix(path, s.account), "/")
	}
	container, blob, _ := strings.Cut(path, "/")
	return auth.Target{Account: s.account, Container: container, Blob: blob}
}

func (s *store) verify(r *http.Request, target auth.Target) error {
	if auth.HasSAS(r.URL.RawQuery) {
		sas, err := auth.ParseSAS(r.URL.RawQuery)
		if err != nil {
			return err
		}
		if _, err := sas.Verify(s.keys, auth.SASRequest{
			Target: target, Remote: netip.MustParseAddrPort(r.RemoteAddr).Addr(), Now: time.Now(),
		}); err != nil {
			return err
		}
		return sas.Allow(operation(r, target))
	}
	c, err := auth.ParseHeader(r.Header.Get("Authorization"))
	if err != nil {
		return err
	}
	_, err = auth.VerifyBlob(r, c, s.keys, time.Now())
	return err
}

func operation(r *http.Request, target auth.Target) (auth.Level, string) {
	level := auth.ObjectLevel
	switch {
	case target.Container == "":
		level = auth.ServiceLevel
	case target.Blob == "":
		level = auth.ContainerLevel
	}
	switch {
	case r.URL.Query().Get("comp") == "list":
		return level, "l"
	case r.Method == "PUT":
		return level, "cw"
	case r.Method == "DELETE":
		return level, "d"
	}
	return level, "r"
}

func (s *store) serve(w http.ResponseWriter, r *http.Request, target auth.Target) {
	name := target.Container + "/" + target.Blob
	query := r.URL.Query()
	body, _ := io.ReadAll(r.Body)
	switch {
	case query.Get("comp") == "list":
		w.Header().Set("Content-Type", "application/xml")
		fmt.Fprint(w, "<EnumerationResults><Blobs>")
		for n := range s.blobs {
			fmt.Fprint(w, "<Blob><Name>")
			xml.EscapeText(w, []byte(strings.TrimPrefix(n, target.Container+"/")))
			fmt.Fprint(w, "</Name><Properties/></Blob>")
		}
		fmt.Fprint(w, "</Blobs><NextMarker/></EnumerationResults>")
	case query.Get("comp") == "block":
		s.blocks[query.Get("blockid")] = body
		w.WriteHeader(http.StatusCreated)
	case query.Get("comp") == "blocklist":
		var list struct {
			Latest []string `xml:"Latest"`
		}
		xml.Unmarshal(body, &list)
		s.blobs[name] = nil
		for _, id := range list.Latest {
			s.blobs[name] = append(s.blobs[name], s.blocks[id]...)
		}
		w.WriteHeader(http.StatusCreated)
	case r.Method == "PUT":
		if target.Blob != "" {
			s.blobs[name] = body
		}
		w.WriteHeader(http.StatusCreated)
	case r.Method == "DELETE":
		delete(s.blobs, name)
		w.WriteHeader(http.StatusAccepted)
	default:
		data, ok := s.blobs[name]
		if !ok {
			w.Header().Set("x-ms-error-code", "BlobNotFound")
			w.WriteHeader(http.StatusNotFound)
			return
		}
		if v := r.Header.Get("x-ms-range"); v != "" {
			r.Header.Set("Range", v)
		}
		w.Header().Set("ETag", `"0x1"`)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
	}
}

func (s *store) start(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	if s.pathStyle {
		return server.URL + "/" + s.account
	}
	return server.URL
}

func (s *store) check(t *testing.T, what string, err error) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		refused := &auth.Error{}
		errors.As(s.refused, &refused)
		t.Fatalf("%s: %v (refused: %v; verified %q)", what, err, refused, refused.StringToSign)
	}
}

// awkwardNames are legal blob names that are easily rewritten on the way.
var awkwardNames = []string{
	"plain.txt", "with space", "ünïcödé/日本語.txt", "100%/50%25", "a//b///c", "plus+and&equals=?#", "it's (a) [name]~!*", "dir/./x",
}

// walk does with a container what most programs do.
func walk(t *testing.T, s *store, c *container.Client) {
	t.Helper()
	ctx := context.Background()
	data := bytes.Repeat([]byte("0123456789"), 100)
	for _, name := range awkwardNames {
		b := c.NewBlockBlobClient(name)
		_, err := b.UploadBuffer(ctx, data, &azblob.UploadBufferOptions{
			Metadata:    map[string]*string{"a_b": to.Ptr("1"), "ab": to.Ptr("2"), "a0": to.Ptr("3"), "empty": to.Ptr("")},
			HTTPHeaders: &blob.HTTPHeaders{BlobContentType: to.Ptr("text/plain"), BlobContentDisposition: to.Ptr("attachment")},
			AccessConditions: &blob.AccessConditions{
				ModifiedAccessConditions: &blob.ModifiedAccessConditions{IfNoneMatch: to.Ptr(azcore.ETagAny)},
			},
		})
		s.check(t, "upload "+name, err)
		part, err := b.DownloadStream(ctx, &blob.DownloadStreamOptions{Range: blob.HTTPRange{Offset: 10, Count: 20}})
		s.check(t, "download a range of "+name, err)
		got, err := io.ReadAll(part.Body)
		if err != nil || !bytes.Equal(got, data[10:30]) {
			t.Errorf("range of %s: got %q, error %v", name, got, err)
		}
		_, err = b.GetProperties(ctx, nil)
		s.check(t, "properties of "+name, err)
	}
	var names []string
	pager := c.NewListBlobsFlatPager(&container.ListBlobsFlatOptions{
		Prefix: to.Ptr("a b/ü&"), Include: container.ListBlobsInclude{Metadata: true, UncommittedBlobs: true},
	})
	for pager.More() {
		page, err := pager.NextPage(ctx)
		s.check(t, "list", err)
		for _, item := range page.Segment.BlobItems {
			names = append(names, *item.Name)
		}
	}
	if len(names) != len(awkwardNames) {
		t.Errorf("listed %d blobs, want %d", len(names), len(awkwardNames))
	}
	_, err := c.NewBlockBlobClient("blocks").UploadStream(ctx, bytes.NewReader(bytes.Repeat(data, 3000)),
		&blockblob.UploadStreamOptions{BlockSize: 1 << 20})
	s.check(t, "upload blocks", err)
	_, err = c.NewBlobClient("blocks").Delete(ctx, nil)
	s.check(t, "delete", err)
}

func TestVerifyBlobAcceptsTheOfficialClient(t *testing.T) {
	t.Parallel()
	for _, pathStyle := range []bool{true, false} {
		t.Run(fmt.Sprintf("account in the path %t", pathStyle), func(t *testing.T) {
			t.Parallel()
			key := auth.NewKey()
			s := newStore("devstoreaccount1", pathStyle, auth.Keys{auth.NewKey(), key})
			credential, err := azblob.NewSharedKeyCredential(s.account, key.Base64())
			if err != nil {
				t.Fatal(err)
			}
			c, err := container.NewClientWithSharedKeyCredential(s.start(t)+"/inputs", credential, nil)
			if err != nil {
				t.Fatal(err)
			}
			_, err = c.Create(context.Background(), nil)
			s.check(t, "create", err)
			walk(t, s, c)
		})
	}
}

// What our own client signs must arrive so over a real connection.
func TestSignedBlobRequestsVerifyOverTheWire(t *testing.T) {
	t.Parallel()
	key := auth.NewKey()
	s := newStore("devstoreaccount1", true, auth.Keys{key})
	base := s.start(t)
	for _, sign := range []func(*http.Request, string, auth.Key, time.Time) error{auth.SignBlob, auth.SignBlobLite} {
		for _, name := range awkwardNames {
			for _, method := range []string{"PUT", "HEAD", "DELETE"} {
				u := base + "/outputs/" + url.PathEscape(name)
				var body io.Reader
				if method == "PUT" {
					body = strings.NewReader("x")
				}
				r, err := http.NewRequest(method, u+"?timeout=30&Comp=", body)
				if err != nil {
					t.Fatal(err)
				}
				r.Header.Set("x-ms-version", auth.SASVersion)
				r.Header.Set("x-ms-blob-type", "BlockBlob")
				r.Header.Set("x-ms-meta-a_b", "two  spaces")
				if err := sign(r, s.account, key, time.Now()); err != nil {
					t.Fatal(err)
				}
				answer, err := http.DefaultClient.Do(r)
				if err != nil {
					t.Fatal(err)
				}
				answer.Body.Close()
				if answer.StatusCode >= 300 {
					t.Fatalf("%s %s: got status %d, refused: %v", method, name, answer.StatusCode, s.refused)
				}
			}
		}
	}
}

func TestVerifyBlobPublishedForms(t *testing.T) {
	t.Parallel()
	key, err := auth.ParseKey("Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==")
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range blobVectors {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			r := receive(t, v.method, v.target, v.headers)
			r.Header.Set("Authorization", v.authorization)
			c, err := auth.ParseHeader(v.authorization)
			if err != nil {
				t.Fatal(err)
			}
			at, err := http.ParseTime(v.at)
			if err != nil {
				t.Fatal(err)
			}
			got, err := auth.VerifyBlob(r, c, auth.Keys{key}, at.Add(time.Minute))
			if diff := cmp.Diff(got, 1); diff != "" || err != nil {
				t.Errorf("key (-got +want): %s error %v", diff, err)
			}
			r.URL.Path = strings.Replace(r.URL.Path, "container", "other", 1)
			_, err = auth.VerifyBlob(r, c, auth.Keys{key}, at)
			wantReason(t, err, auth.SignatureMismatch)
		})
	}
}
