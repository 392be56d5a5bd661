//go:build race

package batchtest_test

// schedules are fewer under the race detector, which slows the database down
// the most.
const schedules = 50
