package conversation

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/batchyard/batchyard/batch"
)

// metrics of the conversation.
type metrics struct {
	ended   *prometheus.CounterVec // by result of the run
	lost    prometheus.Counter
	syncs   prometheus.Histogram
	waiting prometheus.Gauge
	// carried are the tasks in reports and in orders, by which of them.
	carried *prometheus.CounterVec
}

func newMetrics(registry prometheus.Registerer) *metrics {
	m := &metrics{
		lost: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "batchyard_control_nodes_lost_total", Help: "Compute nodes that were given up because they were silent.",
		}),
		ended: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "batchyard_control_task_runs_total", Help: "Runs of tasks that ended, by result.",
		}, []string{"result"}),
		syncs: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "batchyard_control_sync_seconds", Help: "How long calls of compute nodes took, waiting included.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .05, .25, 1, 5, 21},
		}),
		carried: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "batchyard_control_tasks_carried_total", Help: "Tasks named in reports and in orders of compute nodes, however often.",
		}, []string{"in"}),
		waiting: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "batchyard_control_syncs_waiting", Help: "Calls of compute nodes that are held.",
		}),
	}
	if registry != nil {
		registry.MustRegister(m.ended, m.lost, m.syncs, m.waiting, m.carried)
	}
	return m
}

// observe counts what a report brought, once it is on disk.
func (m *metrics) observe(h *hearing) {
	m.ended.WithLabelValues("success").Add(float64(h.succeeded))
	m.ended.WithLabelValues("failure").Add(float64(h.ended - h.succeeded))
}

// carry counts what a call and its answer, which may be nil, have named.
func (m *metrics) carry(report *batch.NodeReport, orders *batch.NodeOrders) {
	m.carried.WithLabelValues("reports").Add(float64(len(report.Tasks)))
	if orders != nil {
		m.carried.WithLabelValues("orders").Add(float64(len(orders.Tasks)))
	}
}
