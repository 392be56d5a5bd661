package nodelink

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/batchyard/batchyard/batch"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// lenient is how both ends write and read. Names of files may be any bytes on
// Linux, and come up in paths, listings and words of failures: what is not
// UTF-8 becomes U+FFFD, because a report or an order that could not be sent
// would hold up everything else about its node.
func lenient() json.Options { return jsontext.AllowInvalidUTF8(true) }

// maxOrders bounds what the agent reads of an answer: a few hundred attempts
// with specifications of at most about a megabyte each are never sent at once,
// but a wrong peer might send anything.
const maxOrders = 256 << 20

// Client is the agent's end.
type Client struct {
	// URL is the server's address, scheme and host only.
	URL string
	// Node and Token are who the agent is.
	Node  batch.NodeID
	Token string
	// HTTP makes the calls; [Transport] gives a fitting one.
	HTTP *http.Client
}

// Transport is an HTTP transport for long polls: it notices a dead peer by
// keep-alives and by a bound on how long an answer may take to begin.
func Transport() *http.Transport {
	dialer := &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 15 * time.Second}
	return &http.Transport{
		DialContext: dialer.DialContext, MaxIdleConnsPerHost: 8, IdleConnTimeout: 90 * time.Second,
		ResponseHeaderTimeout: 60 * time.Second, TLSHandshakeTimeout: 10 * time.Second,
	}
}

// Sync sends a report and waits for orders. An error that the server gave is a
// *batch.Error.
func (c *Client) Sync(ctx context.Context, report batch.NodeReport) (batch.NodeOrders, error) {
	var orders batch.NodeOrders
	body, err := json.Marshal(report, lenient())
	if err != nil {
		return orders, fmt.Errorf("encode report: %w", err)
	}
	answer, err := c.post(ctx, "sync", bytes.NewReader(body))
	if err != nil {
		return orders, err
	}
	defer drain(answer)
	if err := json.UnmarshalRead(io.LimitReader(answer, maxOrders), &orders, lenient()); err != nil {
		return orders, fmt.Errorf("read orders: %w", err)
	}
	return orders, nil
}

// AnswerFile answers a file request. Body may be nil. It returns when the
// server has passed everything on or nobody waits any more.
func (c *Client) AnswerFile(ctx context.Context, id string, answer batch.FileAnswer, body io.Reader) error {
	head, err := json.Marshal(answer, lenient())
	if err != nil {
		return fmt.Errorf("encode file answer: %w", err)
	}
	content := io.Reader(bytes.NewReader(append(head, '\n')))
	if body != nil {
		content = io.MultiReader(content, body)
	}
	reply, err := c.post(ctx, "files/"+url.PathEscape(id), content)
	if err != nil {
		return err
	}
	drain(reply)
	return nil
}

func (c *Client) post(ctx context.Context, path string, body io.Reader) (io.ReadCloser, error) {
	address := c.URL + "/nodelink/" + url.PathEscape(string(c.Node)) + "/" + path
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, address, body)
	if err != nil {
		return nil, fmt.Errorf("make node call: %w", err)
	}
	request.Header.Set("Authorization", "Bearer "+c.Token)
	request.Header.Set("Content-Type", "application/json")
	response, err := c.HTTP.Do(request) //nolint:bodyclose // the caller, or drain, closes it
	if err != nil {
		return nil, fmt.Errorf("call server: %w", err)
	}
	if response.StatusCode < 300 {
		return response.Body, nil
	}
	defer drain(response.Body)
	var refusal batch.FileError
	if err := json.UnmarshalRead(io.LimitReader(response.Body, 64<<10), &refusal, lenient()); err != nil || refusal.Code == "" {
		return nil, fmt.Errorf("server answered %s", response.Status)
	}
	return nil, &batch.Error{Code: refusal.Code, Message: refusal.Message}
}

// drain lets the connection be used again.
func drain(body io.ReadCloser) {
	_, _ = io.CopyN(io.Discard, body, 64<<10)
	_ = body.Close()
}
