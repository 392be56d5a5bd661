package api

import (
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"testing"

	"github.com/batchyard/batchyard/batch"
)

// TestStatuses reads the codes from their source, so that a new one cannot be
// forgotten: without a status it would be answered as an internal error.
func TestStatuses(t *testing.T) {
	t.Parallel()
	file, err := parser.ParseFile(token.NewFileSet(), "../batch/errors.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	codes := 0
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if of, ok := spec.Type.(*ast.Ident); !ok || of.Name != "Code" {
			return true
		}
		code, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
		if err != nil {
			t.Fatal(err)
		}
		codes++
		if statuses[batch.Code(code)] == 0 {
			t.Errorf("code %s has no status", code)
		}
		return true
	})
	if codes < 40 {
		t.Errorf("found %d codes, which cannot be all", codes)
	}
}
