package control_test

import (
	"flag"
	"os"
	"testing"
)

// TestMain keeps the random runs few, because each of their steps is on disk;
// -rapid.checks asks for more.
func TestMain(m *testing.M) {
	if err := flag.Set("rapid.checks", "30"); err != nil {
		panic(err)
	}
	flag.Parse()
	os.Exit(m.Run())
}
