package cli

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"

	"github.com/batchyard/batchyard/agent"
	"github.com/batchyard/batchyard/agent/keeper"
	"github.com/batchyard/batchyard/agent/uid"
	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/nodelink"
	"github.com/spf13/cobra"
)

func newAgent(p Process) *cobra.Command {
	command := &cobra.Command{
		Use:   "agent",
		Short: "Run a compute node",
		Long: `The agent is a compute node: it runs tasks and reports to its server.

A server starts the agents of its own machine itself, so there is seldom a
reason to call this by hand.`,
		Args: noArgs,
		RunE: func(command *cobra.Command, _ []string) error { return command.Help() },
	}
	command.AddCommand(newAgentRun(p), newKeeper())
	return command
}

func newAgentRun(p Process) *cobra.Command {
	var path string
	command := &cobra.Command{
		Use: "run --config FILE", Short: "Run the compute node that FILE describes", Args: noArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			return runAgent(command.Context(), p, path)
		},
	}
	command.Flags().StringVar(&path, "config", "", "the node's `FILE`, written by whoever made the node")
	return command
}

func runAgent(ctx context.Context, p Process, path string) error {
	relax()
	if path == "" {
		return usageError{errors.New("--config FILE is missing")}
	}
	config, err := readNodeConfig(path)
	if err != nil {
		return err
	}
	if config.Ephemeral {
		parented, cancel := withParent(ctx)
		defer cancel()
		ctx = parented
	}
	log := slog.New(slog.NewTextHandler(p.Stderr, nil)).With("node", config.Node)
	if config.Outlives {
		outliving, cancel := outlive(ctx, log)
		defer cancel()
		ctx = outliving
	}
	transport := nodelink.Transport()
	if transport.TLSClientConfig, err = trust(config.CAFiles, config.ServerName); err != nil {
		return err
	}
	files, err := trust(config.CAFiles, "")
	if err != nil {
		return err
	}
	executable, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find own program: %w", err)
	}
	keeper := []string{executable, "agent", "keeper"}
	if config.Profiles {
		offerProfiles(ctx, privateSocket(agentSocket), log)
		keeper = append(keeper, "--profiles", privateSocket(keeperSocket))
	}
	a := agent.New(agent.Options{
		Server: &nodelink.Client{URL: config.URL, Node: config.Node, Token: config.Token, HTTP: &http.Client{Transport: transport}},
		Root:   config.Root, State: config.State, UIDBase: config.UIDBase, Version: p.Version,
		MoreUIDs: uid.Ledger{}.Further, Hide: config.Hide, Show: config.Show,
		KeeperCommand:   keeper,
		TLS:             files,
		Environ:         config.Environ,
		KillTasksOnStop: config.Ephemeral, LastWord: lastWord(config.State, log), Log: log,
	})
	log.Info("agent started", "version", p.Version, "server", config.URL)
	err = a.Run(ctx)
	log.Info("agent ended", "err", err)
	if errors.Is(err, agent.ErrLeft) || batch.CodeOf(err) == batch.CodeNodeNotFound {
		return nil // there is no such node any more, so nobody need start it again
	}
	return err
}

// trust is the TLS configuration that trusts the certificates in files beside
// the authorities of the machine, and wants a server to have a name.
func trust(files []string, name string) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: name}
	if len(files) == 0 {
		return config, nil
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("read authority: %w", err)
		}
		if !pool.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("%s has no certificate", file)
		}
	}
	config.RootCAs = pool
	return config, nil
}

// newKeeper is the parent of a node's tasks; see package keeper.
func newKeeper() *cobra.Command {
	var profiles string
	command := &cobra.Command{
		Use: "keeper", Short: "Keep the processes of a node (started by its agent)", Hidden: true, Args: noArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			relaxGarbage() // its timers are relaxed from the start
			log := slog.New(slog.NewTextHandler(os.Stderr, nil))
			// Signals that are meant for the server do not end it.
			ctx := context.WithoutCancel(command.Context())
			if profiles != "" {
				offerProfiles(ctx, profiles, log)
			}
			return keeper.Main(ctx, os.Stdin, os.Stdout, log)
		},
	}
	command.Flags().StringVar(&profiles, "profiles", "", "offer profiles on the socket `PATH`")
	return command
}
