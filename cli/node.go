package cli

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/batchyard/batchyard/agent/uid"
	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/control"
	"github.com/batchyard/batchyard/disk"
	"github.com/batchyard/batchyard/fleet"
)

// nodeConfig is what a node's agent is told when it is started. It is kept in
// the node's private folder, since it has the node's secret.
type nodeConfig struct {
	nodeAccess

	Node  batch.NodeID `json:"node"`
	Token string       `json:"token"`

	Root    string `json:"root"`
	State   string `json:"state"`
	UIDBase uint32 `json:"uidBase"`
	// Hide are folders of the server, of which tasks see nothing, and Show are
	// folders that they see although the node has its own in their place.
	Hide []string `json:"hide,omitempty"`
	Show []string `json:"show,omitempty"`
	// Ephemeral: the node's tasks end with its agent, and the agent with the
	// server.
	Ephemeral bool `json:"ephemeral,omitempty"`
	// Outlives: the agent goes on when its server is told to end by a signal that
	// it gets too; whoever watches over it ends it by another.
	Outlives bool `json:"outlives,omitempty"`
	// Profiles has agent and keeper offer profiles to whoever may enter the
	// private folder.
	Profiles bool `json:"profiles,omitempty"`
}

const nodeConfigName = "node.json"

// nodeLauncher makes the command lines of the agents of this machine.
type nodeLauncher struct {
	executable string
	access     nodeAccess
	hide, show []string
	ephemeral  bool
	profiles   bool
}

func (l nodeLauncher) command(node control.NodeWanted, folder string, token func() (string, error)) (*exec.Cmd, error) {
	base, err := userNumbers(folder)
	if err != nil {
		return nil, err
	}
	config := nodeConfig{
		nodeAccess: l.access, Node: node.Node, Root: filepath.Join(folder, "root"), State: filepath.Join(folder, "state"),
		UIDBase: base, Hide: l.hide, Show: l.show, Ephemeral: l.ephemeral, Outlives: !l.ephemeral, Profiles: l.profiles,
	}
	path := filepath.Join(config.State, nodeConfigName)
	// A file that cannot be read counts as absent: a power cut may have left it
	// empty.
	if before, err := readNodeConfig(path); err == nil && before.Token != "" {
		config.Token = before.Token
	} else if config.Token, err = token(); err != nil {
		return nil, fmt.Errorf("make node token: %w", err)
	}
	text, err := json.Marshal(config)
	if err != nil {
		return nil, err
	}
	if err := disk.WriteFile(path, text, 0o600); err != nil {
		return nil, fmt.Errorf("write node configuration: %w", err)
	}
	log, err := os.OpenFile(filepath.Join(folder, fleet.AgentLog), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open agent log: %w", err)
	}
	// The agent outlives the server, so no context ends it.
	command := exec.Command(l.executable, "agent", "run", "--config", path) //nolint:noctx // see above
	command.Stdout, command.Stderr = log, log
	command.Dir = folder
	command.Env = append([]string{"PATH=" + os.Getenv("PATH")}, l.access.Environ...)
	return command, nil
}

// userNumbers is the first of the user numbers of the node in a folder, 0 if its
// tasks cannot have any: without root, and in a container whose root is nobody
// else.
func userNumbers(folder string) (uint32, error) {
	if os.Geteuid() != 0 || !uid.Available() {
		return 0, nil
	}
	return uid.Ledger{}.Block(folder)
}

// stale tells whether the agent in a folder looks for the server elsewhere, or
// trusts others.
func (l nodeLauncher) stale(folder string) bool {
	config, err := readNodeConfig(filepath.Join(folder, "state", nodeConfigName))
	return err == nil && !config.equal(l.access)
}

func readNodeConfig(path string) (nodeConfig, error) {
	var config nodeConfig
	text, err := os.ReadFile(path)
	if err != nil {
		return config, fmt.Errorf("read node configuration: %w", err)
	}
	if err := json.Unmarshal(text, &config); err != nil {
		return config, fmt.Errorf("read node configuration %s: %w", path, err)
	}
	return config, nil
}
