package cli

import (
	"os"
	"path/filepath"
)

// defaultData is where a server keeps its data.
func defaultData() string { return dataFolder("batchyard") }

// defaultDevData is where dev keeps its data: elsewhere, since its accounts have
// keys that everybody knows.
func defaultDevData() string { return dataFolder("batchyard-dev") }

// dataFolder is a folder of a name in the place of the system for root, which
// tasks of other users can pass to reach their own folders, and in a place of
// the user's own otherwise.
func dataFolder(name string) string {
	if os.Geteuid() == 0 {
		return filepath.Join("/var/lib", name)
	}
	if base := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(base) {
		return filepath.Join(base, name)
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return filepath.Join(os.TempDir(), name)
	}
	return filepath.Join(home, ".local", "share", name)
}
