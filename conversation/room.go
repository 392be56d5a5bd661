package conversation

import (
	"crypto/rand"
	"log/slog"
	"time"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/control"
	"github.com/batchyard/batchyard/store"
	"github.com/prometheus/client_golang/prometheus"
)

// DefaultLease is how long an agent may keep tasks running without an answer.
const DefaultLease = time.Minute

// Options say what a Room stands on.
type Options struct {
	DB      *store.DB
	Control *control.Service
	Log     *slog.Logger
	// Now reads the clock that leases of nodes go by; time.Now if nil.
	Now func() time.Time
	// Lease is how long an agent may keep tasks running without an answer;
	// DefaultLease if zero. The server waits a quarter longer before it gives
	// a node up.
	Lease time.Duration
	// AccountURL is the address of an account's service as its tasks see it.
	AccountURL func(batch.AccountName) string
	// AllowHosts are hosts, as host:port, that fetches for tasks may reach
	// although they are loopback or link-local addresses.
	AllowHosts []string
	// Metrics is where counters are registered; nowhere if nil.
	Metrics prometheus.Registerer
}

// Room is where nodes are heard. Its methods may be called from many
// goroutines.
type Room struct {
	db         *store.DB
	control    *control.Service
	log        *slog.Logger
	now        func() time.Time
	lease      time.Duration
	accountURL func(batch.AccountName) string
	allowHosts []string

	// epoch names the time in which the memory below was kept: what an agent
	// has from another, it may have from a database that was put back since.
	epoch   string
	memory  memory
	files   files
	metrics *metrics
}

// New makes a Room. It starts nothing.
func New(o Options) *Room {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Lease == 0 {
		o.Lease = DefaultLease
	}
	if o.AccountURL == nil {
		o.AccountURL = func(batch.AccountName) string { return "" }
	}
	return &Room{
		epoch: rand.Text(),
		db:    o.DB, control: o.Control, log: o.Log, now: o.Now, lease: o.Lease,
		accountURL: o.AccountURL, allowHosts: o.AllowHosts, metrics: newMetrics(o.Metrics),
	}
}
