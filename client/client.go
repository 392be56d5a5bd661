package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/batchyard/batchyard/auth"
	"github.com/batchyard/batchyard/batch"
	"github.com/go-json-experiment/json"
)

// Version is the api-version that the client speaks.
const Version = "2025-06-01"

// maxAnswer bounds a JSON answer; a page of a thousand large tasks fits.
const maxAnswer = 256 << 20

// Client calls one account.
type Client struct {
	// Endpoint is scheme and host of the service, without a slash at the end.
	Endpoint string
	Account  string
	Key      auth.Key
	// HTTP makes the calls; http.DefaultClient if nil.
	HTTP *http.Client
}

// Call makes a call. Path is escaped as it is to be sent and begins with a
// slash; in is sent as JSON unless nil, the JSON answer is read into out unless
// nil. An error that the service gave is a [*Refusal] around a *batch.Error.
func (c *Client) Call(ctx context.Context, method, path string, query url.Values, in, out any) (http.Header, error) {
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return nil, fmt.Errorf("encode request: %w", err)
		}
	}
	response, err := c.do(ctx, method, path, query, nil, body) //nolint:bodyclose // drain closes it
	if err != nil {
		return nil, err
	}
	defer drain(response.Body)
	if out != nil {
		if err := json.UnmarshalRead(io.LimitReader(response.Body, maxAnswer), out); err != nil {
			return response.Header, fmt.Errorf("read answer of %s %s: %w", method, path, err)
		}
	}
	return response.Header, nil
}

// Stream makes a call whose answer is bytes, from a position on; the caller
// closes it. Where the bytes end before that position the service refuses with
// status 416.
func (c *Client) Stream(ctx context.Context, path string, from int64) (io.ReadCloser, error) {
	header := http.Header{}
	if from > 0 {
		header.Set("ocp-range", fmt.Sprintf("bytes=%d-", from))
	}
	response, err := c.do(ctx, http.MethodGet, path, nil, header, nil)
	if err != nil {
		return nil, err
	}
	return response.Body, nil
}

func (c *Client) do(ctx context.Context, method, path string, query url.Values, header http.Header, body []byte) (*http.Response, error) {
	values := url.Values{"api-version": {Version}}
	for name, value := range query {
		values[name] = value
	}
	request, err := http.NewRequestWithContext(ctx, method, c.Endpoint+path+"?"+values.Encode(), bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	maps.Copy(request.Header, header)
	if body != nil {
		request.Header.Set("Content-Type", "application/json; odata=minimalmetadata")
		request.Header.Set("Content-Length", strconv.Itoa(len(body)))
	}
	if err := auth.SignBatch(request, c.Account, c.Key, time.Now()); err != nil {
		return nil, fmt.Errorf("sign request: %w", err)
	}
	caller := c.HTTP
	if caller == nil {
		caller = http.DefaultClient
	}
	response, err := caller.Do(request)
	if err != nil {
		return nil, fmt.Errorf("call service: %w", err)
	}
	if response.StatusCode < 300 {
		return response, nil
	}
	defer drain(response.Body)
	return nil, refusal(response)
}

// Refusal is an error that the service answered.
type Refusal struct {
	// Status is the HTTP status.
	Status int
	// RequestID names the call in the log of the server; it may be empty.
	RequestID string
	Err       *batch.Error
}

func (r *Refusal) Error() string { return r.Err.Error() }

func (r *Refusal) Unwrap() error { return r.Err }

// wireError is the protocol's body of an error.
type wireError struct {
	Code    batch.Code `json:"code"`
	Message struct {
		Value string `json:"value"`
	} `json:"message"`
	Values []batch.Detail `json:"values"`
}

func refusal(response *http.Response) error {
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		return fmt.Errorf("read refusal %s of %s: %w", response.Status, response.Request.URL.Host, err)
	}
	var e wireError
	if err := json.Unmarshal(body, &e); err != nil || e.Code == "" {
		return fmt.Errorf("%s answered %s, and not in the words of the Batch service", response.Request.URL.Host, response.Status)
	}
	return &Refusal{
		Status: response.StatusCode, RequestID: response.Header.Get("request-id"),
		Err: &batch.Error{Code: e.Code, Message: requestTail.ReplaceAllString(strings.TrimSpace(e.Message.Value), ""), Details: e.Values},
	}
}

// requestTail is what the protocol puts behind each message: the id and the
// time of the call, which are in headers too.
var requestTail = regexp.MustCompile(`(?s)\s*\bRequestId:.*$`)

// drain lets the connection be used again.
func drain(body io.ReadCloser) {
	_, _ = io.CopyN(io.Discard, body, 256<<10)
	_ = body.Close()
}

// page is a list answer.
type page[T any] struct {
	Value []T    `json:"value"`
	Next  string `json:"odata.nextLink"`
}

// Each follows a list to its end, page by page. It ends with the first error.
func Each[T any](ctx context.Context, c *Client, path string, query url.Values) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for {
			var p page[T]
			if _, err := c.Call(ctx, http.MethodGet, path, query, nil, &p); err != nil {
				yield(*new(T), err)
				return
			}
			for _, item := range p.Value {
				if !yield(item, nil) {
					return
				}
			}
			if p.Next == "" {
				return
			}
			next, err := url.Parse(p.Next)
			if err != nil {
				yield(*new(T), fmt.Errorf("read next link: %w", err))
				return
			}
			query = next.Query()
		}
	}
}

// all reads a list whole.
func all[T any](ctx context.Context, c *Client, path string, query url.Values) ([]T, error) {
	var items []T
	for item, err := range Each[T](ctx, c, path, query) {
		if err != nil {
			return nil, err
		}
		items = append(items, item)
	}
	return items, nil
}

// WaitFor asks until done says so, at an interval that grows from 20 ms to a
// second. Errors of the transport, and of a server that is busy or starting,
// are waited out; others end it.
func WaitFor(ctx context.Context, done func(context.Context) (bool, error)) error {
	for pause := 20 * time.Millisecond; ; pause = min(pause*3/2, time.Second) {
		ok, err := done(ctx)
		if refused, known := errors.AsType[*batch.Error](err); known && refused.Code != batch.CodeServerBusy {
			return err
		}
		if ok && err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-time.After(pause):
		}
	}
}
