package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

// options are what is measured, and the sizes.
type options struct {
	binary   string
	slow     string
	data     string
	rows     string
	rounds   int
	tasks    int
	first    int
	submit   int
	million  int
	latency  int
	idle     time.Duration
	peers    bool
	profiles string
	document string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if code, ours := runPart(ctx, os.Args[1:]); ours {
		os.Exit(code)
	}
	var o options
	flag.StringVar(&o.binary, "binary", "bin/batchyard", "the program to measure")
	flag.StringVar(&o.slow, "slow-binary", ".cache/bench/batchyard-slow", "the same, built with -tags slowcommit")
	flag.StringVar(&o.data, "data", "", "folder for data, on the disk to measure; default a temporary one")
	flag.StringVar(&o.rows, "rows", "", "rows to measure, as 1,4; default all")
	flag.IntVar(&o.rounds, "rounds", 3, "how often each row is measured; the median counts")
	flag.IntVar(&o.tasks, "tasks", 10_000, "tasks of a run")
	flag.IntVar(&o.first, "first", 3_000, "tasks of a run that the first second decides")
	flag.IntVar(&o.submit, "submit", 100_000, "tasks of a submission")
	flag.IntVar(&o.million, "million", 1_000_000, "tasks that wait in rows 8 to 11, 14 and 18")
	flag.IntVar(&o.latency, "latency", 300, "tasks started one by one")
	flag.DurationVar(&o.idle, "idle", time.Minute, "how long an idle server is watched")
	flag.BoolVar(&o.peers, "peers", true, "measure other schedulers too, those that can be had")
	flag.StringVar(&o.profiles, "profiles", ".cache/bench/profiles", "folder for processor profiles of rows that miss their aim; none if empty")
	flag.StringVar(&o.document, "document", "", "Markdown file whose figures are replaced; none if empty")
	flag.Parse()
	if err := run(ctx, o, os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// bench is one run of this program.
type bench struct {
	options
	log     io.Writer
	figures []figure
}

// parts are the measurements in their order: small ones first, and the peers
// last, because packages are installed for them.
func (b *bench) parts() []part {
	return []part{
		{[]string{"0"}, b.measureSpawning},
		{[]string{"1", "2", "4", "15"}, b.measureDraining},
		{[]string{"1a"}, b.measureFirstSecond},
		{[]string{"1b", "1c"}, b.measureSlowCommits},
		{[]string{"17"}, b.measureSeen},
		{[]string{"5", "6"}, b.measureSubmission},
		{[]string{"7"}, b.measureLatency},
		{[]string{"13"}, b.measureSimulated},
		{[]string{"18"}, b.measureQueues},
		{[]string{"16"}, b.measureIdle},
		{[]string{"8", "9", "10", "11", "14"}, b.measureMillion},
		{[]string{"3"}, b.measurePeers},
	}
}

// part measures one or more rows.
type part struct {
	rows    []string
	measure func(context.Context) error
}

// run measures what was asked for. A part that fails leaves the others their
// figures; its error comes last.
func run(ctx context.Context, o options, out, log io.Writer) error {
	b := &bench{options: o, log: log}
	description := describeMachine(o.data)
	var failed error
	for _, p := range b.parts() {
		if ctx.Err() != nil || !slices.ContainsFunc(p.rows, b.wants) {
			continue
		}
		began := time.Now()
		if err := p.measure(ctx); err != nil {
			failed = errors.Join(failed, fmt.Errorf("rows %s: %w", strings.Join(p.rows, ", "), err))
		}
		b.say("rows %s took %.0f s", strings.Join(p.rows, ", "), time.Since(began).Seconds())
	}
	if ctx.Err() != nil {
		return errors.Join(ctx.Err(), failed)
	}
	text := description + "\n\n" + table(b.figures)
	if _, err := io.WriteString(out, text); err != nil {
		return err
	}
	if failed == nil && o.document != "" {
		failed = replaceFigures(o.document, text)
	}
	return failed
}

// wants tells whether a row was asked for.
func (b *bench) wants(row string) bool {
	return b.rows == "" || slices.Contains(strings.Split(b.rows, ","), row)
}

// say tells whoever waits how far it is.
func (b *bench) say(format string, args ...any) { _, _ = fmt.Fprintf(b.log, format+"\n", args...) }
