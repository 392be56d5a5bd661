package cli_test

import (
	"bytes"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/batchyard/batchyard/cli"
	"github.com/google/go-cmp/cmp"
)

// unit is what a file of systemd says, by section and name.
type unit map[string]map[string]string

func readUnit(t *testing.T, name string) (unit, string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "deploy", "systemd", name))
	if err != nil {
		t.Fatal(err)
	}
	u, section := unit{}, ""
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		name, value, is := strings.Cut(line, "=")
		switch {
		case line == "", strings.HasPrefix(line, "#"):
		case strings.HasPrefix(line, "["):
			section = strings.Trim(line, "[]")
			u[section] = map[string]string{}
		case !is || u[section][name] != "":
			t.Fatalf("%s: %q", name, line)
		default:
			u[section][name] = value
		}
	}
	return u, string(text)
}

// The units of deploy/systemd say what agents and tasks need to outlive a
// server, and start commands that exist.
func TestUnits(t *testing.T) {
	t.Parallel()
	for name, command := range map[string]string{
		"batchyard.service":        "server --config /etc/batchyard/server.toml",
		"batchyard-agent@.service": "agent run --config /var/lib/batchyard-nodes/%i/state/node.json",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			u, text := readUnit(t, name)
			service := u["Service"]
			want := map[string]string{
				"KillMode": "process", "Delegate": "yes", "OOMPolicy": "continue", "TasksMax": "infinity", "Restart": "on-failure",
				"ExecStart": "/usr/local/bin/batchyard " + command,
			}
			got := map[string]string{}
			for name := range want {
				got[name] = service[name]
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
			// All that tasks would inherit, or that would end more than the main process.
			for _, name := range slices.Sorted(maps.Keys(service)) {
				if strings.HasPrefix(name, "Private") || strings.HasPrefix(name, "Protect") || strings.HasPrefix(name, "Restrict") ||
					slices.Contains([]string{"NoNewPrivileges", "SystemCallFilter", "MemoryMax", "MemoryHigh", "ExecStop", "FinalKillSignal", "SendSIGHUP"}, name) {
					t.Errorf("%s=%s is inherited by tasks", name, service[name])
				}
			}

			flag := strings.Index(command, " --config")
			var help bytes.Buffer
			arguments := append(strings.Fields(command[:flag]), "--help")
			if code := cli.Main(t.Context(), cli.Process{Args: arguments, Stdout: &help, Stderr: &help}); code != 0 || !strings.Contains(help.String(), "--config") {
				t.Errorf("batchyard %s: %d, %s", strings.Join(arguments, " "), code, &help)
			}
			verifyUnit(t, name, text)
		})
	}
}

// verifyUnit has systemd read a unit, whose program is another that is there.
func verifyUnit(t *testing.T, name, text string) {
	t.Helper()
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("SKIPPED: there is no systemd-analyze")
	}
	folder := t.TempDir()
	path := filepath.Join(folder, strings.Replace(name, "@", "@node", 1))
	text = strings.ReplaceAll(text, "/usr/local/bin/batchyard ", "/bin/true ")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	said, err := exec.CommandContext(t.Context(), "systemd-analyze", "verify", "--man=no", "--generators=no", path).CombinedOutput()
	for line := range strings.Lines(string(said)) {
		if strings.Contains(line, filepath.Base(path)) { // else it speaks of the machine's own units
			t.Errorf("systemd says: %s (%v)", line, err)
		}
	}
}
