//go:build race

package control_test

// raced: the race detector slows the database down some forty times, so tests of
// many tasks have fewer.
const raced = true
