package hostile_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/json"
	"encoding/xml"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/batchyard/batchyard/auth"
	"github.com/batchyard/batchyard/client"
)

// answer is what a server said to a request.
type answer struct {
	status int
	header http.Header
	body   string
}

// want is what a table has for the answer to a request: its status, its code, and a text among the
// values of the error that says what is at fault. An empty one is not compared.
type want struct {
	status int
	code   string
	value  string
}

// accepted is what is wanted of a request that is odd and legal.
func accepted(status int) want { return want{status: status} }

// refused is what is wanted of most requests here.
func refused(code, value string) want { return want{http.StatusBadRequest, code, value} }

// fault is an error as both protocols tell it.
type fault struct {
	Code    string
	Message string
	Values  []string
}

// faultOfBatch reads an error of the Batch protocol; ok is false if it is none.
func faultOfBatch(a answer) (f fault, ok bool) {
	var e struct {
		Code    string
		Message struct{ Value string }
		Values  []struct{ Key, Value string }
	}
	if err := json.Unmarshal([]byte(a.body), &e); err != nil || e.Code == "" || !strings.Contains(e.Message.Value, "RequestId:"+a.header.Get("request-id")) {
		return f, false
	}
	f.Code, f.Message = e.Code, e.Message.Value
	for _, v := range e.Values {
		f.Values = append(f.Values, v.Key+"="+v.Value)
	}
	return f, a.header.Get("request-id") != ""
}

// faultOfStorage reads an error of the storage protocol.
func faultOfStorage(a answer) (f fault, ok bool) {
	var e struct {
		Code    string
		Message string
		Details []struct {
			XMLName xml.Name
			Value   string `xml:",chardata"`
		} `xml:",any"`
	}
	if err := xml.Unmarshal([]byte(a.body), &e); err != nil || e.Code == "" || e.Code != a.header.Get("x-ms-error-code") {
		return f, false
	}
	f.Code, f.Message = e.Code, e.Message
	for _, v := range e.Details {
		f.Values = append(f.Values, v.XMLName.Local+"="+v.Value)
	}
	return f, a.header.Get("x-ms-request-id") != ""
}

// secrets are texts that no answer may hold.
var secrets = []string{canary, "root:x:0:0", "root:*:", "root:$"}

// check holds an answer against the rules for all answers, and against what is wanted of it.
func (w want) check(t *testing.T, a answer, faultOf func(answer) (fault, bool)) {
	t.Helper()
	for _, secret := range secrets {
		if strings.Contains(a.body, secret) {
			t.Errorf("the answer has what is not the caller's:\n%s", clip(a.body))
		}
	}
	if a.status != w.status {
		t.Errorf("status %d, want %d: %s", a.status, w.status, clip(a.body))
	}
	if a.status < http.StatusBadRequest || a.body == "" && w.code == "" {
		return // the protocol has no body in an answer to HEAD
	}
	f, ok := faultOf(a)
	if !ok {
		t.Errorf("status %d without an error of the protocol: %v: %s", a.status, a.header, clip(a.body))
		return
	}
	if f.Code != w.code {
		t.Errorf("code %s, want %s: %s", f.Code, w.code, clip(a.body))
	}
	if all := strings.Join(append(f.Values, f.Message), "\n"); !strings.Contains(all, w.value) {
		t.Errorf("nothing in the error says %q: %s", w.value, clip(a.body))
	}
}

func clip(text string) string {
	if len(text) > 800 {
		return text[:800] + "…"
	}
	return text
}

// request makes a request to the Batch endpoint, signed unless a header Authorization is given. The
// path has its query; the version is added unless the query names one.
func (s *server) request(t *testing.T, method, path, body string, headers ...string) *http.Request {
	t.Helper()
	if !strings.Contains(path, "api-version=") {
		sep := "?"
		if strings.Contains(path, "?") {
			sep = "&"
		}
		path += sep + "api-version=" + client.Version
	}
	r := newRequest(t, method, s.Endpoint+path, body, headers)
	if _, given := r.Header["Authorization"]; !given {
		if err := auth.SignBatch(r, s.Account, s.Key, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

// storageRequest makes a request to the storage endpoint; the path begins below the account.
func (s *server) storageRequest(t *testing.T, method, path, body string, headers ...string) *http.Request {
	t.Helper()
	r := newRequest(t, method, s.storage+"/"+storageAccount+path, body, headers)
	if _, given := r.Header["X-Ms-Version"]; !given {
		r.Header.Set("x-ms-version", "2021-12-02")
	}
	if _, given := r.Header["Authorization"]; !given && !auth.HasSAS(r.URL.RawQuery) {
		if err := auth.SignBlob(r, storageAccount, s.storageKey, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

func newRequest(t *testing.T, method, address, body string, headers []string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, address, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header[http.CanonicalHeaderKey(headers[i])] = headers[i+1 : i+2]
	}
	return r
}

// send sends a request.
func (s *server) send(t *testing.T, r *http.Request) answer {
	t.Helper()
	response, err := s.HTTP.Do(r)
	if err != nil {
		t.Fatalf("%s %s: %v", r.Method, clip(r.URL.String()), err)
	}
	return read(t, response)
}

func read(t *testing.T, response *http.Response) answer {
	t.Helper()
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 64<<20))
	if err != nil {
		t.Fatal(err)
	}
	return answer{response.StatusCode, response.Header, string(body)}
}

// dial opens a connection on which a test speaks for itself. It ends when an answer would be late.
func (s *server) dial(t *testing.T, endpoint string) net.Conn {
	t.Helper()
	dialer := tls.Dialer{NetDialer: &net.Dialer{Timeout: prompt}, Config: s.tls()}
	conn, err := dialer.DialContext(t.Context(), "tcp", strings.TrimPrefix(endpoint, "https://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(prompt)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// speak writes bytes to the endpoint as they are and reads one answer.
func (s *server) speak(t *testing.T, endpoint, method string, parts ...string) answer {
	t.Helper()
	conn := s.dial(t, endpoint)
	go func() {
		for _, part := range parts {
			if _, err := io.Copy(conn, bytes.NewReader([]byte(part))); err != nil {
				return // the server has heard enough
			}
		}
	}()
	response, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		t.Fatalf("no answer: %v", err)
	}
	return read(t, response)
}

func decode(t *testing.T, text string, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), into); err != nil {
		t.Fatalf("%v: %s", err, clip(text))
	}
}
