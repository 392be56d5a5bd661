package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"time"
)

// options are the sizes of the measurements.
type options struct {
	binary   string
	data     string
	rounds   int
	tasks    int
	submit   int
	latency  int
	profiles string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	var o options
	flag.StringVar(&o.binary, "binary", "bin/batchyard", "the program to measure")
	flag.StringVar(&o.data, "data", "", "folder for data, on the disk to measure; default a temporary one")
	flag.IntVar(&o.rounds, "rounds", 3, "how often each row is measured; the median counts")
	flag.IntVar(&o.tasks, "tasks", 10_000, "tasks of a run")
	flag.IntVar(&o.submit, "submit", 100_000, "tasks of a submission")
	flag.IntVar(&o.latency, "latency", 300, "tasks started one by one")
	flag.StringVar(&o.profiles, "profiles", "", "folder for processor profiles of the server; none if empty")
	flag.Parse()
	if err := measure(ctx, o, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// row is one line of the table.
type row struct {
	name  string
	value string
	note  string
}

func measure(ctx context.Context, o options, w io.Writer) (err error) {
	s, err := startServer(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	var rows []row
	for _, step := range []func(context.Context, *server, options) ([]row, error){runTasks, submitTasks, startLatency} {
		some, err := step(ctx, s, o)
		if err != nil {
			return err
		}
		rows = append(rows, some...)
	}
	return printTable(w, rows)
}

func printTable(w io.Writer, rows []row) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, %d cores, %s, %s\n\n| row | figure | note |\n| --- | --- | --- |\n",
		processor(), runtime.NumCPU(), kernel(), time.Now().UTC().Format(time.DateOnly))
	for _, r := range rows {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", r.name, r.value, r.note)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func processor() string {
	text, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

func kernel() string {
	text, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	return "Linux " + strings.TrimSpace(string(text))
}

// median of a list that is not empty.
func median[T int | float64 | time.Duration](values []T) T {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}

// percentile of a list that is not empty; p is 0 to 1.
func percentile[T int | float64 | time.Duration](values []T, p float64) T {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[min(len(sorted)-1, int(p*float64(len(sorted))))]
}
