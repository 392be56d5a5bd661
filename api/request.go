package api

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/gate"
)

// call is one request on its way through the package. It lives on the goroutine
// of the request and is not used after ServeHTTP, with which all that it holds is
// given back: buffer, memory, place.
type call struct {
	*server
	w http.ResponseWriter
	r *http.Request

	id    string // request-id
	start time.Time
	base  string // scheme and host of all addresses in the answer

	// query has the first value of each parameter by its name in lower case.
	// Later values and empty ones need not have been signed, so that they mean
	// nothing.
	query map[string]string
	// sent are the parameters in query, in their order and with their names as
	// sent.
	sent []param
	// words are the bare words of the query.
	words []string

	route   *route
	params  []string // of the path, unescaped
	version *version
	account batch.AccountName

	body    *bytes.Buffer // from bodies, given back at the end
	bodyErr error         // what is wrong with the body, if anything
	// measured is set when the body is read.
	measured measured
	place    *gate.Class // where a place is held, nil before and after the work
	held     int64       // bytes of Buffers
	// firstByte ends a streaming call that has not begun its answer in time.
	firstByte *time.Timer
	status    int  // of the answer, 0 before it began
	stopped   bool // the caller went away
}

// param is one parameter of the query.
type param struct{ name, value string }

// bodies keeps buffers for bodies and answers. One that grew large is dropped,
// so that one large request does not hold memory for ever.
var bodies = sync.Pool{New: func() any { return new(bytes.Buffer) }}

const maxKept = 64 << 10

// getBuffer gives an empty buffer, for putBuffer when nobody reads from it any
// more.
func getBuffer() *bytes.Buffer { return bodies.Get().(*bytes.Buffer) }

func putBuffer(b *bytes.Buffer) {
	if b.Cap() <= maxKept {
		b.Reset()
		bodies.Put(b)
	}
}

// begin sets the headers that every answer has before anything can go wrong, so that
// errors have them too.
func (s *server) begin(w http.ResponseWriter, r *http.Request) *call {
	c := &call{server: s, w: w, r: r, id: uuid.NewString(), start: s.Now(), base: s.BaseURL(r), version: &version{}}
	c.setCommonHeaders()
	return c
}

// context is the request's, with the deadline of the call.
func (c *call) context() context.Context { return c.r.Context() }

// parseQuery reads the query with the rules that make it safe beside the
// signature; see package auth, Candidates.
func (c *call) parseQuery() error {
	c.query = map[string]string{}
	for part := range strings.SplitSeq(c.r.URL.RawQuery, "&") {
		rawName, rawValue, equals := strings.Cut(part, "=")
		if part == "" {
			continue
		}
		name, err := url.QueryUnescape(rawName)
		if err != nil {
			return badQuery()
		}
		if !equals {
			c.words = append(c.words, strings.ToLower(name))
			continue
		}
		value, err := url.QueryUnescape(rawValue)
		if err != nil {
			return badQuery()
		}
		lower := strings.ToLower(name)
		if _, seen := c.query[lower]; seen {
			continue
		}
		c.query[lower] = value
		if value != "" {
			c.sent = append(c.sent, param{name, value})
		}
	}
	return nil
}

func badQuery() error {
	return batch.Errorf(batch.CodeInvalidURI, "The query of the request is not well encoded.")
}

// setDeadline bounds the call by the timeout parameter, in seconds. Of a streaming
// call it bounds only the time up to the first byte: how long a file takes depends
// on who reads it. That a caller may ask for more than the limit and gets the limit
// is how the service does it.
func (c *call) setDeadline() (context.CancelFunc, error) {
	limit := defaultTimeout
	if text := c.query["timeout"]; text != "" {
		seconds, err := parseCount(text)
		if err != nil || seconds < 1 {
			return nil, badParameter("timeout", text, "It is a number of seconds, at least 1")
		}
		limit = time.Duration(min(seconds, int64(limit/time.Second))) * time.Second
	}
	if c.route.streams {
		ctx, cancel := context.WithCancelCause(c.r.Context())
		c.firstByte = time.AfterFunc(limit, func() { cancel(context.DeadlineExceeded) })
		c.r = c.r.WithContext(ctx)
		return func() { c.firstByte.Stop(); cancel(nil) }, nil
	}
	ctx, cancel := context.WithTimeout(c.r.Context(), limit)
	c.r = c.r.WithContext(ctx)
	return cancel, nil
}

// parseCount reads a whole number in digits alone, without the sign that Go
// would take.
func parseCount(text string) (int64, error) {
	n, err := strconv.ParseUint(text, 10, 63)
	return int64(n), err
}

// beginStream lifts the time limit: from here on the answer takes as long as
// the caller takes to read it. False: it came too late.
func (c *call) beginStream() bool { return c.firstByte == nil || c.firstByte.Stop() }

// flag reads a parameter that is true or false; false when absent.
func (c *call) flag(name string) (bool, error) {
	switch text := c.query[strings.ToLower(name)]; {
	case text == "", strings.EqualFold(text, "false"):
		return false, nil
	case strings.EqualFold(text, "true"):
		return true, nil
	default:
		return false, badParameter(name, text, "It is true or false")
	}
}

// Parameters of paths, in the order of the route's pattern.
func (c *call) pool() batch.PoolID   { return batch.PoolID(c.params[0]) }
func (c *call) node() batch.NodeID   { return batch.NodeID(c.params[1]) }
func (c *call) job() batch.JobID     { return batch.JobID(c.params[0]) }
func (c *call) task() batch.TaskID   { return batch.TaskID(c.params[1]) }
func (c *call) fileName() string     { return c.params[len(c.params)-1] }
func (c *call) url(of string) string { return c.base + "/" + of }

// end gives back what the call holds, answers after a panic, and tells how it
// went.
func (c *call) end() {
	defer c.observe()
	defer c.Buffers.Give(c.held)
	defer c.leave()
	if c.body != nil {
		defer putBuffer(c.body)
	}
	if p := recover(); p != nil {
		if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
			panic(p)
		}
		c.failPanic(p)
	}
}

// observe counts by pattern and not by path, whose names have no end.
func (c *call) observe() {
	operation, status := "unknown", c.status
	if c.route != nil {
		operation = c.route.method + " " + c.route.pattern
	}
	if c.stopped {
		status = statusGone
	}
	c.Observe(operation, status, c.Now().Sub(c.start))
}

// statusGone is how an answer counts that nobody waited for.
const statusGone = 499
