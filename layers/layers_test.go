package layers_test

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/batchyard/batchyard"

// wires is the rule of a folder that may import any other and that only
// others of its kind may import.
const wires = "*"

// rules names, for each folder of the module that holds packages, the folders
// it may import.
func rules() map[string][]string {
	languages := []string{"odata", "autoscale", "auth"}
	storing := append([]string{"batch", "disk"}, languages...)
	verbs := append([]string{"store"}, storing...)
	duties := append([]string{"control"}, verbs...)
	edges := append([]string{"conversation", "scheduler", "upkeep", "apps", "fleet", "gate"}, duties...)

	return map[string][]string{
		"batch":        {},
		"odata":        {"batch"},
		"autoscale":    {"batch"},
		"auth":         {"batch"},
		"gate":         {},
		"disk":         {},
		"authority":    {"disk"},
		"store":        storing,
		"control":      verbs,
		"conversation": duties,
		"scheduler":    duties,
		"apps":         duties,
		"fleet":        duties,
		"upkeep":       append([]string{"conversation", "fleet"}, duties...),
		"api":          edges,
		"portal":       edges,
		"blob":         edges,
		"site":         append([]string{"blob"}, edges...),
		"admin":        append([]string{"blob", "site"}, edges...),
		"nodelink":     {"batch", "auth"},
		"client":       {"batch", "auth"},
		"agent":        {"batch", "disk", "auth", "nodelink", "client"},
		"telemetry":    {"batch"},
		"examples":     {"batch", "client"},
		"cli":          {wires},
		"cmd":          {wires},
		"batchtest":    {wires},
		"bench":        {wires},
		"demo":         {wires},
		"layers":       {},
	}
}

// inside names, for each package of the folder agent, the others of it that it
// may import: the line to the keeper, what an execution is, the keeper's process
// and what it is isolated by. The agent itself knows executions alone.
func inside() map[string][]string {
	return map[string][]string{
		"agent":           {"agent/run", "agent/uid"},
		"agent/uid":       {},
		"agent/run":       {"agent/link"},
		"agent/link":      {},
		"agent/isolation": {"agent/run"},
		"agent/keeper":    {"agent/run", "agent/link", "agent/isolation"},
	}
}

// standardOnly lists the folders that no library may enter.
func standardOnly() []string { return []string{"batch", "odata", "autoscale", "auth"} }

// server lists the folders that no agent may have in it, however indirectly.
func server() []string {
	return []string{
		"store", "control", "conversation", "scheduler", "upkeep", "apps", "fleet",
		"api", "portal", "blob", "authority", "site", "admin", "cli", "cmd", "batchtest",
	}
}

// shared lists the modules that several folders import: the JSON of every
// wire, the Go project's additions to its own library, metrics, which are
// declared beside the code they measure, the pauses between two tries, and
// the form that the protocol gives its random names.
func shared() []string {
	return []string{
		"github.com/cenkalti/backoff/v5",
		"github.com/go-json-experiment/json",
		"github.com/google/uuid",
		"github.com/prometheus/client_golang",
		"golang.org/x/sync",
		"golang.org/x/sys",
		"golang.org/x/time",
	}
}

// goPackage is what `go list -json` tells of a package.
type goPackage struct {
	ImportPath string
	Standard   bool
	Module     *struct{ Path string }
	Imports    []string
	Deps       []string
}

func TestLayers(t *testing.T) {
	t.Parallel()
	packages := list(t)

	t.Run("every folder has a rule", func(t *testing.T) {
		t.Parallel()
		for name := range packages {
			if folder, ours := folderOf(name); ours {
				if _, known := rules()[folder]; !known {
					t.Errorf("%s: folder %q has no rule in layers_test.go; give it one", name, folder)
				}
			}
		}
	})

	t.Run("a package imports only layers below it", func(t *testing.T) {
		t.Parallel()
		for name, p := range packages {
			folder, ours := folderOf(name)
			if !ours {
				continue
			}
			for _, imported := range p.Imports {
				target, ours := folderOf(imported)
				if ours && target != folder && !mayImport(folder, target) {
					t.Errorf("%s imports %s, which its layer does not allow", name, imported)
				}
			}
		}
	})

	t.Run("the agent's packages know those below them", func(t *testing.T) {
		t.Parallel()
		for name, p := range packages {
			own, ours := strings.CutPrefix(name, module+"/")
			if folder, _ := folderOf(name); !ours || folder != "agent" {
				continue
			}
			allowed, known := inside()[own]
			if !known {
				t.Errorf("%s has no rule in layers_test.go; give it one", own)
			}
			for _, imported := range p.Imports {
				target, _ := strings.CutPrefix(imported, module+"/")
				if folder, ours := folderOf(imported); ours && folder == "agent" && !slices.Contains(allowed, target) {
					t.Errorf("%s imports %s, which its place does not allow", own, target)
				}
			}
		}
	})

	t.Run("the lowest layers use the standard library alone", func(t *testing.T) {
		t.Parallel()
		for name, p := range packages {
			folder, ours := folderOf(name)
			if !ours || !slices.Contains(standardOnly(), folder) {
				continue
			}
			for _, imported := range p.Imports {
				if library := libraryOf(packages, imported); library != "" {
					t.Errorf("%s imports %s of %s; it may use the standard library only", name, imported, library)
				}
			}
		}
	})

	t.Run("a library is imported from one folder", func(t *testing.T) {
		t.Parallel()
		users := map[string][]string{}
		for name, p := range packages {
			folder, ours := folderOf(name)
			if !ours {
				continue
			}
			for _, imported := range p.Imports {
				library := libraryOf(packages, imported)
				if library != "" && !slices.Contains(users[library], folder) {
					users[library] = append(users[library], folder)
				}
			}
		}
		for library, folders := range users {
			if len(folders) > 1 && !slices.Contains(shared(), library) {
				slices.Sort(folders)
				t.Errorf("%s is imported from %s; keep it in one of them", library, strings.Join(folders, ", "))
			}
		}
	})

	t.Run("an agent links nothing of the server", func(t *testing.T) {
		t.Parallel()
		for name, p := range packages {
			if folder, ours := folderOf(name); !ours || folder != "agent" {
				continue
			}
			for _, dependency := range p.Deps {
				if folder, ours := folderOf(dependency); ours && slices.Contains(server(), folder) {
					t.Errorf("%s depends on %s", name, dependency)
				}
			}
		}
	})
}

// mayImport reports whether the rules let a package in folder `from` import
// one in folder `to`.
func mayImport(from, to string) bool {
	allowed := rules()[from]
	return slices.Contains(allowed, wires) || slices.Contains(allowed, to)
}

// folderOf returns the top folder of one of this module's packages, and false
// for any other package.
func folderOf(importPath string) (string, bool) {
	inside, ours := strings.CutPrefix(importPath, module+"/")
	folder, _, _ := strings.Cut(inside, "/")
	return folder, ours
}

// libraryOf returns the path of the module that holds a package, or "" for
// the standard library and for this module.
func libraryOf(packages map[string]goPackage, importPath string) string {
	p := packages[importPath]
	if p.Standard || p.Module == nil || p.Module.Path == module {
		return ""
	}
	return p.Module.Path
}

// list asks the go command for every package of this module and all that they
// depend on. Packages that do not compile are left to the compiler.
func list(t *testing.T) map[string]goPackage {
	t.Helper()
	watch(t)

	command := exec.CommandContext(t.Context(), "go", "list", "-e", "-deps",
		"-json=ImportPath,Standard,Module,Imports,Deps", "./...")
	command.Dir = ".."
	output, err := command.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}

	packages := map[string]goPackage{}
	decoder := json.NewDecoder(strings.NewReader(string(output)))
	for {
		var p goPackage
		err := decoder.Decode(&p)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("read go list's answer: %v", err)
		}
		packages[p.ImportPath] = p
	}
	if len(packages) == 0 {
		t.Fatal("go list names no packages")
	}
	return packages
}

// watch reads every folder of the module, because `go test` remembers a result
// until a file that the test itself looked at changes, and it does not see
// what the go command reads on the test's behalf.
func watch(t *testing.T) {
	t.Helper()
	err := filepath.WalkDir("..", func(name string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) || err == nil && !entry.IsDir() {
			return nil
		}
		if err != nil {
			return err
		}
		hidden := strings.HasPrefix(entry.Name(), ".") && entry.Name() != ".."
		if hidden || slices.Contains([]string{"node_modules", "testdata", "bin"}, path.Base(name)) {
			return fs.SkipDir
		}
		return nil
	})
	if err != nil {
		t.Fatalf("walk the module: %v", err)
	}
}

// TestContributingNamesWhatExists reads the table of packages that newcomers read.
func TestContributingNamesWhatExists(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../CONTRIBUTING.md")
	if err != nil {
		t.Fatal(err)
	}
	named := 0
	for row := range strings.Lines(string(text)) {
		columns := strings.Split(row, "|")
		if len(columns) != 5 {
			continue
		}
		for _, folder := range strings.Fields(columns[2]) {
			if !strings.HasPrefix(folder, "`") {
				continue // the head of the table
			}
			named++
			if _, err := os.Stat(filepath.Join("..", strings.Trim(folder, "`"))); err != nil {
				t.Errorf("CONTRIBUTING.md names a package that is not there: %v", err)
			}
		}
	}
	if named < 10 {
		t.Errorf("the table names %d packages, if it is one", named)
	}
}
