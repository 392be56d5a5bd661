package main

import (
	"fmt"
	"os"
	"testing"
	"time"
)

// TestMain lets the test program be the probe too.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == probeArgument {
		if err := probeMain(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "probe:", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// small is a server for tests.
func small(t *testing.T) options {
	t.Helper()
	const binary = "../../bin/batchyard"
	if _, err := os.Stat(binary); err != nil {
		t.Fatalf("%v: run make build first", err)
	}
	return options{binary: binary, data: "/var/tmp", patient: 2 * time.Minute}
}

func TestLoad(t *testing.T) {
	t.Parallel()
	o := small(t)
	o.length, o.idle, o.slow, o.clients, o.pace = 8*time.Second, 150, 20, 8, 50*time.Millisecond
	r, err := run(t.Context(), o, t.Output())
	if err != nil {
		t.Error(err) // a server that does not settle is one of these
	}
	if r == nil {
		return
	}
	t.Log("\n" + r.table())
	if err := r.wrong(); err != nil {
		t.Error(err)
	}
	for _, what := range []string{"idle", "job", "add task", "get task", "delete task", "counts", "put blob", "get blob"} {
		if r.ops.get(what) == 0 {
			t.Errorf("%q never succeeded", what)
		}
	}
}

func TestVerdict(t *testing.T) {
	t.Parallel()
	r := &report{ops: newTally(), tasks: &latencies{took: []time.Duration{time.Second}}, probe: &probeResult{}}
	for range 600 {
		r.samples = append(r.samples, sample{resident: 200 << 20, heap: 100 << 20, goroutines: 2500, files: 2400})
		r.probe.Took = append(r.probe.Took, time.Millisecond)
	}
	if err := r.verdict(); err != nil {
		t.Errorf("a steady server: %v", err)
	}
	for name, spoil := range map[string]func(*sample, float64){
		"memory":      func(s *sample, i float64) { s.resident += i * (100 << 10) },
		"heap":        func(s *sample, i float64) { s.heap += i * (100 << 10) },
		"agent":       func(s *sample, i float64) { s.agents += i * (50 << 10) },
		"goroutines":  func(s *sample, i float64) { s.goroutines += i },
		"descriptors": func(s *sample, i float64) { s.files += i / 3 },
	} {
		leaking := *r
		leaking.samples = make([]sample, len(r.samples))
		for i, s := range r.samples {
			spoil(&s, float64(i))
			leaking.samples[i] = s
		}
		if leaking.verdict() == nil {
			t.Errorf("growth of %s is not noticed", name)
		}
	}
	slow := *r
	slow.probe = &probeResult{Took: make([]time.Duration, 100)}
	slow.probe.Took[98], slow.probe.Took[99] = time.Second, time.Second
	if slow.verdict() == nil {
		t.Error("a slow answer in fifty is not noticed")
	}
}
