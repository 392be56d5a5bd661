package gate

import "github.com/prometheus/client_golang/prometheus"

// Describe makes a class a collector of Prometheus: its figures are read when
// they are asked for.
func (c *Class) Describe(to chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, to) }

// Collect tells how full the class is.
func (c *Class) Collect(to chan<- prometheus.Metric) {
	s := c.State()
	tell := func(name, help string, kind prometheus.ValueType, value float64) {
		desc := prometheus.NewDesc("batchyard_gate_"+name, help, nil, prometheus.Labels{"class": c.Name})
		to <- prometheus.MustNewConstMetric(desc, kind, value)
	}
	tell("places", "Requests that may be worked on at a time.", prometheus.GaugeValue, float64(c.Places))
	tell("running", "Requests that are worked on.", prometheus.GaugeValue, float64(s.Running))
	tell("waiting", "Requests that wait for a place.", prometheus.GaugeValue, float64(s.Waiting))
	tell("queued_total", "Requests that had to wait for a place.", prometheus.CounterValue, float64(s.Queued))
	tell("refused_total", "Requests that got no place.", prometheus.CounterValue, float64(s.Refused))
}

// Describe makes a budget a collector of Prometheus.
func (b *Budget) Describe(to chan<- *prometheus.Desc) { prometheus.DescribeByCollect(b, to) }

// Collect tells how much of the budget is taken.
func (b *Budget) Collect(to chan<- prometheus.Metric) {
	tell := func(name, help string, kind prometheus.ValueType, value float64) {
		to <- prometheus.MustNewConstMetric(prometheus.NewDesc("batchyard_gate_"+name, help, nil, nil), kind, value)
	}
	tell("bytes", "Memory that bodies and answers of requests hold.", prometheus.GaugeValue, float64(b.Used()))
	tell("bytes_limit", "Memory that they may hold.", prometheus.GaugeValue, float64(b.size))
	tell("bytes_refused_total", "Requests refused because it was taken.", prometheus.CounterValue, float64(b.refused.Load()))
}
