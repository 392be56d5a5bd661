//go:build !race

package batchtest_test

// How many random schedules are played by default, and how large the large
// cluster is.
const (
	schedules = 2000
	bigNodes  = 1000
	bigTasks  = 100000
)
