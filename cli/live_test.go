package cli_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestCommandsOfAnAccount runs each script against a server of its own.
func TestCommandsOfAnAccount(t *testing.T) {
	t.Parallel()
	scripts, err := filepath.Glob("testdata/live/*.txtar")
	if err != nil || len(scripts) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, script := range scripts {
		t.Run(filepath.Base(script), func(t *testing.T) {
			t.Parallel()
			r, _ := startDev(t, "--nodes", "2")
			testscript.Run(t, testscript.Params{
				Files: []string{script},
				Setup: func(e *testscript.Env) error {
					e.Setenv("AZURE_BATCH_ENDPOINT", r.Endpoint)
					e.Setenv("AZURE_BATCH_ACCOUNT", r.Account)
					e.Setenv("AZURE_BATCH_ACCESS_KEY", r.AccountKey)
					e.Setenv("PATH", e.Getenv("PATH")+string(os.PathListSeparator)+os.Getenv("PATH"))
					return nil
				},
			})
		})
	}
}
