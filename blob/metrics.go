package blob

import (
	"errors"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics counts what the endpoint does. Operations are a fixed list, so the
// labels are bounded.
type metrics struct {
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	received prometheus.Counter
	sent     prometheus.Counter
	swept    prometheus.Counter
}

// newMetrics makes the counters and, if there is a registry, makes them known.
func newMetrics(registry prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "batchyard_blob_requests_total",
			Help: "Requests to the storage endpoint that were answered.",
		}, []string{"operation", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "batchyard_blob_request_seconds",
			Help:    "Time from the headers of a request to the end of its answer.",
			Buckets: prometheus.ExponentialBuckets(0.001, 4, 9),
		}, []string{"operation"}),
		received: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "batchyard_blob_received_bytes_total",
			Help: "Bytes of content received.",
		}),
		sent: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "batchyard_blob_sent_bytes_total",
			Help: "Bytes of answers sent.",
		}),
		swept: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "batchyard_blob_swept_files_total",
			Help: "Content files removed because they belonged to no blob.",
		}),
	}
	if registry == nil {
		return m, nil
	}
	var errs []error
	for _, c := range []prometheus.Collector{m.requests, m.seconds, m.received, m.sent, m.swept} {
		errs = append(errs, registry.Register(c))
	}
	return m, errors.Join(errs...)
}

func (m *metrics) answered(operation string, status int, sent int64, took time.Duration) {
	m.requests.WithLabelValues(operation, strconv.Itoa(status)).Inc()
	m.seconds.WithLabelValues(operation).Observe(took.Seconds())
	m.sent.Add(float64(sent))
}
