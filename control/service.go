package control

import (
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/store"
	"github.com/prometheus/client_golang/prometheus"
)

// DefaultLease is how long an agent may keep tasks running without an answer.
const DefaultLease = time.Minute

// Options say what a Service stands on.
type Options struct {
	DB  *store.DB
	Log *slog.Logger
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
	// NearTasks is how many tasks a list with a filter looks at before it goes
	// through the rest of a large job from two places at once; 20,000 if zero.
	NearTasks int64
	// Metrics is where counters are registered; nowhere if nil.
	Metrics prometheus.Registerer
}

// Service has the verbs. Its methods may be called from many goroutines.
type Service struct {
	db         *store.DB
	log        *slog.Logger
	now        func() time.Time
	lease      time.Duration
	accountURL func(batch.AccountName) string
	allowHosts []string
	nearTasks  int64

	accounts accounts
	contacts contacts
	files    files
	metrics  *metrics
	sequence atomic.Int64
}

// New makes a Service. It starts nothing.
func New(o Options) *Service {
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
	if o.NearTasks == 0 {
		o.NearTasks = 20_000
	}
	return &Service{
		db: o.DB, log: o.Log, now: o.Now, lease: o.Lease,
		accountURL: o.AccountURL, allowHosts: o.AllowHosts, nearTasks: o.NearTasks,
		metrics: newMetrics(o.Metrics),
	}
}

// take returns the first of n consecutive numbers that no other call has got:
// microseconds since 1970, pushed on where the clock does not move.
func (s *Service) take(n int, now time.Time) int64 {
	for {
		last := s.sequence.Load()
		first := max(last+1, now.UnixMicro())
		if s.sequence.CompareAndSwap(last, first+int64(n)-1) {
			return first
		}
	}
}
