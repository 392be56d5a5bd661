package blob

import (
	"context"
	"errors"
	"fmt"
	"hash/crc64"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"runtime/debug"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/batchyard/batchyard/disk"
	"github.com/batchyard/batchyard/store"
)

const (
	// defaultVersion is the version of the protocol told to a client that
	// names none. Newer and older ones are accepted as they come: the subset
	// served here reads the same in all of them.
	defaultVersion = "2021-12-02"

	// slowest is the rate, in bytes a second, below which a client is cut off,
	// and patience what it has on top, so that nobody holds a connection, a
	// file and a reader for ever.
	slowest  = 16 << 10
	patience = 2 * time.Minute
)

// Options says what a Server works with.
type Options struct {
	DB    *store.DB
	Bytes Bytes

	// Now reads the clock; time.Now if nil.
	Now func() time.Time

	// Log gets unexpected errors; discarded if nil.
	Log *slog.Logger

	// Metrics gets the counters, named batchyard_blob_*; nil for nowhere.
	Metrics prometheus.Registerer

	// Limits bound what is worked on at a time.
	Limits Limits
}

// Server is the storage endpoint, an http.Handler for all of its paths. Run
// keeps its house; without it nothing is lost, but garbage stays.
type Server struct {
	db       *store.DB
	bytes    Bytes
	now      func() time.Time
	log      *slog.Logger
	metrics  *metrics
	readers  *readers
	crcTable *crc64.Table
	routes   []operation
	limits   Limits
	accounts accounts
}

// New makes a Server. It fails if its counters are registered already.
func New(o Options) (*Server, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	o.Limits.fill()
	m, err := newMetrics(o.Metrics)
	if err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	return &Server{
		db:       o.DB,
		bytes:    o.Bytes,
		now:      o.Now,
		log:      o.Log,
		metrics:  m,
		readers:  newReaders(),
		crcTable: newCRCTable(),
		routes:   routes(),
		limits:   o.Limits,
	}, nil
}

// call is one request on its way to its answer.
type call struct {
	w     *answer
	r     *http.Request
	id    string // told to the client and written to the log
	now   time.Time
	at    place
	query url.Values
	grant grant
}

// ServeHTTP answers a request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := &call{w: &answer{ResponseWriter: w}, r: r, id: uuid.NewString(), now: s.now()}
	name, start := "unknown", time.Now()
	defer func() {
		broken := s.recovered(c, recover())
		s.metrics.answered(name, c.w.status, c.w.sent, time.Since(start))
		if broken {
			panic(http.ErrAbortHandler)
		}
	}()
	c.begin()
	operation, err := s.route(c)
	name = operation.name
	if err == nil {
		err = s.serve(c, operation)
	}
	if err != nil {
		s.fail(c, name, err)
	}
}

// serve does what is asked when it is its turn.
func (s *Server) serve(c *call, op operation) error {
	leave, err := s.admit(c, op)
	if err != nil {
		return err
	}
	defer leave()
	return op.serve(s, c)
}

// recovered deals with what recover gave and says whether the answer cannot be
// finished.
func (s *Server) recovered(c *call, trouble any) (broken bool) {
	if trouble == nil {
		return false
	}
	if err, ok := trouble.(error); !ok || !errors.Is(err, http.ErrAbortHandler) {
		s.log.Error("request panicked", "request", c.id, "panic", trouble, "stack", string(debug.Stack()))
		if c.w.status == 0 {
			c.writeFault(asFault(errors.New("panic")))
			return false
		}
	}
	return true
}

// begin writes the headers that every answer has.
func (c *call) begin() {
	h := c.w.Header()
	h.Set("Server", "Batchyard-Blob/1.0")
	h.Set("X-Ms-Request-Id", c.id)
	version := c.r.Header.Get("X-Ms-Version")
	if !isVersion(version) {
		version = defaultVersion
	}
	h.Set("X-Ms-Version", version)
	if id := c.r.Header.Get("X-Ms-Client-Request-Id"); len(id) <= 1024 {
		if id != "" {
			h.Set("X-Ms-Client-Request-Id", id)
		}
	}
	c.allowWrite(c.r.ContentLength) // the last request of the connection may have left less
}

// isVersion reports whether s is a version of the protocol, which is a date.
func isVersion(s string) bool {
	_, err := time.Parse(time.DateOnly, s)
	return err == nil
}

// route takes the address apart, verifies the signature and finds the operation
// that it must allow.
func (s *Server) route(c *call) (operation, error) {
	unknown := operation{name: "unknown"}
	if c.r.Method == http.MethodOptions {
		return unknown, refuse(corsPreflightFailure, "CORS is not enabled here.")
	}
	var err error
	if c.query, err = url.ParseQuery(c.r.URL.RawQuery); err != nil {
		return unknown, refuse(invalidURI, "The query of the address does not parse.")
	}
	if c.at, err = splitPlace(c.r.Host, c.r.URL.EscapedPath()); err != nil {
		return unknown, err
	}
	if c.grant, err = s.authenticate(c); err != nil {
		return unknown, err
	}
	op, err := s.find(c)
	if err != nil {
		return unknown, err
	}
	if err := c.grant.allow(c.at.level(), op.needs); err != nil {
		return op, err
	}
	if version := c.r.Header.Get("X-Ms-Version"); version != "" && !isVersion(version) {
		return op, invalidHeader("x-ms-version", version, "it must be a date like "+defaultVersion)
	}
	return op, checkHeaders(c.r.Header)
}

// fail answers with an error, or breaks an answer off that has begun, so that
// the client cannot take it for whole.
func (s *Server) fail(c *call, operation string, err error) {
	f := asFault(err)
	if f.code == serverBusy && c.r.ContentLength != 0 {
		c.w.Header().Set("Connection", "close") // the body is not read
	}
	if f.code == internalError || disk.IsFull(err) {
		gone := c.r.Context().Err() != nil || errors.As(err, new(*net.OpError))
		if !gone {
			s.log.Error("storage request failed", "request", c.id, "operation", operation,
				"account", c.at.account, "container", c.at.container, "blob", c.at.blob, "error", err)
		}
	}
	if c.w.status != 0 {
		panic(http.ErrAbortHandler)
	}
	c.writeFault(f)
}

// allowRead gives the client the time to send so many bytes. A server that is
// not a real connection, as in a test, knows no such time.
func (c *call) allowRead(bytes int64) (done func()) {
	control := http.NewResponseController(c.w)
	_ = control.SetReadDeadline(time.Now().Add(allowance(bytes)))
	return func() {
		// The deadline must not hit the server's watch for a client that
		// hangs up.
		_ = control.SetReadDeadline(time.Time{})
	}
}

// allowWrite gives the client the time to take so many bytes.
func (c *call) allowWrite(bytes int64) {
	_ = http.NewResponseController(c.w).SetWriteDeadline(time.Now().Add(allowance(bytes)))
}

// allowance is how long the slowest client that is served may take for so many
// bytes.
func allowance(bytes int64) time.Duration {
	return patience + time.Duration(max(bytes, 0)/slowest)*time.Second
}

// answer is a ResponseWriter that knows what went through it.
type answer struct {
	http.ResponseWriter
	status int
	sent   int64
}

// WriteHeader notes the status.
func (a *answer) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
	}
	a.ResponseWriter.WriteHeader(status)
}

// Write counts.
func (a *answer) Write(p []byte) (int, error) {
	if a.status == 0 {
		a.status = http.StatusOK
	}
	n, err := a.ResponseWriter.Write(p)
	a.sent += int64(n)
	return n, err
}

// ReadFrom lets the connection take a file as it is.
func (a *answer) ReadFrom(r io.Reader) (int64, error) {
	if a.status == 0 {
		a.status = http.StatusOK
	}
	n, err := io.Copy(a.ResponseWriter, r)
	a.sent += n
	return n, err
}

// Unwrap is for http.ResponseController.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// remove deletes files that belong to no blob. What cannot be deleted is left
// for the sweep.
func (s *Server) remove(ctx context.Context, files []string) {
	ctx = context.WithoutCancel(ctx) // a client that hangs up must not leave them behind
	for _, file := range files {
		if err := s.bytes.Delete(ctx, file); err != nil {
			s.log.Warn("content file not removed", "file", file, "error", err)
		}
	}
}

// free removes files that a committed update has freed, once nobody reads them.
func (s *Server) free(ctx context.Context, files []string) {
	if len(files) > 0 {
		s.remove(ctx, s.readers.doom(files))
	}
}

// notFound turns the store's word for a missing row into the protocol's.
func notFound(err error, c code) error {
	if !errors.Is(err, store.ErrNotFound) {
		return err
	}
	if c == containerNotFound {
		return refuse(c, "The specified container does not exist.")
	}
	return refuse(c, "The specified blob does not exist.")
}

// reply answers without a body.
func (c *call) reply(status int) error {
	c.w.Header().Set("Content-Length", "0")
	c.allowWrite(0)
	c.w.WriteHeader(status)
	return nil
}

// param is a query parameter, of which the protocol ignores the case.
func (c *call) param(name string) string { return strings.ToLower(c.query.Get(name)) }
