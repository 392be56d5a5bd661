package shapetest

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
)

// maxJudged bounds the body that is kept for judging. Lists of a thousand items are far below it.
const maxJudged = 64 << 20

// Proxy returns a handler that passes every request on to target unchanged and judges every
// answer on its way back with Check. It calls report for each problem, from several goroutines
// at once.
//
// The Host header is kept, so that the URLs the server makes of it lead through the proxy, and
// signatures stay valid because Shared Key covers neither host nor connection. Bodies of files
// are streamed, not kept.
func Proxy(target *url.URL, report func(problem string)) http.Handler {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DisableCompression = true // else the transport would ask for what the client did not
	transport.MaxIdleConnsPerHost = 64
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host
			r.Out.URL.RawQuery = r.In.URL.RawQuery
		},
		Transport:     transport,
		FlushInterval: -1,
		ModifyResponse: func(resp *http.Response) error {
			return judge(resp, report)
		},
	}
}

func judge(resp *http.Response, report func(string)) error {
	request := resp.Request
	path := request.URL.EscapedPath() + "?" + request.URL.RawQuery
	body, err := keepJSON(resp)
	if err != nil {
		return err
	}
	for _, problem := range Check(request.Method, path, "", resp.StatusCode, resp.Header, body) {
		report(problem)
	}
	id := request.Header.Get("client-request-id")
	wanted := strings.EqualFold(request.Header.Get("return-client-request-id"), "true")
	if got := resp.Header.Get("client-request-id"); wanted && id != "" && got != id {
		report(fmt.Sprintf("%s %s %d: header client-request-id is %q, want %q back",
			request.Method, request.URL.Path, resp.StatusCode, got, id))
	}
	return nil
}

// keepJSON reads the body of a JSON answer and puts it back for the client. Other bodies are left
// to stream.
func keepJSON(resp *http.Response) ([]byte, error) {
	isJSON := strings.HasPrefix(resp.Header.Get("Content-Type"), "application/json")
	isFile := resp.StatusCode < 400 && strings.Contains(resp.Request.URL.Path, "/files/")
	if isFile || !isJSON && resp.ContentLength < 0 {
		return nil, nil
	}
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxJudged+1))
	if err != nil {
		return nil, fmt.Errorf("read the answer to judge it: %w", err)
	}
	if len(raw) > maxJudged {
		return nil, fmt.Errorf("answer of more than %d bytes is too long to judge", maxJudged)
	}
	if err := resp.Body.Close(); err != nil {
		return nil, fmt.Errorf("close the answer: %w", err)
	}
	resp.Body = io.NopCloser(bytes.NewReader(raw))
	if resp.Header.Get("Content-Encoding") != "gzip" {
		return raw, nil
	}
	unzip, err := gzip.NewReader(bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("open a compressed answer: %w", err)
	}
	plain, err := io.ReadAll(io.LimitReader(unzip, maxJudged))
	if err != nil {
		return nil, fmt.Errorf("read a compressed answer: %w", err)
	}
	return plain, nil
}
