//go:build race

package batchtest_test

// The race detector slows the database down the most, so clusters are smaller
// under it; `make test` plays those of full size without it.
const (
	schedules = 50
	bigNodes  = 100
	bigTasks  = 4000
)
