package control

import (
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/batchyard/batchyard/store"
	"github.com/prometheus/client_golang/prometheus"
)

// Options say what a Service stands on.
type Options struct {
	DB  *store.DB
	Log *slog.Logger
	// NearTasks is how many tasks a list with a filter looks at before it goes
	// through the rest of a large job from two places at once; 20,000 if zero.
	NearTasks int64
	// Metrics is where counters are registered; nowhere if nil.
	Metrics prometheus.Registerer
}

// Service has the verbs. Its methods may be called from many goroutines.
type Service struct {
	db        *store.DB
	log       *slog.Logger
	nearTasks int64

	accounts accounts
	metrics  *metrics
	sequence atomic.Int64
}

// New makes a Service. It starts nothing.
func New(o Options) *Service {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.NearTasks == 0 {
		o.NearTasks = 20_000
	}
	return &Service{
		db: o.DB, log: o.Log, nearTasks: o.NearTasks, metrics: newMetrics(o.Metrics),
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
