package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"text/template"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/blob"
	"github.com/batchyard/batchyard/disk"
	"github.com/batchyard/batchyard/site"
	"github.com/spf13/cobra"
)

// devPool is the pool that is there without asking.
const devPool = "local"

// devOptions are the flags of dev.
type devOptions struct {
	data                string
	listen, blob, debug string
	nodes               int
	ephemeral, ci       bool
	logLevel            string
	maxNodes            int
	allow               []string
	nodesGiven          bool
}

func newDev(p Process) *cobra.Command {
	o := devOptions{}
	defaults := defaultConfig()
	command := &cobra.Command{
		Use:   "dev",
		Short: "Run everything on this machine: server, storage, nodes",
		Long: `dev brings up a server, storage and compute nodes on this machine, for
development and tests. It prints what clients need to run a first task.

The account and its key are public knowledge, so it listens on loopback only;
use 'batchyard server' for anything else. Work that is under way when dev stops
goes on for a minute; start dev again within it to take it up.`,
		Example: `  batchyard dev
  batchyard dev --nodes 4 --data ./data
  batchyard dev --ephemeral --ci     # in a test: one line of JSON when ready`,
		Args: noArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			o.nodesGiven = command.Flags().Changed("nodes")
			return runDev(command.Context(), p, o)
		},
	}
	flags := command.Flags()
	flags.StringVar(&o.data, "data", defaultDevData(), "keep everything in `DIR`")
	flags.StringVar(&o.listen, "listen", defaults.Listen.API, "serve the Batch API on `ADDR`, HTTP and HTTPS")
	flags.StringVar(&o.blob, "blob-listen", defaults.Listen.Blob, "serve storage on `ADDR`")
	flags.StringVar(&o.debug, "debug-listen", "", "serve metrics and profiles on `ADDR`, or, out of reach of tasks, on a socket at a path")
	flags.IntVar(&o.nodes, "nodes", runtime.NumCPU(), "size of the ready-made pool 'local'; 0 for none")
	flags.IntVar(&o.maxNodes, "max-nodes", defaults.Nodes.Max, "compute nodes on this machine at most")
	flags.StringSliceVar(&o.allow, "allow-fetch", nil, "let tasks fetch from `HOST:PORT` although it is this machine")
	flags.BoolVar(&o.ephemeral, "ephemeral", false, "keep nothing: data in a temporary folder, tasks end with dev")
	flags.BoolVar(&o.ci, "ci", false, "print one line of JSON when ready, and end with the process that started dev")
	flags.StringVar(&o.logLevel, "log-level", "warn", "debug, info, warn or error")
	return command
}

func runDev(ctx context.Context, p Process, o devOptions) (err error) {
	relax()
	for _, address := range []string{o.listen, o.blob, o.debug} {
		if address != "" && !isLoopback(address) && (address != o.debug || !isPath(address)) {
			return usageError{fmt.Errorf("dev listens on loopback only, because its keys are public, and %s is not; use 'batchyard server'", address)}
		}
	}
	if o.nodes < 0 || o.nodes > o.maxNodes {
		return usageError{fmt.Errorf("--nodes is 0 to %d on this machine (--max-nodes), not %d", o.maxNodes, o.nodes)}
	}
	if o.ci {
		parented, cancel := withParent(ctx)
		defer cancel()
		ctx = parented
	}
	config := defaultConfig()
	config.Data, config.Listen = o.data, ListenConfig{API: o.listen, Blob: o.blob, Debug: o.debug}
	config.Accounts = []AccountConfig{{Name: devAccount, Key1: devKey()}}
	config.Storage = []AccountConfig{{Name: blob.DevAccount, Key1: blob.DevKey}}
	config.Nodes.Max, config.Fetch.Allow, config.Log.Level = o.maxNodes, o.allow, o.logLevel
	if o.ephemeral {
		folder, err := temporaryData(o.data, config.Data == defaultDevData())
		if err != nil {
			return err
		}
		config.Data = folder
		defer func() { err = errors.Join(err, disk.RazePath(folder)) }()
	}
	journal, end := startJournal(p.Stderr)
	defer end()
	log, err := config.Log.logger(journal)
	if err != nil {
		return err
	}
	s := &stack{use: site.ForDev, version: p.Version, config: config, log: log, journal: journal, httpToo: true, loopbackOnly: true, ephemeral: o.ephemeral}
	if err := s.open(ctx); err != nil {
		return err
	}
	if err := s.provisionDev(ctx, o); err != nil {
		return errors.Join(err, s.close())
	}
	if err := s.announce(ctx, p.Stdout, o.ci); err != nil {
		return errors.Join(err, s.close())
	}
	if os.Geteuid() == 0 {
		_, _ = fmt.Fprintln(p.Stderr, asRoot)
	}
	err = s.run(ctx)
	if !o.ci {
		_, _ = fmt.Fprintln(p.Stderr, s.farewell())
	}
	return errors.Join(err, s.close())
}

// asRoot says what being root means.
const asRoot = "dev runs as root and its keys are public: whoever can reach its ports, any user of this machine, can run commands as root."

// temporaryData makes a folder that tasks of other users can pass, below the
// one that was asked for or the system's own.
func temporaryData(asked string, isDefault bool) (string, error) {
	parent := asked
	if isDefault {
		parent = "" // the system's place for temporary files
	} else if err := os.MkdirAll(parent, 0o711); err != nil {
		return "", fmt.Errorf("make data folder: %w", err)
	}
	folder, err := os.MkdirTemp(parent, "batchyard-")
	if err == nil {
		err = os.Chmod(folder, 0o711)
	}
	if err != nil {
		return "", fmt.Errorf("make temporary folder: %w", err)
	}
	return folder, nil
}

// provisionDev makes the accounts and the pool of dev.
func (s *stack) provisionDev(ctx context.Context, o devOptions) error {
	if err := s.provision(ctx); err != nil {
		return err
	}
	return s.ensureLocalPool(ctx, o)
}

// ensureLocalPool makes the pool that is there without asking; one that exists
// is resized only when the number of nodes was given.
func (s *stack) ensureLocalPool(ctx context.Context, o devOptions) error {
	pool, err := s.control.Pool(ctx, devAccount, devPool)
	switch {
	case batch.CodeOf(err) == batch.CodePoolNotFound && o.nodes == 0:
		return nil
	case batch.CodeOf(err) == batch.CodePoolNotFound:
		spec := localPool(o.nodes)
		if err := spec.Normalize(); err != nil {
			return fmt.Errorf("make pool %s: %w", devPool, err)
		}
		_, err = s.control.AddPool(ctx, devAccount, spec)
	case err == nil && o.nodesGiven && pool.TargetDedicatedNodes != o.nodes && pool.AllocationState == batch.AllocationSteady:
		_, err = s.control.ResizePool(ctx, devAccount, devPool, batch.PoolResize{TargetDedicatedNodes: &o.nodes}, batch.Conditions{})
	}
	if err != nil {
		return fmt.Errorf("make pool %s: %w", devPool, err)
	}
	return nil
}

// localPool shares this machine's cores and memory among its nodes.
func localPool(nodes int) batch.PoolSpecification {
	cores := max(1, runtime.NumCPU()/nodes)
	memory := max(1, machineMemory()/int64(nodes)>>30)
	return batch.PoolSpecification{
		ID: devPool, VMSize: fmt.Sprintf("custom_%dc_%dg", cores, memory), TargetDedicatedNodes: nodes, TaskSlotsPerNode: cores,
		DisplayName: "This machine",
		VirtualMachineConfiguration: &batch.VirtualMachineConfiguration{
			NodeAgentSKUID: "batch.node.ubuntu 22.04",
			ImageReference: batch.ImageReference{Publisher: "canonical", Offer: "0001-com-ubuntu-server-jammy", SKU: "22_04-lts"},
		},
	}
}

// readiness is the one line that --ci prints.
type readiness struct {
	Ready          bool   `json:"ready"`
	Endpoint       string `json:"endpoint"`
	HTTPSEndpoint  string `json:"httpsEndpoint"`
	BlobEndpoint   string `json:"blobEndpoint"`
	Account        string `json:"account"`
	AccountKey     string `json:"accountKey"`
	StorageAccount string `json:"storageAccount"`
	StorageKey     string `json:"storageKey"`
	CAFile         string `json:"caFile"`
	DataDir        string `json:"dataDir"`
	Pool           string `json:"pool,omitempty"`
	Nodes          int    `json:"nodes"`
	PID            int    `json:"pid"`

	// UsualStorage: UseDevelopmentStorage=true finds the storage.
	UsualStorage bool `json:"-"`
}

// devStorage is the address of the storage account of dev.
func (s *stack) devStorage() string {
	return "http://" + s.storage.Addr().String() + "/" + blob.DevAccount
}

// announce says that the server may be called, and how.
func (s *stack) announce(ctx context.Context, w io.Writer, ci bool) error {
	r := readiness{
		Ready: true, Endpoint: "http://" + s.api.Addr().String(), HTTPSEndpoint: "https://" + s.api.Addr().String(),
		BlobEndpoint: s.devStorage(),
		Account:      devAccount, AccountKey: devKey(), StorageAccount: blob.DevAccount, StorageKey: blob.DevKey,
		CAFile: s.caFile, DataDir: s.config.Data, PID: os.Getpid(),
		UsualStorage: s.storage.Addr().String() == defaultConfig().Listen.Blob,
	}
	switch pool, err := s.control.Pool(ctx, devAccount, devPool); {
	case err == nil: // an earlier dev may have made it with another size
		r.Pool, r.Nodes = devPool, pool.TargetDedicatedNodes
	case batch.CodeOf(err) != batch.CodePoolNotFound:
		return fmt.Errorf("read pool %s: %w", devPool, err)
	}
	if ci {
		return json.NewEncoder(w).Encode(r)
	}
	return welcome.Execute(w, r)
}

var welcome = template.Must(template.New("welcome").Parse(`Batchyard is up.

  Batch API   {{.Endpoint}}   ({{.HTTPSEndpoint}} with the authority {{.CAFile}})
  Storage     {{.BlobEndpoint}}{{if .UsualStorage}}   (UseDevelopmentStorage=true){{end}}
  Data        {{.DataDir}}
{{- if .Pool}}
  Pool        {{.Pool}}, {{.Nodes}} compute node{{if ne .Nodes 1}}s{{end}}
{{- end}}

Paste this into a shell:

  export AZURE_BATCH_ACCOUNT={{.Account}}
  export AZURE_BATCH_ACCESS_KEY={{.AccountKey}}
  export AZURE_BATCH_ENDPOINT={{.Endpoint}}
  export AZURE_STORAGE_CONNECTION_STRING='DefaultEndpointsProtocol=http;AccountName={{.StorageAccount}};AccountKey={{.StorageKey}};BlobEndpoint={{.BlobEndpoint}};'
{{- if .Pool}}

and run a first task:

  az batch job create --id first --pool-id {{.Pool}}
  az batch task create --job-id first --task-id hello --command-line "/bin/sh -c 'echo hello from \$AZ_BATCH_NODE_ID'"
  az batch task file download --job-id first --task-id hello --file-path stdout.txt --destination ./hello.txt && cat hello.txt
{{- end}}

Ctrl-C stops it.
`))

func (s *stack) farewell() string {
	if s.ephemeral {
		return "Stopped; nothing is kept."
	}
	return fmt.Sprintf("Stopped. Tasks that run go on for %s: start dev again within it to take them up.", s.config.Nodes.Lease)
}
