//go:build linux

package keeper_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"time"

	"github.com/batchyard/batchyard/agent/run"
)

// helperMain is a program that runs as a task of a test, or beside it.
func helperMain(name string, args []string) {
	var err error
	switch name {
	case "hog":
		hog()
	case "agent":
		err = agent(args, startInTurn)
	case "hasty agent":
		err = agent(args, startAtOnce)
	case "rootless":
		err = rootless(args)
	default:
		err = fmt.Errorf("no helper %q", name)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(99)
	}
}

// hog takes memory until it is stopped.
func hog() {
	var all [][]byte
	for len(all) < 4096 {
		block := make([]byte, 1<<20)
		for i := range block {
			block[i] = byte(i)
		}
		all = append(all, block)
	}
	fmt.Println("nobody stopped me", len(all))
}

// helperOptions are those of a node whose agent is a process of its own.
func helperOptions(dir, cgroups string) run.Options {
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return run.Options{
		Dir:     dir,
		Command: []string{self},
		Env:     []string{"RUN_TEST_KEEPER=1"},
		Cgroups: run.Cgroups(cgroups),
		Linger:  time.Minute,
	}
}

// agent is an agent that starts tasks and then does nothing until it is killed
// or its standard input ends. Arguments: keeper's folder, control groups, length
// of the lease, and a script for each task.
func agent(args []string, start func(context.Context, *run.Keeper, []string) error) error {
	ctx := context.Background()
	k, err := run.Open(ctx, helperOptions(args[0], args[1]))
	if err != nil {
		return err
	}
	lease, err := time.ParseDuration(args[2])
	if err != nil {
		return err
	}
	if err := k.Lease(lease); err != nil {
		return err
	}
	if err := start(ctx, k, args[3:]); err != nil {
		return err
	}
	_, err = bufio.NewReader(os.Stdin).ReadString('\n')
	return err
}

// startInTurn starts one task after another and says when all run.
func startInTurn(ctx context.Context, k *run.Keeper, scripts []string) error {
	for i, script := range scripts {
		if _, err := helperTask(k, i, script).Start(ctx); err != nil {
			return err
		}
	}
	fmt.Println("started")
	return nil
}

// startAtOnce says that it has started all before it does.
func startAtOnce(ctx context.Context, k *run.Keeper, scripts []string) error {
	fmt.Println("started")
	for i, script := range scripts {
		go func() { _, _ = helperTask(k, i, script).Start(ctx) }()
	}
	return nil
}

func helperTask(k *run.Keeper, i int, script string) *run.Process {
	return k.Process(run.Spec{
		ID: fmt.Sprintf("task%d", i), Args: []string{"/bin/sh", "-c", script}, Dir: "/", Env: []string{"PATH=/usr/bin:/bin"},
	})
}

// rootless is an agent that runs one script and tells how it ended and what it
// can enforce. Arguments: keeper's folder, control groups and the script.
func rootless(args []string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	k, err := run.Open(ctx, helperOptions(args[0], args[1]))
	if err != nil {
		return err
	}
	if err := k.Lease(time.Minute); err != nil {
		return err
	}
	p := k.Process(run.Spec{
		ID: "task", Args: []string{"/bin/sh", "-c", args[2]}, Dir: "/", Env: []string{"PATH=/usr/bin:/bin"},
		Limits: run.Limits{FileBytes: 1 << 20},
	})
	if _, err := p.Start(ctx); err != nil {
		return err
	}
	r, err := p.Wait(ctx)
	if err != nil {
		return err
	}
	c := k.Capabilities()
	fmt.Println(r.Reason, r.ExitCode, c.Root, c.Groups, len(c.Missing) > 0)
	return k.Shutdown(ctx)
}
