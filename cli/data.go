package cli

import (
	"os"
	"path/filepath"
)

// defaultData is where a server keeps its data: the place of the system for
// root, which tasks of other users can pass to reach their own folders, and a
// place of the user's own otherwise.
func defaultData() string {
	if os.Geteuid() == 0 {
		return "/var/lib/batchyard"
	}
	if base := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(base) {
		return filepath.Join(base, "batchyard")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return filepath.Join(os.TempDir(), "batchyard")
	}
	return filepath.Join(home, ".local", "share", "batchyard")
}
