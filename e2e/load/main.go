// Load holds thousands of connections open to a real server, reads slowly from some of them and
// works at full speed on others, while tasks run on a real node and a client on its own asks for
// something small at a steady pace. It tells what that client had to wait, whether tasks ran all
// the time, and whether anything of the server grew.
//
//	go run ./load -length 10m        # make load
//
// The server, its node, the probe and all clients share the machine.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

// options are the sizes of a load.
type options struct {
	binary  string
	data    string
	length  time.Duration
	idle    int // connections that ask once and are kept
	slow    int // clients that read a kilobyte a second
	clients int // clients at full speed
	pace    time.Duration
	patient time.Duration // how long anything may take that has to happen

	// For tests: lines of the server's configuration, how many files it may
	// open if that is bounded, and where its log goes if not to a file.
	config string
	files  int
	log    *os.File
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == probeArgument {
		if err := probeMain(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "probe:", err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var o options
	flag.StringVar(&o.binary, "binary", "bin/batchyard", "the program to put under load")
	flag.StringVar(&o.data, "data", "/var/tmp", "folder in which the server's data is made")
	flag.DurationVar(&o.length, "length", 10*time.Minute, "how long the load lasts")
	flag.IntVar(&o.idle, "idle", 2000, "idle keep-alive connections")
	flag.IntVar(&o.slow, "slow", 200, "clients that read slowly")
	flag.IntVar(&o.clients, "clients", 50, "clients at full speed")
	flag.DurationVar(&o.pace, "pace", 50*time.Millisecond, "time between two requests of the probe")
	flag.DurationVar(&o.patient, "patience", 2*time.Minute, "how long nodes may take to come, and a task to end")
	flag.Parse()
	r, err := run(ctx, o, os.Stderr)
	if r != nil {
		fmt.Print(r.table())
		err = errors.Join(err, r.verdict())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
}

// run starts a server, puts it under load and stops it.
func run(ctx context.Context, o options, progress interface{ Write([]byte) (int, error) }) (r *report, err error) {
	s, err := startServer(ctx, o)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	if err := s.prepare(ctx, o); err != nil {
		return nil, fmt.Errorf("prepare: %w", err)
	}
	r = &report{options: o, ops: newTally(), tasks: &latencies{}}
	before, err := s.sample(ctx)
	if err != nil {
		return nil, err
	}
	r.before = before
	loaded, end := context.WithTimeout(ctx, o.length)
	defer end()
	var group sync.WaitGroup
	for i := range o.idle {
		group.Go(func() { s.stayIdle(loaded, r.ops, i) })
	}
	for i := range o.slow {
		group.Go(func() { s.readSlowly(loaded, r.ops, i) })
	}
	for i := range o.clients {
		group.Go(func() { newWorker(s, r.ops, i).run(loaded) })
	}
	group.Go(func() { s.runTasks(loaded, o, r) })
	group.Go(func() { r.probe, r.probeErr = s.probe(loaded, o) })
	group.Go(func() { s.watch(loaded, r, progress) })
	group.Wait()
	r.after, err = s.settle(ctx, o, before)
	return r, err
}
