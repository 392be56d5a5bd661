package batch

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite docs/states.md from the tables")

// statesDocument is where the tables are printed for users.
const statesDocument = "../docs/states.md"

// TestTheStatesDocumentIsWhatTheTablesSay keeps the document and the code from
// parting: it is generated from the tables that decide.
func TestTheStatesDocumentIsWhatTheTablesSay(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	b.WriteString("# States\n\nGenerated from the tables in package `batch` by `go test ./batch -update`. A move that is not listed is refused.\n")
	section(&b, "Pool: allocation", allocationMoves)
	section(&b, "Compute node", nodeMoves)
	section(&b, "Job", jobMoves)
	section(&b, "Task", taskMoves)
	if *update {
		if err := os.WriteFile(statesDocument, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(statesDocument)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(text), b.String()); diff != "" {
		t.Errorf("docs/states.md is stale, run go test ./batch -update (-document +tables):\n%s", diff)
	}
}

func section[S ~string](b *strings.Builder, title string, moves map[S][]S) {
	fmt.Fprintf(b, "\n## %s\n\n| from | to |\n| --- | --- |\n", title)
	for _, from := range slices.Sorted(maps.Keys(moves)) {
		to := joinWords(moves[from])
		if to == "" {
			to = "gone"
		}
		fmt.Fprintf(b, "| %s | %s |\n", from, to)
	}
}
