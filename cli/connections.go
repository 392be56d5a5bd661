package cli

import (
	"container/list"
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	// youth is how long a new connection is left in peace: within it an honest
	// client sends its first request.
	youth = 2 * time.Second
	// evictedForRoom is how many connections make room when the process has no
	// file descriptors left.
	evictedForRoom = 16
)

// connections are those of a port. There is room for so many of clients; when
// it is full, the one that has been of no use for longest goes: first those that
// have brought no request, then those whose last request was longest ago. So
// neither half-open nor idle connections keep anybody out.
//
// If all are busy, some more are let in to see what they want: a compute node
// is served and from then on not counted, and a client is told to come again.
type connections struct {
	name string
	log  *slog.Logger
	max  int // of clients
	late int // beyond that, to be asked what they want

	mu       sync.Mutex
	open     int        // guarded by mu, as all below; of clients and of yet unknown
	nodes    int        // of compute nodes
	fresh    *list.List // of *connection without a request, the oldest first
	idle     *list.List // of *connection, the one idle for longest first
	evicted  uint64
	refused  uint64
	shortage time.Time // when descriptors were short the last time
}

// stage is what a connection is doing.
type stage int

const (
	stageFresh stage = iota
	stageBusy
	stageIdle
	stageClosed
)

// connection is one of them.
type connection struct {
	net.Conn
	of   *connections
	late bool // let in beyond the room for clients

	stage stage         // guarded by of.mu, as all below
	node  bool          // a compute node's
	since time.Time     // when it was accepted
	place *list.Element // in fresh or idle
}

func newConnections(name string, most int, log *slog.Logger) *connections {
	return &connections{name: name, log: log, max: max(1, most), late: max(16, most/8), fresh: list.New(), idle: list.New()}
}

// limit makes a listener whose connections are counted.
func (c *connections) limit(listener net.Listener) net.Listener {
	return &limitedListener{listener, c}
}

type limitedListener struct {
	net.Listener
	connections *connections
}

// Accept gives the next connection for which there is room, or makes room.
func (l *limitedListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) {
				l.connections.relieve()
			}
			return nil, err // the server waits a little and tries again
		}
		if admitted := l.connections.admit(conn, time.Now()); admitted != nil {
			return admitted, nil
		}
		_ = conn.Close() // there is no room to hear what it wants
	}
}

// admit counts a connection in, or gives nil.
func (c *connections) admit(conn net.Conn, now time.Time) *connection {
	c.mu.Lock()
	admitted := &connection{Conn: conn, of: c, since: now}
	var victim *connection
	if c.open >= c.max {
		victim = c.victim(now)
		admitted.late = victim == nil
	}
	if admitted.late && c.open >= c.max+c.late {
		c.refused++
		c.mu.Unlock()
		return nil
	}
	c.open++
	admitted.place = c.fresh.PushBack(admitted)
	c.mu.Unlock()
	if victim != nil {
		_ = victim.Conn.Close() // whoever serves it sees the end
	}
	return admitted
}

// victim counts out the connection that is missed least, nil if each may be in
// the middle of something. It has yet to be closed.
func (c *connections) victim(now time.Time) *connection {
	from := c.fresh.Front()
	if from == nil || now.Sub(from.Value.(*connection).since) < youth {
		from = c.idle.Front()
	}
	if from == nil {
		return nil
	}
	victim := from.Value.(*connection)
	victim.drop()
	c.evicted++
	return victim
}

// relieve closes some connections because the process may open no more files.
func (c *connections) relieve() {
	now := time.Now()
	c.mu.Lock()
	var victims []*connection
	for range evictedForRoom {
		if v := c.victim(now); v != nil {
			victims = append(victims, v)
		}
	}
	tell := now.Sub(c.shortage) > time.Minute
	if tell {
		c.shortage = now
	}
	c.mu.Unlock()
	for _, v := range victims {
		_ = v.Conn.Close() // whoever serves it sees the end
	}
	if tell {
		c.log.Warn("no file descriptors left; idle connections are closed", "port", c.name, "closed", len(victims))
	}
}

// drop counts a connection out. The caller holds the mutex.
func (c *connection) drop() {
	if c.stage == stageClosed {
		return
	}
	c.leavePlace()
	c.stage = stageClosed
	if c.node {
		c.of.nodes--
	} else {
		c.of.open--
	}
}

func (c *connection) leavePlace() {
	if c.place == nil {
		return
	}
	if c.stage == stageFresh {
		c.of.fresh.Remove(c.place)
	} else {
		c.of.idle.Remove(c.place)
	}
	c.place = nil
}

// Close counts the connection out, once.
func (c *connection) Close() error {
	c.of.mu.Lock()
	c.drop()
	c.of.mu.Unlock()
	return c.Conn.Close()
}

// Write lets go of what a client did not take in time: the kernel would go on
// to hold it, for a client that may have stopped to read for good.
func (c *connection) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if err != nil && errors.Is(err, os.ErrDeadlineExceeded) {
		if conn, ok := c.Conn.(*net.TCPConn); ok {
			_ = conn.SetLinger(0) // the connection is about to be closed
		}
	}
	return n, err
}

// observe is a server's ConnState.
func (c *connections) observe(conn net.Conn, state http.ConnState) {
	own := ownConnection(conn)
	if own == nil || state != http.StateActive && state != http.StateIdle {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if own.stage == stageClosed {
		return
	}
	own.leavePlace()
	own.stage = stageBusy
	if state == http.StateIdle {
		own.stage = stageIdle
		if !own.node {
			own.place = c.idle.PushBack(own)
		}
	}
}

// ownConnection finds ours below those that decode.
func ownConnection(conn net.Conn) *connection {
	for {
		switch c := conn.(type) {
		case *connection:
			return c
		case *tls.Conn:
			conn = c.NetConn()
		case *peekedConn:
			conn = c.Conn
		case *wordedConn:
			conn = c.Conn
		default:
			return nil
		}
	}
}

// connectionKey is where a request's context has its *connection.
type connectionKey struct{}

// remember is a server's ConnContext.
func remember(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(rememberTLS(ctx, conn), connectionKey{}, ownConnection(conn))
}

// keepForNode notes that the caller of a request is a compute node: nothing
// that clients do closes its connection.
func keepForNode(ctx context.Context) {
	c, _ := ctx.Value(connectionKey{}).(*connection)
	if c == nil {
		return
	}
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	if !c.node && c.stage != stageClosed {
		c.node = true
		c.of.open--
		c.of.nodes++
	}
}

// cameLate tells whether a request came over a connection that was let in
// beyond the room for clients.
func cameLate(r *http.Request) bool {
	c, _ := r.Context().Value(connectionKey{}).(*connection)
	return c != nil && c.late
}

// Describe makes connections a collector of Prometheus.
func (c *connections) Describe(to chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, to) }

// Collect tells how many connections there are.
func (c *connections) Collect(to chan<- prometheus.Metric) {
	c.mu.Lock()
	idle, fresh, open, nodes, evicted, refused := c.idle.Len(), c.fresh.Len(), c.open, c.nodes, c.evicted, c.refused
	c.mu.Unlock()
	port := prometheus.Labels{"port": c.name}
	count := prometheus.NewDesc("batchyard_connections", "Open connections, by what they are for.", []string{"state"}, port)
	for state, n := range map[string]int{"new": fresh, "idle": idle, "busy": open - fresh - idle, "node": nodes} {
		to <- prometheus.MustNewConstMetric(count, prometheus.GaugeValue, float64(n), state)
	}
	total := func(name, help string, n uint64) {
		to <- prometheus.MustNewConstMetric(prometheus.NewDesc(name, help, nil, port), prometheus.CounterValue, float64(n))
	}
	total("batchyard_connections_evicted_total", "Connections closed to make room for others.", evicted)
	total("batchyard_connections_refused_total", "Connections closed at once because there was no room.", refused)
}
