package hostile_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/batchyard/batchyard/auth"
)

// TestWire sends what is no request of HTTP, or barely one, to both endpoints. What HTTP itself
// refuses is answered in HTTP's words: there is no operation yet whose protocol it could be.
func TestWire(t *testing.T) {
	t.Parallel()
	s := newServer(t, "")
	const host = "Host: x\r\n"
	for name, tc := range map[string]struct {
		method string
		parts  []string
		status int
	}{
		"no HTTP":                           {"GET", []string{"EHLO there\r\n\r\n"}, 400},
		"blanks in the address":             {"GET", []string{"GET /a b c HTTP/1.1\r\n" + host + "\r\n"}, 400},
		"a NUL in the address":              {"GET", []string{"GET /\x00 HTTP/1.1\r\n" + host + "\r\n"}, 400},
		"half an escape":                    {"GET", []string{"GET /jobs/%zz HTTP/1.1\r\n" + host + "\r\n"}, 400},
		"no host":                           {"GET", []string{"GET /jobs HTTP/1.1\r\n\r\n"}, 400},
		"two hosts":                         {"GET", []string{"GET /jobs HTTP/1.1\r\n" + host + host + "\r\n"}, 400},
		"a host that is a path":             {"GET", []string{"GET /jobs HTTP/1.1\r\nHost: ../../etc\r\n\r\n"}, 400},
		"a header without a colon":          {"GET", []string{"GET /jobs HTTP/1.1\r\n" + host + "nonsense\r\n\r\n"}, 400},
		"a blank in the name of a header":   {"GET", []string{"GET /jobs HTTP/1.1\r\n" + host + "If-Match : x\r\n\r\n"}, 400},
		"a NUL in a header":                 {"GET", []string{"GET /jobs HTTP/1.1\r\n" + host + "If-Match: a\x00b\r\n\r\n"}, 400},
		"a header of a MiB":                 {"GET", []string{"GET /jobs HTTP/1.1\r\n" + host + "X-Long: " + strings.Repeat("x", 1<<20) + "\r\n\r\n"}, 431},
		"an address of a MiB":               {"GET", []string{"GET /" + strings.Repeat("x", 1<<20) + " HTTP/1.1\r\n" + host + "\r\n"}, 431},
		"ten thousand headers":              {"GET", []string{"GET /jobs HTTP/1.1\r\n" + host + strings.Repeat("X-A: b\r\n", 20_000) + "\r\n"}, 431},
		"two lengths":                       {"POST", []string{"POST /jobs HTTP/1.1\r\n" + host + "Content-Length: 1\r\nContent-Length: 2\r\n\r\nab"}, 400},
		"a negative length":                 {"POST", []string{"POST /jobs HTTP/1.1\r\n" + host + "Content-Length: -1\r\n\r\n"}, 400},
		"a length with a sign":              {"POST", []string{"POST /jobs HTTP/1.1\r\n" + host + "Content-Length: +1\r\n\r\na"}, 400},
		"a length beyond 64 bits":           {"POST", []string{"POST /jobs HTTP/1.1\r\n" + host + "Content-Length: 99999999999999999999\r\n\r\n"}, 400},
		"an encoding that there is not":     {"POST", []string{"POST /jobs HTTP/1.1\r\n" + host + "Transfer-Encoding: cow\r\n\r\n"}, 501},
		"chunks twice":                      {"POST", []string{"POST /jobs HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"}, 501},
		"a version of HTTP that is none":    {"GET", []string{"GET /jobs HTTP/9.9\r\n" + host + "\r\n"}, 505},
		"a folded header":                   {"GET", []string{"GET /jobs?api-version=2025-06-01 HTTP/1.1\r\n" + host + "X-A: b\r\n c\r\n\r\n"}, 401},
		"the address of another":            {"GET", []string{"GET http://evil.example/jobs?api-version=2025-06-01 HTTP/1.1\r\n" + host + "\r\n"}, 401},
		"a tunnel":                          {"CONNECT", []string{"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n"}, 400},
		"an echo":                           {"TRACE", []string{"TRACE /jobs?api-version=2025-06-01 HTTP/1.1\r\n" + host + "\r\n"}, 405},
		"an expectation that there is not":  {"POST", []string{"POST /jobs HTTP/1.1\r\n" + host + "Expect: miracles\r\nContent-Length: 1\r\n\r\na"}, 417},
		"an upgrade":                        {"GET", []string{"GET /jobs?api-version=2025-06-01 HTTP/1.1\r\n" + host + "Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n"}, 401},
		"a request in pieces":               {"GET", strings.SplitAfter("GET /jobs?api-version=2025-06-01 HTTP/1.1\r\n"+host+"\r\n", ""), 401},
		"a call of a node that is none":     {"POST", []string{"POST /nodelink/x%2f..%2fy/sync HTTP/1.1\r\n" + host + "Authorization: Bearer byt_x\r\nContent-Length: 2\r\n\r\n{}"}, 400},
		"a call of a node without a token":  {"POST", []string{"POST /nodelink/x/sync HTTP/1.1\r\n" + host + "Content-Length: 4\r\n\r\nnull"}, 403},
		"a call of a node with a bad token": {"POST", []string{"POST /nodelink/%00/sync HTTP/1.1\r\n" + host + "Authorization: Bearer byt_x\r\nContent-Length: 2\r\n\r\n{}"}, 400},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, endpoint := range []string{s.Endpoint, s.storage} {
				a := s.speak(t, endpoint, tc.method, tc.parts...)
				if endpoint == s.Endpoint && a.status != tc.status {
					t.Errorf("status %d, want %d: %s", a.status, tc.status, clip(a.body))
				}
				// Storage has its own answers to what is legal in HTTP.
				if a.status < 400 || a.status >= 500 && a.status != 501 && a.status != 505 {
					t.Errorf("%s answers %d: %s", endpoint, a.status, clip(a.body))
				}
			}
		})
	}
}

// TestBodiesOnTheWire sends bodies whose length is not known, or is not what it is said to be.
func TestBodiesOnTheWire(t *testing.T) {
	t.Parallel()
	s := newServer(t, "")
	s.must(t, http.MethodPost, "/pools", `{"id":"p",`+poolImage+`}`)
	s.must(t, http.MethodPost, "/jobs", `{"id":"j","poolInfo":{"poolId":"p"}}`)
	const body = `{"id":"x","commandLine":"y"}`
	var zipped bytes.Buffer
	zip := gzip.NewWriter(&zipped)
	zip.Write(bytes.Repeat([]byte(" "), 64<<20))
	zip.Close()
	tooLarge := want{http.StatusRequestEntityTooLarge, "RequestBodyTooLarge", "MaxLimit"}
	for name, tc := range map[string]struct {
		head  string
		parts []string
		want  want
	}{
		"chunks":                       {"Transfer-Encoding: chunked", []string{chunk(body), "0\r\n\r\n"}, accepted(201)},
		"a chunk of terabytes":         {"Transfer-Encoding: chunked", []string{"FFFFFFFFFFF\r\n" + strings.Repeat(" ", 20<<20)}, tooLarge},
		"a chunk beyond 64 bits":       {"Transfer-Encoding: chunked", []string{"FFFFFFFFFFFFFFFFF\r\n"}, refused("InvalidRequestBody", "")},
		"a chunk of no number":         {"Transfer-Encoding: chunked", []string{"xyz\r\n"}, refused("InvalidRequestBody", "")},
		"chunks without end":           {"Transfer-Encoding: chunked", []string{strings.Repeat(chunk(strings.Repeat(" ", 64<<10)), 320)}, tooLarge},
		"a chunk with a long comment":  {"Transfer-Encoding: chunked", []string{"1;" + strings.Repeat("x", 64<<10) + "\r\n"}, refused("InvalidRequestBody", "")},
		"a bomb":                       {"Content-Encoding: gzip\r\nContent-Length: " + fmt.Sprint(zipped.Len()), []string{zipped.String()}, refused("InvalidHeaderValue", "gzip")},
		"a length larger than allowed": {"Content-Length: 1073741824", []string{strings.Repeat(" ", 20<<20)}, tooLarge},
		"a length and chunks":          {"Content-Length: 3\r\nTransfer-Encoding: chunked", []string{chunk(`{}`), "0\r\n\r\n"}, refused("InvalidPropertyValue", "id")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := s.request(t, http.MethodPost, "/jobs/j/tasks", "")
			r.Header.Del("Authorization")
			for line := range strings.SplitSeq(tc.head, "\r\n") {
				key, value, _ := strings.Cut(line, ": ")
				// With chunks there is no length, whatever the header says, and so none is signed.
				if key != "Transfer-Encoding" && !(key == "Content-Length" && strings.Contains(tc.head, "chunked")) {
					r.Header.Set(key, value)
				}
			}
			r.Method, r.ContentLength = http.MethodPost, -1
			if err := auth.SignBatch(r, s.Account, s.Key, time.Now()); err != nil {
				t.Fatal(err)
			}
			var head strings.Builder
			fmt.Fprintf(&head, "POST %s HTTP/1.1\r\nHost: %s\r\n%s\r\n", r.URL.RequestURI(), r.Host, tc.head)
			for _, name := range []string{"Ocp-Date", "Authorization"} {
				fmt.Fprintf(&head, "%s: %s\r\n", name, r.Header.Get(name))
			}
			a := s.speak(t, s.Endpoint, http.MethodPost, append([]string{head.String() + "\r\n"}, tc.parts...)...)
			tc.want.check(t, a, faultOfBatch)
		})
	}
}

func chunk(text string) string { return fmt.Sprintf("%x\r\n%s\r\n", len(text), text) }
