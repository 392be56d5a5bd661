package control_test

import (
	"flag"
	"os"
	"testing"
)

// TestMain keeps the random runs few, because each of their steps is on disk;
// -rapid.checks asks for more.
func TestMain(m *testing.M) {
	checks := "30"
	if raced {
		checks = "8"
	}
	if err := flag.Set("rapid.checks", checks); err != nil {
		panic(err)
	}
	flag.Parse()
	os.Exit(m.Run())
}
