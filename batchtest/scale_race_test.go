//go:build race

package batchtest_test

// The race detector slows the database down the most, so clusters are smaller
// under it; `make test` plays those of full size without it.
const (
	schedules = 40
	bigNodes  = 50
	bigTasks  = 2000
)
