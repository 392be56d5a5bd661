package cli

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/go-viper/mapstructure/v2"
	"github.com/knadh/koanf/parsers/toml/v2"
	"github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/v2"
)

// Config is the configuration of a server. A TOML file and the environment set
// it; docs/configuration.md lists every name.
type Config struct {
	// Data is the folder that holds everything: database, blobs, nodes.
	Data string `koanf:"data"`
	// Database is a postgres:// URL; empty is SQLite in the data folder.
	Database string       `koanf:"database"`
	Listen   ListenConfig `koanf:"listen"`
	TLS      TLSConfig    `koanf:"tls"`
	// URL is the address of the API as nodes reach it.
	URL      string          `koanf:"url"`
	Accounts []AccountConfig `koanf:"accounts"`
	Storage  []AccountConfig `koanf:"storage"`
	Nodes    NodesConfig     `koanf:"nodes"`
	Fetch    FetchConfig     `koanf:"fetch"`
	Log      LogConfig       `koanf:"log"`
	Limits   LimitsConfig    `koanf:"limits"`
}

// ListenConfig has addresses as host:port.
type ListenConfig struct {
	// API serves the Batch API and the nodes; Blob the storage; Debug metrics
	// and profiles, empty for none.
	API   string `koanf:"api"`
	Blob  string `koanf:"blob"`
	Debug string `koanf:"debug"`
}

// TLSConfig names the server's certificate. Without one a certificate of a
// local authority is made, which clients must be told to trust.
type TLSConfig struct {
	Certificate string `koanf:"certificate"`
	Key         string `koanf:"key"`
	// Names are what the made certificate is for, beside localhost.
	Names []string `koanf:"names"`
}

// AccountConfig is a Batch or storage account and its keys in base64.
type AccountConfig struct {
	Name string `koanf:"name"`
	Key1 string `koanf:"key1"`
	Key2 string `koanf:"key2"`
}

// NodesConfig is about compute nodes.
type NodesConfig struct {
	// Max is how many nodes may run on this machine.
	Max int `koanf:"max"`
	// Lease is how long a node may keep tasks running without its server.
	Lease time.Duration `koanf:"lease"`
	// Show are folders of this machine that tasks see as they are, although they
	// are in /tmp, /var/tmp or /dev/shm, of which each node has its own.
	Show []string `koanf:"show"`
	// Authorities is a PEM file of certificates that agents trust when they fetch
	// and send files, beside those of the machine.
	Authorities string `koanf:"authorities"`
}

// FetchConfig is about what tasks may fetch.
type FetchConfig struct {
	// Allow lists host:port that tasks may reach although they are addresses
	// of the node's own machine.
	Allow []string `koanf:"allow"`
}

// LogConfig is about the log.
type LogConfig struct {
	// Level is debug, info, warn or error; Format text or json.
	Level  string `koanf:"level"`
	Format string `koanf:"format"`
}

func defaultConfig() Config {
	return Config{
		Data:   defaultData(),
		Listen: ListenConfig{API: "127.0.0.1:8443", Blob: "127.0.0.1:10000"},
		Nodes:  NodesConfig{Max: 64, Lease: time.Minute},
		Log:    LogConfig{Level: "info", Format: "text"},
	}
}

// envPrefix begins the variables that set a value: BATCHYARD_LISTEN_API is
// listen.api.
const envPrefix = "BATCHYARD_"

// envParts are the parts of the configuration that variables may set; accounts
// need a list and so a file.
var envParts = []string{"data", "database", "listen", "tls", "url", "nodes", "fetch", "log", "limits"}

// loadConfig reads the file, if any, and the environment over the defaults.
func loadConfig(path string, environ []string) (Config, error) {
	config := defaultConfig()
	k := koanf.New(".")
	if path != "" {
		if err := k.Load(file.Provider(path), toml.Parser()); err != nil {
			return config, fmt.Errorf("read configuration %s: %w", path, err)
		}
	}
	err := k.Load(env.Provider(".", env.Opt{
		Prefix: envPrefix, EnvironFunc: func() []string { return environ },
		TransformFunc: func(name, value string) (string, any) {
			path := strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(name, envPrefix)), "_", ".")
			if part, _, _ := strings.Cut(path, "."); !slices.Contains(envParts, part) {
				return "", nil // a variable of a task or of a test, not ours
			}
			return path, value
		},
	}), nil)
	if err != nil {
		return config, fmt.Errorf("read environment: %w", err)
	}
	var met mapstructure.Metadata
	decoder := &mapstructure.DecoderConfig{
		Result: &config, TagName: "koanf", WeaklyTypedInput: true, Metadata: &met,
		DecodeHook: mapstructure.ComposeDecodeHookFunc(
			mapstructure.StringToTimeDurationHookFunc(), mapstructure.StringToSliceHookFunc(",")),
	}
	if err := k.UnmarshalWithConf("", &config, koanf.UnmarshalConf{Tag: "koanf", DecoderConfig: decoder}); err != nil {
		return config, fmt.Errorf("configuration: %w", err)
	}
	if len(met.Unused) > 0 { // a misspelt name must not be a silent default
		slices.Sort(met.Unused)
		return config, fmt.Errorf("configuration: there is no setting %s", strings.Join(met.Unused, ", "))
	}
	return config, config.validate()
}

// minLease is the shortest lease with which a busy machine does not take its
// own nodes for lost.
const minLease = 2 * time.Second

func (c Config) validate() error {
	switch {
	case c.Nodes.Lease < minLease:
		return fmt.Errorf("configuration: nodes.lease is at least %s, not %s", minLease, c.Nodes.Lease)
	case slices.ContainsFunc(c.Nodes.Show, func(folder string) bool { return !filepath.IsAbs(folder) }):
		return fmt.Errorf("configuration: nodes.show has absolute paths, not %q", c.Nodes.Show)
	case c.Nodes.Max < 0:
		return fmt.Errorf("configuration: nodes.max is not negative, as %d is", c.Nodes.Max)
	case (c.TLS.Certificate == "") != (c.TLS.Key == ""):
		return errors.New("configuration: tls.certificate and tls.key go together")
	}
	return errors.Join(checkURL(c.URL), c.Limits.validate(), uniqueNames("accounts", c.Accounts), uniqueNames("storage", c.Storage), c.refusePublic())
}

// logger makes the program's log.
func (c LogConfig) logger(w io.Writer) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Level)); err != nil {
		return nil, usageError{fmt.Errorf("log level %q is none of debug, info, warn, error", c.Level)}
	}
	options := &slog.HandlerOptions{Level: level, ReplaceAttr: bounded}
	switch c.Format {
	case "text":
		return slog.New(slog.NewTextHandler(w, options)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, options)), nil
	}
	return nil, usageError{fmt.Errorf("log format %q is neither text nor json", c.Format)}
}
