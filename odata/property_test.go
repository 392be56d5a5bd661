package odata_test

import (
	"errors"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/batchyard/batchyard/odata"
)

// Few values each, so that filters hit rows, with the awkward ones among them.
var (
	texts  = []string{"", "a", "A", "ab", "aB", "b%", "b_", "o'hara", "äö", "ä", "日本語", "a\nb", "zz", "\\", "K"}
	counts = []int64{0, 1, -1, 7, math.MaxInt64, math.MinInt64, 1 << 53, 1<<53 + 1}
	costs  = []float64{0, 1, 1.5, -2.25, 0.1, 1e300, -1e-300, 1 << 53}
	times  = []time.Time{
		time.Unix(0, 0).UTC(), noon, noon.Add(time.Microsecond), noon.Add(-time.Microsecond),
		noon.AddDate(-100, 0, 0), noon.Add(123456 * time.Microsecond),
	}
	states = []string{"active", "deleting", "resizing"}
	noon   = time.Date(2026, time.November, 1, 12, 0, 0, 0, time.UTC)
)

func drawRow(t *rapid.T, label string) row {
	r := row{label: label, values: map[string]any{}}
	maybe := func(name string, draw func() any) {
		if rapid.IntRange(0, 3).Draw(t, "has "+name) > 0 {
			r.values[name] = draw()
		}
	}
	for _, name := range names {
		maybe(name, func() any { return drawValue(t, fields[name].Kind) })
	}
	return r
}

var names = []string{"id", "name", "state", "count", "cost", "dedicated", "created", "info/exitCode"}

func drawValue(t *rapid.T, kind odata.Kind) any {
	switch kind {
	case odata.Enum:
		return rapid.SampledFrom(states).Draw(t, "state")
	case odata.Int:
		return rapid.SampledFrom(counts).Draw(t, "count")
	case odata.Float:
		return rapid.SampledFrom(costs).Draw(t, "cost")
	case odata.Bool:
		return rapid.Bool().Draw(t, "bool")
	case odata.Time:
		return rapid.SampledFrom(times).Draw(t, "time")
	default:
		return rapid.SampledFrom(texts).Draw(t, "text")
	}
}

var (
	orders    = []odata.Word{odata.Equal, odata.NotEqual, odata.Greater, odata.GreaterOrEqual, odata.Less, odata.LessOrEqual}
	equalness = orders[:2]
)

// drawExpr makes a filter that is correct by its types.
func drawExpr(t *rapid.T, depth int) odata.Expr {
	shape := rapid.IntRange(0, 7).Draw(t, "shape")
	if depth == 0 {
		shape = rapid.IntRange(3, 7).Draw(t, "leaf")
	}
	switch shape {
	case 0, 1:
		e := &odata.Logic{Op: []odata.Word{odata.And, odata.Or}[shape]}
		for range rapid.IntRange(2, 4).Draw(t, "terms") {
			e.Terms = append(e.Terms, drawExpr(t, depth-1))
		}
		return e
	case 2:
		return &odata.Not{X: drawExpr(t, depth-1)}
	case 3:
		return &odata.StartsWith{
			Name:   odata.Name{Path: rapid.SampledFrom([]string{"id", "name"}).Draw(t, "name")},
			Prefix: odata.Literal{Value: rapid.SampledFrom(texts).Draw(t, "prefix")},
		}
	case 4:
		return odata.Name{Path: "dedicated"}
	default:
		return drawCompare(t)
	}
}

func drawCompare(t *rapid.T) odata.Expr {
	path := rapid.SampledFrom(names).Draw(t, "name")
	kind := fields[path].Kind
	ops := orders
	value := any(nil)
	if rapid.IntRange(0, 5).Draw(t, "null") > 0 {
		value = drawValue(t, kind)
	}
	if value == nil || kind == odata.Enum || kind == odata.Bool {
		ops = equalness
	}
	e := &odata.Compare{
		Op:    rapid.SampledFrom(ops).Draw(t, "op"),
		Left:  odata.Name{Path: path},
		Right: odata.Literal{Value: value},
	}
	if rapid.Bool().Draw(t, "value first") {
		e.Left, e.Right = e.Right, e.Left
	}
	return e
}

// shape writes a tree without its positions, every level in brackets.
func shape(e any) string {
	switch e := e.(type) {
	case *odata.Logic:
		s := "[" + string(e.Op)
		for _, term := range e.Terms {
			s += " " + shape(term)
		}
		return s + "]"
	case *odata.Not:
		return "[not " + shape(e.X) + "]"
	case *odata.StartsWith:
		return "[startswith " + shape(e.Name) + " " + shape(e.Prefix) + "]"
	case *odata.Compare:
		return "[" + string(e.Op) + " " + shape(e.Left) + " " + shape(e.Right) + "]"
	case odata.Name:
		return e.Path
	case odata.Literal:
		return fmt.Sprintf("%T(%#v)", e.Value, e.Value)
	default:
		return fmt.Sprintf("unknown %T", e)
	}
}

func TestSQLMeansWhatMatchMeans(t *testing.T) {
	t.Parallel()
	for _, tb := range newTables(t) {
		rapid.Check(t, func(t *rapid.T) { compareBothWays(t, tb) })
	}
}

func compareBothWays(t *rapid.T, tb *table) {
	tb.rows = nil
	if _, err := tb.db.Exec("DELETE FROM items"); err != nil {
		t.Fatal(err)
	}
	for i := range rapid.IntRange(1, 12).Draw(t, "rows") {
		if err := tb.insert(drawRow(t, fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	for range 8 {
		e := drawExpr(t, 3)
		f, err := odata.Check(e, fields)
		if err != nil {
			t.Fatalf("%s: %v", e, err)
		}
		matched := tb.matched(f)
		selected, clause, err := tb.selected(f)
		if err != nil || matched != selected {
			t.Fatalf("%s: matched %q, %s selected %q by %s, error %v", e, matched, tb.name, selected, clause, err)
		}
		opposite, err := odata.Check(&odata.Not{X: e}, fields)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range tb.rows {
			if f.Match(r.value) == opposite.Match(r.value) {
				t.Fatalf("%s and its negation agree on %v", e, r.values)
			}
		}
	}
}

func TestPrintedFiltersParseToTheSameTree(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		e := drawExpr(t, 4)
		got, err := odata.Parse(e.String())
		if err != nil {
			t.Fatalf("%s: %v", e, err)
		}
		if diff := cmp.Diff(shape(got), shape(e)); diff != "" {
			t.Fatalf("%s (-got +want):\n%s", e, diff)
		}
	})
}

func FuzzParse(f *testing.F) {
	for _, text := range []string{
		"id eq 'a'", "not (state eq 'active') and startswith(name,'o''h') or dedicated",
		"created lt DateTime'2026-11-01T12:00:00.1234567Z' and 2026-11-01T12:00:00+01:00 gt created",
		"count ge -9223372036854775808 or cost ne 1.5e-3d or info/exitCode eq null",
		"startswith(id,'') eq false", "((((a", "'", "1..2", "DateTime''", "ä eq 'ö'",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		e, err := odata.Parse(text)
		var refused *odata.Error
		if err != nil {
			if !errors.As(err, &refused) || refused.Message == "" || len(refused.Message) > 1000 || refused.Position > len(text)+1 {
				t.Fatalf("%q: %#v", text, err)
			}
			return
		}
		// The canonical form may be longer than what may be sent.
		printed := e.String()
		if again, err := odata.Parse(printed); err == nil {
			if diff := cmp.Diff(shape(again), shape(e)); diff != "" {
				t.Fatalf("%q prints as %q (-got +want):\n%s", text, printed, diff)
			}
		} else if len(printed) <= 8<<10 {
			t.Fatalf("%q prints as %q: %v", text, printed, err)
		}
		filter, err := odata.Check(e, fields)
		if err != nil {
			if !errors.As(err, &refused) || refused.Position < 1 || len(refused.Message) > 1000 {
				t.Fatalf("%q: %#v", text, err)
			}
			return
		}
		clause, args := filter.SQL(1)
		if clause == "" || len(args) > 600 {
			t.Fatalf("%q: %d arguments in %s", text, len(args), clause)
		}
		filter.Match(func(string) any { return nil })
	})
}

func FuzzParseSelection(f *testing.F) {
	f.Add("id,state")
	f.Add(" executionInfo/exitCode , * ,,")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := odata.ParseSelection(text, func(string) bool { return true })
		if err != nil {
			var refused *odata.Error
			if !errors.As(err, &refused) || refused.Message == "" {
				t.Fatalf("%q: %#v", text, err)
			}
			return
		}
		if _, ok := s.Keep("id"); s.All() && !ok {
			t.Fatalf("%q: everything is kept but id", text)
		}
	})
}
