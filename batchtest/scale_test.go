//go:build !race

package batchtest_test

// schedules is how many random schedules a test plays by default.
const schedules = 1000
