// Command batchyard is the Batch service, its compute nodes and its client in
// one program.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/batchyard/batchyard/cli"
)

// version is set when a release is built.
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second signal ends the program at once.
	context.AfterFunc(ctx, stop)
	os.Exit(cli.Main(ctx, cli.Process{
		Args: os.Args[1:], Env: os.Environ(), Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Version: version,
	}))
}
