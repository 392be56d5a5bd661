package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

// report is what a run showed.
type report struct {
	options
	before, after sample
	samples       []sample // one a second
	ops           *tally
	tasks         *latencies
	probe         *probeResult
	probeErr      error
	sampleErrs    []string
}

// What the probe may have to wait at the 99th percentile.
const probeGoal = 50 * time.Millisecond

// watch takes a sample each second and says each minute how it goes.
func (s *server) watch(ctx context.Context, r *report, progress io.Writer) {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		v, err := s.sample(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			r.sampleErrs = append(r.sampleErrs, err.Error())
			continue
		}
		r.samples = append(r.samples, v)
		if len(r.samples)%60 == 0 {
			fmt.Fprintf(progress, "%d s: %s\n", len(r.samples), v)
		}
	}
}

func (v sample) String() string {
	const mib = 1 << 20
	return fmt.Sprintf("resident %.0f MiB, heap %.0f MiB, agent %.0f MiB, %.0f goroutines, %.0f descriptors, %.0f refused",
		v.resident/mib, v.heap/mib, v.agents/mib, v.goroutines, v.files, v.refused)
}

// settle waits until the server is as it was before the load, but for what it keeps to be quick.
func (s *server) settle(ctx context.Context, o options, before sample) (sample, error) {
	var after sample
	err := s.await(ctx, o.patient, func(ctx context.Context) (err error) {
		if after, err = s.sample(ctx); err != nil {
			return err
		}
		if after.goroutines > before.goroutines+30 || after.files > before.files+30 {
			return fmt.Errorf("%.0f goroutines and %.0f descriptors, %.0f and %.0f before", after.goroutines, after.files, before.goroutines, before.files)
		}
		return nil
	})
	if err != nil {
		err = fmt.Errorf("the load leaves something behind: %w", err)
	}
	return after, err
}

// growth is a figure of the server in the second tenth of the run and in the last.
type growth struct {
	name         string
	unit         float64
	of           func(sample) float64
	ratio, slack float64 // how much more the last may be
}

func growths() []growth {
	const mib = 1 << 20
	return []growth{
		{"resident memory of the server, MiB", mib, func(s sample) float64 { return s.resident }, 1.1, 16 * mib},
		{"heap of the server, MiB", mib, func(s sample) float64 { return s.heap }, 1.15, 16 * mib},
		{"resident memory of the node's agent, MiB", mib, func(s sample) float64 { return s.agents }, 1.1, 8 * mib},
		{"goroutines", 1, func(s sample) float64 { return s.goroutines }, 1.05, 50},
		{"file descriptors", 1, func(s sample) float64 { return s.files }, 1.02, 20},
	}
}

// tenth gives the median of a figure in a tenth of the run, counted from 0.
func (r *report) tenth(g growth, number int) float64 {
	n := len(r.samples)
	var values []float64
	for _, s := range r.samples[n*number/10 : n*(number+1)/10] {
		values = append(values, g.of(s))
	}
	if len(values) == 0 {
		return 0
	}
	return percentile(values, 0.5)
}

// wrong lists what must not have happened in any run.
func (r *report) wrong() error {
	var errs []error
	for _, what := range slices.Sorted(maps.Keys(r.ops.counts)) {
		if strings.HasPrefix(what, "wrong: ") {
			errs = append(errs, fmt.Errorf("%d × %s", r.ops.counts[what], what))
		}
	}
	for _, text := range r.tasks.wrong {
		errs = append(errs, errors.New("task: "+text))
	}
	for _, text := range r.sampleErrs {
		errs = append(errs, errors.New("metrics: "+text))
	}
	if r.probeErr != nil {
		return errors.Join(append(errs, r.probeErr)...)
	}
	for _, text := range r.probe.Wrong {
		errs = append(errs, errors.New("probe: "+clip(text)))
	}
	if len(r.probe.Took) == 0 {
		errs = append(errs, errors.New("the probe was never answered"))
	}
	if len(r.tasks.took) == 0 {
		errs = append(errs, errors.New("no task ran"))
	}
	return errors.Join(errs...)
}

// verdict says what is wrong, what has grown and what was too slow.
func (r *report) verdict() error {
	errs := []error{r.wrong()}
	for _, g := range growths() {
		early, late := r.tenth(g, 1), r.tenth(g, 9)
		if late > early*g.ratio+g.slack {
			errs = append(errs, fmt.Errorf("%s grew from %.0f to %.0f", g.name, early/g.unit, late/g.unit))
		}
	}
	if r.probe != nil && len(r.probe.Took) > 0 {
		if p99 := percentile(r.probe.Took, 0.99); p99 >= probeGoal {
			errs = append(errs, fmt.Errorf("the probe waited %s at the 99th percentile, not less than %s", p99, probeGoal))
		}
	}
	return errors.Join(errs...)
}

// table is the report in Markdown.
func (r *report) table() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d idle connections, %d slow readers, %d clients at full speed for %s; %s, %d cores; %s\n\n",
		r.idle, r.slow, r.clients, r.length, processor(), runtime.NumCPU(), time.Now().UTC().Format(time.DateOnly))
	b.WriteString("| figure | before | second tenth | last tenth | most | after |\n| --- | --- | --- | --- | --- | --- |\n")
	for _, g := range growths() {
		most := 0.0
		for _, s := range r.samples {
			most = max(most, g.of(s))
		}
		fmt.Fprintf(&b, "| %s | %.0f | %.0f | %.0f | %.0f | %.0f |\n", g.name,
			g.of(r.before)/g.unit, r.tenth(g, 1)/g.unit, r.tenth(g, 9)/g.unit, most/g.unit, g.of(r.after)/g.unit)
	}
	b.WriteString("\n| what | times | p50 | p99 | longest |\n| --- | --- | --- | --- | --- |\n")
	line := func(name string, took []time.Duration) {
		if len(took) > 0 {
			fmt.Fprintf(&b, "| %s | %d | %s | %s | %s |\n", name, len(took),
				short(percentile(took, 0.5)), short(percentile(took, 0.99)), short(slices.Max(took)))
		}
	}
	if r.probe != nil {
		line("small GET of the probe", r.probe.Took)
	}
	line("task from submission to completion", r.tasks.took)
	b.WriteString("\n| request | a second |\n| --- | --- |\n")
	for _, what := range slices.Sorted(maps.Keys(r.ops.counts)) {
		fmt.Fprintf(&b, "| %s | %.1f |\n", what, float64(r.ops.counts[what])/r.length.Seconds())
	}
	if r.probe != nil {
		fmt.Fprintf(&b, "\nThe probe was refused %d times.\n", r.probe.Refused)
	}
	if n := len(r.samples); n > 0 {
		fmt.Fprintf(&b, "\nThe server used %.2f cores and refused %.0f requests.\n",
			(r.samples[n-1].processor-r.samples[0].processor)/float64(max(1, n-1)), r.samples[n-1].refused)
	}
	return b.String()
}

func short(d time.Duration) string { return fmt.Sprintf("%.1f ms", d.Seconds()*1000) }

func processor() string {
	text, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}
