package store

import "github.com/prometheus/client_golang/prometheus"

// Metrics are the database's counters for whoever collects them. Tasks divided
// by commits tell how well updates share them.
func (db *DB) Metrics() []prometheus.Collector {
	counter := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "batchyard_store_" + name, Help: help}, value)
	}
	return []prometheus.Collector{
		counter("commits_total", "Transactions that were committed.", func() float64 { return float64(db.writer.commits.Load()) }),
		counter("updates_total", "Updates that were answered; those of one commit share it.", func() float64 { return float64(db.writer.updates.Load()) }),
		counter("statements_total", "Statements that were run for updates and views.", func() float64 { return float64(db.statements.Load()) }),
	}
}
