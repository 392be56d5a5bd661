package control

import (
	"github.com/prometheus/client_golang/prometheus"
)

// metrics of the verbs that matter for throughput.
type metrics struct {
	added    prometheus.Counter
	assigned prometheus.Counter
	recalled prometheus.Counter
}

func newMetrics(registry prometheus.Registerer) *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "batchyard_control_" + name, Help: help})
	}
	m := &metrics{
		added:    counter("tasks_added_total", "Tasks that were added."),
		assigned: counter("tasks_assigned_total", "Tasks that were bound to a compute node."),
		recalled: counter("tasks_recalled_total", "Tasks that a compute node was asked to give back before it began them."),
	}
	if registry != nil {
		registry.MustRegister(m.added, m.assigned, m.recalled)
	}
	return m
}
