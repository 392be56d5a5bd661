package batch_test

import (
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/batchyard/batchyard/batch"
)

func TestGuard(t *testing.T) {
	t.Parallel()
	mistake := errors.New("a mistake")
	if err := batch.Guard(func() error { return mistake }); !errors.Is(err, mistake) {
		t.Errorf("an error comes out as %v", err)
	}
	var none map[string]int
	err := batch.Guard(func() error { none["a"] = 1; return nil })
	if err == nil || !strings.Contains(err.Error(), "nil map") {
		t.Fatalf("a panic comes out as %v", err)
	}
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Error("work failed", "err", err)
	if !strings.Contains(log.String(), "panic_test.go") {
		t.Errorf("the log does not say where: %s", log.String())
	}
}
