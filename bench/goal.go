package main

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// A figure is one line of the table.
type figure struct {
	row     string
	what    string
	goal    string
	value   string
	verdict verdict
	cpu     string // processor time a task, where there are tasks
	how     string
}

// verdict is how a figure compares with its goals.
type verdict int

// Verdicts. Several of one row count as the worst of them.
const (
	unjudged verdict = iota
	aimed
	held
	missed
)

func (v verdict) String() string {
	return []string{"", "aim", "hold", "**missed**"}[v]
}

// atLeast judges a figure that should be large.
func atLeast(value, hold, aim float64) verdict {
	switch {
	case value >= aim:
		return aimed
	case value >= hold:
		return held
	}
	return missed
}

// atMost judges a figure that should be small.
func atMost(value, hold, aim float64) verdict { return atLeast(-value, -hold, -aim) }

// worst of several verdicts.
func worst(all ...verdict) verdict { return slices.Max(all) }

func (b *bench) add(f figure) {
	b.figures = append(b.figures, f)
	b.say("%s %s: %s %s", f.row, f.what, f.value, f.verdict)
}

// median of a list that is not empty.
func median[T int | float64 | time.Duration](values []T) T {
	sorted := slices.Sorted(slices.Values(values))
	if n := len(sorted); n%2 == 0 {
		return (sorted[n/2-1] + sorted[n/2]) / 2
	}
	return sorted[len(sorted)/2]
}

// percentile of a list that is not empty; p is 0 to 1.
func percentile[T cmp.Ordered](values []T, p float64) T {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[min(len(sorted)-1, int(p*float64(len(sorted))))]
}

// spread writes the smallest and the largest of several rounds.
func spread(format string, values []float64) string {
	if len(values) < 2 {
		return "one round"
	}
	return fmt.Sprintf(format+" to "+format, slices.Min(values), slices.Max(values))
}

// ratios divides the rounds of one by those of another that ran in turn.
func ratios(ours, theirs []float64) []float64 {
	all := make([]float64, len(ours))
	for i := range ours {
		all[i] = ours[i] / theirs[i]
	}
	return all
}

// milliseconds of a duration, as a number.
func milliseconds(d time.Duration) float64 { return d.Seconds() * 1000 }
