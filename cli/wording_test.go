package cli_test

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/batchyard/batchyard/auth"
)

// asked is the answer to bytes that need not be a request.
func asked(t *testing.T, conn net.Conn, text string) (*http.Response, string) {
	t.Helper()
	defer conn.Close()
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer, string(body)
}

func TestUnreadableRequestsAreAnsweredInTheProtocolsWords(t *testing.T) {
	t.Parallel()
	key, storageKey := auth.NewKey(), auth.NewKey()
	p := startServer(t, dataFolder(t), accountsOf(map[string]auth.Key{"mybatch": key}, map[string]auth.Key{"mystore": storageKey}))
	p.await()
	r, _ := startDev(t, "--nodes", "0")
	authority := x509.NewCertPool()
	for _, file := range []string{p.Authority, r.CAFile} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		authority.AppendCertsFromPEM(text)
	}
	hostOf := func(address string) string {
		u, err := url.Parse(address)
		if err != nil {
			t.Fatal(err)
		}
		return u.Host
	}
	plain := func(host string) net.Conn {
		conn, err := net.Dial("tcp", host)
		if err != nil {
			t.Fatal(err)
		}
		return conn
	}
	secure := func(host string) net.Conn {
		conn, err := tls.Dial("tcp", host, &tls.Config{RootCAs: authority, ServerName: "localhost", MinVersion: tls.VersionTLS12})
		if err != nil {
			t.Fatal(err)
		}
		return conn
	}
	for name, c := range map[string]struct {
		dial func(string) net.Conn
		host string
		kind string
		code string
	}{
		"the API":                     {secure, hostOf(p.API), "application/json", `"code":"InvalidUri"`},
		"the storage":                 {secure, hostOf(p.Storage), "application/xml", "<Code>InvalidUri</Code>"},
		"the API of dev":              {plain, hostOf(r.Endpoint), "application/json", `"code":"InvalidUri"`},
		"the API of dev over TLS":     {secure, hostOf(r.Endpoint), "application/json", `"code":"InvalidUri"`},
		"the storage of dev":          {plain, hostOf(r.BlobEndpoint), "application/xml", "<Code>InvalidUri</Code>"},
		"the storage of dev over TLS": {secure, hostOf(r.BlobEndpoint), "application/xml", "<Code>InvalidUri</Code>"},
	} {
		for _, path := range []string{"/jobs/%zz", "/jobs/a%", "/jobs/a%2"} {
			answer, body := asked(t, c.dial(c.host), fmt.Sprintf("GET %s?api-version=2024-07-01.20.0 HTTP/1.1\r\nHost: %s\r\n\r\n", path, c.host))
			if answer.StatusCode != 400 || !strings.HasPrefix(answer.Header.Get("Content-Type"), c.kind) || !strings.Contains(body, c.code) {
				t.Errorf("%s, %s: %d, %s: %s", name, path, answer.StatusCode, answer.Header.Get("Content-Type"), body)
			}
		}
		// What can be read is answered as ever, and addresses in answers have
		// the scheme by which the caller came.
		answer, body := asked(t, c.dial(c.host), fmt.Sprintf("GET /jobs?api-version=2024-07-01.20.0 HTTP/1.1\r\nHost: %s\r\n\r\n", c.host))
		if answer.StatusCode/100 != 4 || strings.Contains(body, "InvalidUri") {
			t.Errorf("%s: %d: %s", name, answer.StatusCode, body)
		}
	}
	if answer, body := asked(t, plain(hostOf(p.API)), "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); answer.StatusCode != 400 || !strings.Contains(body, "HTTPS") {
		t.Errorf("plain HTTP to a port of TLS: %d %q", answer.StatusCode, body)
	}
}
