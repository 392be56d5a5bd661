package cli

import (
	"context"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/nodelink"
	"github.com/prometheus/client_golang/prometheus"
)

// observeAPI counts the answers of the API, and tells a developer of each.
func observeAPI(registry prometheus.Registerer, log *slog.Logger) func(operation string, status int, took time.Duration) {
	requests := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "batchyard_api_requests_total", Help: "Answers of the Batch API, by operation and HTTP status; 499 is a caller who went away.",
	}, []string{"operation", "status"})
	seconds := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "batchyard_api_seconds", Help: "Time from a request of the Batch API to the end of its answer.",
		Buckets: []float64{0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5, 10, 30},
	}, []string{"operation"})
	registry.MustRegister(requests, seconds)
	return func(operation string, status int, took time.Duration) {
		requests.WithLabelValues(operation, strconv.Itoa(status)).Inc()
		seconds.WithLabelValues(operation).Observe(took.Seconds())
		log.Debug("request answered", "operation", operation, "status", status, "took", took)
	}
}

// maxRemarks bounds what is remembered of what nodes say.
const maxRemarks = 100

// remarks passes the calls of nodes on, and logs what their machines cannot
// enforce: each sentence once, since most nodes have it in common.
type remarks struct {
	nodelink.Server
	log *slog.Logger

	mu   sync.Mutex
	said map[string]bool // guarded by mu
}

// Sync passes a call on; an agent tells about its machine in its first ones.
func (r *remarks) Sync(ctx context.Context, node batch.NodeID, token string, report batch.NodeReport) (batch.NodeOrders, error) {
	orders, err := r.Server.Sync(ctx, node, token, report)
	if err == nil {
		keepForNode(ctx)
	}
	if err == nil && report.Agent != nil {
		for _, what := range report.Agent.Unenforced {
			if r.isNew(what) {
				r.log.Warn("compute nodes here do not enforce everything", "node", node, "what", what)
			}
		}
	}
	return orders, err
}

func (r *remarks) isNew(what string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.said[what] || len(r.said) >= maxRemarks {
		return false
	}
	if r.said == nil {
		r.said = map[string]bool{}
	}
	r.said[what] = true
	return true
}
