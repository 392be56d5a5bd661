package auth_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/batchyard/batchyard/auth"
)

// devKey is the key of the account that a development server comes with.
var devKey = auth.Key("batchyard-development-key-not-a-secret" + strings.Repeat("!", 26))

var noon = time.Date(2026, time.November, 1, 12, 0, 0, 0, time.UTC)

// receive reads a request as a server does, from its bytes on the wire.
func receive(t *testing.T, method, target string, headers map[string]string) *http.Request {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: 127.0.0.1:8443\r\n", method, target)
	for name, value := range headers {
		fmt.Fprintf(&b, "%s: %s\r\n", name, value)
	}
	b.WriteString("\r\n")
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(b.String())))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// verifyBatch does what the API does with a request.
func verifyBatch(r *http.Request, keys auth.Keys, now time.Time) (int, error) {
	c, err := auth.ParseHeader(r.Header.Get("Authorization"))
	if err != nil {
		return 0, err
	}
	return auth.VerifyBatch(r, c, keys, now)
}

func wantReason(t *testing.T, err error, want auth.Reason) *auth.Error {
	t.Helper()
	var e *auth.Error
	if !errors.As(err, &e) {
		t.Fatalf("got error %v, want an *auth.Error with reason %s", err, want)
	}
	if e.Reason != want {
		t.Fatalf("got reason %s (%s), want %s", e.Reason, e.Message, want)
	}
	return e
}

func TestVerifyBatchAcceptsWhatClientsSign(t *testing.T) {
	t.Parallel()
	for _, v := range batchVectors {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			r := receive(t, v.method, v.target, v.headers)
			r.Header.Set("Authorization", v.authorization)
			for i, keys := range []auth.Keys{{devKey, auth.NewKey()}, {auth.NewKey(), devKey}} {
				got, err := verifyBatch(r, keys, noon.Add(5*time.Minute))
				if err != nil || got != i+1 {
					t.Errorf("got key %d and error %v, want key %d", got, err, i+1)
				}
			}
			_, err := verifyBatch(r, auth.Keys{auth.NewKey(), auth.NewKey()}, noon)
			wantReason(t, err, auth.SignatureMismatch)
		})
	}
}

type signer func(*http.Request, string, auth.Key, time.Time) error

func TestVerifyBatchRefusesWhatWasChanged(t *testing.T) {
	t.Parallel()
	const target = "/jobs/j%201/tasks?api-version=2024-07-01.20.0&$filter=id%20eq%20%27a%27"
	changes := map[string]func(*http.Request){
		"the method":               func(r *http.Request) { r.Method = "PUT" },
		"the path":                 func(r *http.Request) { r.URL.Path, r.URL.RawPath = "/jobs/j 2/tasks", "" },
		"the escaping of the path": func(r *http.Request) { r.URL.RawPath = "/jobs/%6a%201/tasks" },
		"a value of the query":     func(r *http.Request) { r.URL.RawQuery = strings.Replace(r.URL.RawQuery, "%27a", "%27b", 1) },
		"one more parameter":       func(r *http.Request) { r.URL.RawQuery += "&timeout=5" },
		"one more action":          func(r *http.Request) { r.URL.RawQuery += "&terminate" },
		"the content type":         func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") },
		"an ocp header":            func(r *http.Request) { r.Header.Set("ocp-range", "bytes=0-2") },
		"one more ocp header":      func(r *http.Request) { r.Header.Set("ocp-more", "x") },
		"the date":                 func(r *http.Request) { r.Header.Set("ocp-date", noon.Add(time.Second).Format(http.TimeFormat)) },
	}
	full := map[string]func(*http.Request){
		"the length":  func(r *http.Request) { r.Header.Set("Content-Length", "25") },
		"a condition": func(r *http.Request) { r.Header.Set("If-Match", "0x2") },
	}
	run := func(name string, sign signer, change func(*http.Request)) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := receive(t, "POST", target, map[string]string{
				"Content-Length": "24", "Content-Type": "application/json", "If-Match": "0x1", "Ocp-Range": "bytes=0-1",
			})
			if err := sign(r, "devaccount", devKey, noon); err != nil {
				t.Fatal(err)
			}
			if _, err := verifyBatch(r, auth.Keys{devKey}, noon); err != nil {
				t.Fatalf("unchanged request: %v", err)
			}
			change(r)
			_, err := verifyBatch(r, auth.Keys{devKey}, noon)
			wantReason(t, err, auth.SignatureMismatch)
		})
	}
	for name, change := range changes {
		run(name, auth.SignBatch, change)
		run(name+" under the short form", auth.SignBatchLite, change)
	}
	for name, change := range full {
		run(name, auth.SignBatch, change)
	}
}

func TestVerifyBatchDates(t *testing.T) {
	t.Parallel()
	at := func(d time.Duration) string { return noon.Add(d).Format(http.TimeFormat) }
	cases := []struct {
		name    string
		headers map[string]string
		want    auth.Reason
	}{
		{"on time", map[string]string{"ocp-date": at(0)}, ""},
		{"the last second behind", map[string]string{"ocp-date": at(-auth.DateWindow)}, ""},
		{"the last second ahead", map[string]string{"ocp-date": at(auth.DateWindow)}, ""},
		{"too far behind", map[string]string{"ocp-date": at(-auth.DateWindow - time.Second)}, auth.DateOutOfWindow},
		{"too far ahead", map[string]string{"ocp-date": at(auth.DateWindow + time.Second)}, auth.DateOutOfWindow},
		{"an old Date", map[string]string{"Date": at(-time.Hour)}, auth.DateOutOfWindow},
		{"ocp-date wins over Date", map[string]string{"Date": at(0), "ocp-date": at(-time.Hour)}, auth.DateOutOfWindow},
		{"no date", nil, auth.DateMissing},
		{"not a date", map[string]string{"ocp-date": "yesterday"}, auth.DateMalformed},
		{"a date of another form", map[string]string{"ocp-date": "2026-11-01T12:00:00Z"}, auth.DateMalformed},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := receive(t, "GET", "/pools?api-version=2024-07-01.20.0", c.headers)
			// Sign what a client with its own idea of the date would send.
			bare := len(c.headers) == 0
			if err := auth.SignBatch(r, "devaccount", devKey, noon); err != nil {
				t.Fatal(err)
			}
			if bare {
				r.Header.Del("ocp-date")
			}
			_, err := verifyBatch(r, auth.Keys{devKey}, noon)
			if c.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			wantReason(t, err, c.want)
		})
	}
	t.Run("the message tells the skew", func(t *testing.T) {
		t.Parallel()
		r := receive(t, "GET", "/pools", nil)
		if err := auth.SignBatch(r, "devaccount", devKey, noon); err != nil {
			t.Fatal(err)
		}
		_, err := verifyBatch(r, auth.Keys{devKey}, noon.Add(time.Hour))
		if want := "1h0m0s behind"; !strings.Contains(err.Error(), want) {
			t.Errorf("got %q, want %q in it", err, want)
		}
	})
}

func TestMismatchShowsWhatWasVerifiedAndNoSecret(t *testing.T) {
	t.Parallel()
	r := receive(t, "GET", "/pools?api-version=2024-07-01.20.0", nil)
	if err := auth.SignBatch(r, "devaccount", devKey, noon); err != nil {
		t.Fatal(err)
	}
	right := strings.TrimPrefix(r.Header.Get("Authorization"), "SharedKey devaccount:")
	r.Header.Set("Authorization", "SharedKey devaccount:"+strings.Repeat("A", 43)+"=")
	_, err := verifyBatch(r, auth.Keys{devKey}, noon)
	e := wantReason(t, err, auth.SignatureMismatch)
	want := "GET\n\n\n\n\n\n\n\n\n\n\n\nocp-date:Sun, 01 Nov 2026 12:00:00 GMT\n/devaccount/pools\napi-version:2024-07-01.20.0"
	if e.StringToSign != want {
		t.Errorf("got string to sign %q, want %q", e.StringToSign, want)
	}
	shown := fmt.Sprintf("%v %+v", e, *e)
	for name, secret := range map[string]string{"signature": right, "key": devKey.Base64()} {
		if strings.Contains(shown, secret) {
			t.Errorf("the error shows the %s: %s", name, shown)
		}
	}
	if e.Status() != http.StatusForbidden {
		t.Errorf("got status %d, want 403", e.Status())
	}
}

func TestKeysThatAreMissingSignNothing(t *testing.T) {
	t.Parallel()
	r := receive(t, "GET", "/pools", nil)
	if err := auth.SignBatch(r, "devaccount", nil, noon); err == nil {
		t.Error("signed with no key")
	}
	// HMAC with the empty key, which anybody can make.
	r.Header.Set("ocp-date", noon.Format(http.TimeFormat))
	r.Header.Set("Authorization", "SharedKey devaccount:fBZsc9OknouUvA0JXQlccM6WES7PbgNRRgWd5e5vuqU=")
	_, err := verifyBatch(r, auth.Keys{}, noon)
	wantReason(t, err, auth.SignatureMismatch)
}

func TestLongRequestsAreRefusedBeforeAnyWork(t *testing.T) {
	t.Parallel()
	r := receive(t, "GET", "/pools?$filter="+strings.Repeat("x", 40<<10), nil)
	if err := auth.SignBatch(r, "devaccount", devKey, noon); err != nil {
		t.Fatal(err)
	}
	_, err := verifyBatch(r, auth.Keys{devKey}, noon)
	wantReason(t, err, auth.RequestTooLong)
}

// What our own client signs must arrive so over a real connection, whatever
// net/http adds on the way.
func TestSignedRequestsVerifyOverTheWire(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := verifyBatch(r, auth.Keys{nil, devKey}, time.Now()); err != nil {
			http.Error(w, err.Error(), http.StatusForbidden)
			return
		}
		io.Copy(w, r.Body)
	}))
	t.Cleanup(server.Close)
	for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"} {
		for _, body := range []string{"", `{"id":"j1"}`} {
			if body != "" && (method == "GET" || method == "HEAD") {
				continue
			}
			t.Run(fmt.Sprintf("%s with a body of %d bytes", method, len(body)), func(t *testing.T) {
				t.Parallel()
				r, err := http.NewRequest(method, server.URL+"/jobs/a%2Fb%20c//d?timeOut=30&$select=&api-version=2025-06-01", strings.NewReader(body))
				if err != nil {
					t.Fatal(err)
				}
				if err := auth.SignBatch(r, "DevAccount", devKey, time.Now()); err != nil {
					t.Fatal(err)
				}
				answer, err := server.Client().Do(r)
				if err != nil {
					t.Fatal(err)
				}
				defer answer.Body.Close()
				got, err := io.ReadAll(answer.Body)
				if err != nil || answer.StatusCode != http.StatusOK || string(got) != body {
					t.Errorf("got status %d and %q, error %v", answer.StatusCode, got, err)
				}
			})
		}
	}
}
