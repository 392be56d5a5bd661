package api

import (
	"log/slog"
	"net/http"
	"time"

	"github.com/batchyard/batchyard/control"
	"github.com/batchyard/batchyard/conversation"
	"github.com/batchyard/batchyard/gate"
)

// Options are what the protocol needs of the rest of the program.
type Options struct {
	// Control are the verbs, required.
	Control *control.Service
	// Nodes is asked for files of nodes.
	Nodes *conversation.Room
	// BaseURL finds the scheme and host by which a caller reaches the server,
	// without a slash at the end. Answers carry it, and callers follow it. The
	// default is the host of the request, with https on a TLS connection.
	BaseURL func(*http.Request) string
	// Now is the clock, time.Now by default.
	Now func() time.Time
	// Log gets what callers are not told; nothing is logged by default.
	Log *slog.Logger
	// MaxBody bounds the body of a request in bytes; the service's own limit of
	// 1 MiB is the default.
	MaxBody int64
	// Classes bound the requests that are worked on at a time; more of them
	// wait, and are told ServerBusy when that takes too long. Those that are
	// nil have bounds that suit a small machine.
	Classes Classes
	// Buffers bounds the memory of bodies and large answers; nil is no bound.
	Buffers *gate.Budget
	// Late tells requests that came over a connection for which there was no
	// room any more; they are told ServerBusy. Nil: none did.
	Late func(*http.Request) bool
	// Observe is told of each answer, for metrics: the operation as in
	// "GET pools/{pool}", the status (499 when the caller went away), and how
	// long it took.
	Observe func(operation string, status int, took time.Duration)
}

// Bounds of a request for which the options or the caller name none.
const (
	defaultMaxBody = 1 << 20
	// defaultTimeout bounds the work for one request, and is the largest value
	// of the timeout parameter that has an effect.
	defaultTimeout = 30 * time.Second
)

// server is the handler that New gives. What it has of the protocol is compiled
// once and then only read, so that requests share it without a lock.
type server struct {
	Options
	router   *router
	versions map[string]*version // by name, each with its rewrites
	strange  strangers           // versions that are not known, told of once
	// selectable are the members that $select may name.
	selectable map[kind]*selectable
	// members are those of the answers of a kind, for project.
	members map[kind][]answerMember
}

// New makes the handler of the whole protocol, to be mounted at "/".
func New(o Options) http.Handler {
	if o.BaseURL == nil {
		o.BaseURL = requestURL
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.MaxBody <= 0 {
		o.MaxBody = defaultMaxBody
	}
	o.Classes.fill()
	if o.Observe == nil {
		o.Observe = func(string, int, time.Duration) {}
	}
	s := &server{
		Options: o, router: newRouter(routes), versions: compileVersions(),
		selectable: selectableMembers(), members: map[kind][]answerMember{},
	}
	for k, t := range answerTypes() {
		s.members[k] = membersOf(t)
	}
	return s
}

// requestURL is the address that the caller used.
func requestURL(r *http.Request) string {
	if r.TLS != nil {
		return "https://" + r.Host
	}
	return "http://" + r.Host
}

// ServeHTTP answers one request.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := s.begin(w, r)
	defer c.end()
	if err := c.serve(); err != nil {
		c.fail(err)
	}
}

// serve finds the operation, checks who asks, and runs the handler.
//
// The order is what a caller can see of it. Operation and version come before the
// signature, so that a wrong address is called that and not a wrong key; neither
// tells anything of an account. The signature comes before
// the body: whoever has no key has no memory of ours either.
func (c *call) serve() error {
	if err := c.parseQuery(); err != nil {
		return err
	}
	if err := c.findRoute(); err != nil {
		return err
	}
	// The oldest versions are looked at while the route is found.
	if c.version.name == "" {
		v, err := c.parseVersion(c.query["api-version"])
		if err != nil {
			return err
		}
		c.version = v
	}
	cancel, err := c.setDeadline()
	if err != nil {
		return err
	}
	defer cancel()
	if err := c.authenticate(); err != nil {
		return err
	}
	if err := c.admit(); err != nil {
		return err
	}
	return c.route.handle(c)
}
