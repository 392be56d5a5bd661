package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/cli"
	"github.com/batchyard/batchyard/nodelink"
)

// runPart runs this program as what it also is: the server of row 13, or one
// of its nodes. Ours is false if it was started to measure.
func runPart(ctx context.Context, args []string) (code int, ours bool) {
	switch {
	case len(args) > 1 && args[0] == "agent" && args[1] == "run":
		if err := simulate(ctx, args[2:]); err != nil && ctx.Err() == nil {
			fmt.Fprintln(os.Stderr, "bench: simulated node:", err)
			return 1, true
		}
		return 0, true
	case len(args) > 0 && args[0] == "dev":
		return cli.Main(ctx, cli.Process{Args: args, Env: os.Environ(), Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Version: "bench"}), true
	}
	return 0, false
}

// simulated is a node that starts nothing: every task it is given has ended at
// once. It speaks as agents do, a report of results for each answer that brought
// tasks, and a call that waits when it holds none.
type simulated struct {
	server   *nodelink.Client
	instance string
	settings int64
	revision int64
	boot     int
	held     map[simulatedTask]batch.TaskReport
}

type simulatedTask struct {
	job     batch.JobID
	task    batch.TaskID
	attempt int
}

// simulate is one node until it has left its pool.
func simulate(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("agent run", flag.ContinueOnError)
	name := flags.String("config", "", "the node's file")
	if err := flags.Parse(args); err != nil {
		return err
	}
	text, err := os.ReadFile(*name)
	if err != nil {
		return err
	}
	var config struct {
		URL, Token, State string
		Node              batch.NodeID
	}
	if err := json.Unmarshal(text, &config); err != nil {
		return err
	}
	unlock, err := lockNode(config.State)
	if err != nil {
		return err
	}
	defer unlock()
	n := &simulated{
		server:   &nodelink.Client{URL: config.URL, Node: config.Node, Token: config.Token, HTTP: &http.Client{Transport: nodelink.Transport()}},
		instance: rand.Text(), held: map[simulatedTask]batch.TaskReport{},
	}
	for {
		if left, err := n.call(ctx); left || err != nil {
			return err
		}
	}
}

// lockNode holds the lock by which the server knows that a node has its agent.
func lockNode(state string) (unlock func(), err error) {
	file, err := os.OpenFile(filepath.Join(state, "agent.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	if _, err := fmt.Fprintln(file, os.Getpid()); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return func() { _ = file.Close() }, nil
}

// call reports and takes orders once. It tells whether the node has left.
func (n *simulated) call(ctx context.Context) (left bool, err error) {
	report := batch.NodeReport{
		Revision: n.revision, Settings: n.settings, Instance: n.instance, Boot: n.boot, NoWait: len(n.held) > 0 || n.revision == 0,
	}
	if n.revision == 0 {
		report.Agent = &batch.AgentInfo{Version: "bench", Hostname: "bench"}
	}
	for _, t := range n.held {
		report.Tasks = append(report.Tasks, t)
	}
	orders, err := n.server.Sync(ctx, report)
	if err != nil {
		return false, err
	}
	if orders.Leave {
		report.Left, report.Tasks, report.Revision = true, nil, orders.Revision
		_, err := n.server.Sync(ctx, report)
		return true, err
	}
	n.take(orders)
	return false, nil
}

// take forgets what the orders no longer name and ends what they name anew.
func (n *simulated) take(orders batch.NodeOrders) {
	n.revision, n.boot = orders.Revision, orders.Boot
	if orders.Settings != nil {
		n.settings = orders.Settings.Version
	}
	now, code := batch.At(time.Now()), 0
	named := make(map[simulatedTask]batch.TaskReport, len(orders.Tasks))
	for i := range orders.Tasks {
		o := &orders.Tasks[i]
		key := simulatedTask{o.Job, o.Task, o.Attempt}
		report, known := n.held[key]
		if !known {
			report = batch.TaskReport{
				Job: o.Job, Task: o.Task, Attempt: o.Attempt, Phase: batch.PhaseEnded, Start: &now,
				Outcome: &batch.Outcome{End: now, ExitCode: &code},
			}
		}
		named[key] = report
	}
	n.held = named
}

// measureSimulated drains tasks through nodes that start nothing.
func (b *bench) measureSimulated(ctx context.Context) (err error) {
	const nodes, slots = 4, 4
	self, err := os.Executable()
	if err != nil {
		return err
	}
	s, err := newServer(ctx, self, b.data)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	if err := s.pool(ctx, "simulated", nodes, slots); err != nil {
		return err
	}
	tasks := 2 * b.tasks
	var rates []float64
	var last drainResult
	drain := func(round int) error {
		r, err := s.drain(ctx, drainRun{pool: "simulated", job: batch.JobID(fmt.Sprintf("simulated-%d", round)), tasks: tasks, line: "/bin/true", queued: true})
		if err == nil {
			rates, last = append(rates, r.rate), r
		}
		return err
	}
	for round := range b.rounds {
		if err := drain(round); err != nil {
			return err
		}
	}
	rate := median(rates)
	f := figure{
		row: "13", what: "dispatch and completion, simulated nodes", goal: "20,000 / 40,000 a second",
		value: fmt.Sprintf("%.0f/s", rate), verdict: atLeast(rate, 20_000, 40_000),
		cpu: fmt.Sprintf("server %.0f µs, nodes %.0f µs", each(last.used.server, tasks), each(last.used.agent, tasks)),
		how: fmt.Sprintf("%d tasks that wait already, %d nodes of %d slots that start nothing, over HTTP; %s; the last round: %s", tasks, nodes, slots, spread("%.0f", rates), last.work.split(tasks)),
	}
	b.add(f)
	return b.explain(f, func() error {
		return s.profiled(ctx, b.profiles, "row-13", func() error { return drain(b.rounds) })
	})
}
