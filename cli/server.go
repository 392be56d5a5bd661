package cli

import (
	"context"
	"errors"

	"github.com/batchyard/batchyard/site"
	"github.com/spf13/cobra"
)

func newServer(p Process) *cobra.Command {
	var path string
	command := &cobra.Command{
		Use:   "server --config FILE",
		Short: "Run a server for real",
		Long: `The server serves the Batch API and storage over HTTPS, with the accounts of its
configuration, and runs compute nodes on its own machine.

FILE is TOML; variables such as BATCHYARD_LISTEN_API override it. See
docs/configuration.md. A minimal one:

  data = "/var/lib/batchyard"
  [[accounts]]
  name = "acme"
  key1 = "…base64 of 64 bytes: openssl rand -base64 64 | tr -d '\n'…"
  [[storage]]
  name = "acmestore"
  key1 = "…"`,
		Args: noArgs,
		RunE: func(command *cobra.Command, _ []string) error { return runServer(command.Context(), p, path) },
	}
	command.Flags().StringVar(&path, "config", "", "configuration `FILE`")
	return command
}

// runServer is the whole life of a server. What is wrong with the configuration is
// said before anything is opened.
func runServer(ctx context.Context, p Process, path string) error {
	relax()
	if path == "" {
		return usageError{errors.New("--config FILE is missing")}
	}
	config, err := loadConfig(path, p.Env)
	if err != nil {
		return err
	}
	if len(config.Accounts) == 0 {
		return errors.New("configuration: there are no accounts, so nobody could call; add an [[accounts]] section")
	}
	journal, end := startJournal(p.Stderr)
	defer end()
	log, err := config.Log.logger(journal)
	if err != nil {
		return err
	}
	s := &stack{use: site.ForServer, version: p.Version, config: config, log: log, journal: journal}
	if err := s.open(ctx); err != nil {
		return err
	}
	if err := s.provision(ctx); err != nil {
		return errors.Join(err, s.close())
	}
	log.Info("server ready", "version", p.Version, "api", s.url(), "listen", s.api.Addr().String(), "storage", s.storage.Addr().String(), "data", s.config.Data, "authority", s.caFile)
	err = s.run(ctx)
	err = errors.Join(err, s.close())
	if err == nil {
		log.Info("server stopped")
	}
	return err
}
