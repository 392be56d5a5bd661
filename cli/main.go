package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"

	"github.com/spf13/cobra"
)

// Process is what a program gets from its surroundings.
type Process struct {
	Args           []string
	Env            []string
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Version        string
}

// Main runs the program until it is done or ctx ends, and returns its exit
// code.
func Main(ctx context.Context, p Process) int {
	root := newRoot(p)
	root.SetArgs(p.Args)
	root.SetIn(p.Stdin)
	root.SetOut(p.Stdout)
	root.SetErr(p.Stderr)
	command, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	if status, said := errors.AsType[exitStatus](err); said {
		return int(status)
	}
	_, _ = fmt.Fprintf(p.Stderr, "batchyard: %s\n", explain(err))
	if _, usage := errors.AsType[usageError](err); usage {
		_, _ = fmt.Fprintf(p.Stderr, "See '%s --help'.\n", command.CommandPath())
	}
	return exitCode(err)
}

func newRoot(p Process) *cobra.Command {
	root := &cobra.Command{
		Use:   "batchyard",
		Short: "Azure Batch on your own machines",
		Long: `Batchyard runs batch jobs behind the Azure Batch API, on machines of your own.

Start with 'batchyard dev': it brings up everything on this machine and prints
what your SDK, az or curl needs to run a first task.`,
		Version:       p.Version,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noArgs,
		RunE:          func(command *cobra.Command, _ []string) error { return command.Help() },
	}
	root.SetVersionTemplate("batchyard {{.Version}} " + runtime.GOOS + "/" + runtime.GOARCH + "\n")
	root.SetUsageFunc(printUsage)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(newDev(p), newServer(p), newRun(p), newJob(p), newTask(p), newAgent(p), newAdmin(p), newVersion(p))
	return root
}

func newVersion(p Process) *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: noArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			_, err := fmt.Fprintf(command.OutOrStdout(), "batchyard %s %s/%s\n", p.Version, runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
}

// noArgs refuses arguments as a wrong call.
func noArgs(command *cobra.Command, args []string) error {
	if err := cobra.NoArgs(command, args); err != nil {
		return usageError{err}
	}
	return nil
}
