package odata_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/batchyard/batchyard/odata"
)

func TestBoundsOfAField(t *testing.T) {
	t.Parallel()
	at := func(text string) *int64 {
		moment, err := time.Parse(time.RFC3339, text)
		if err != nil {
			t.Fatal(err)
		}
		us := moment.UnixMicro()
		return &us
	}
	for _, c := range []struct {
		filter, field string
		want          odata.Bounds
	}{
		{"state eq 'Active'", "state", odata.Bounds{Words: []string{"active"}}},
		{"state eq 'active' or state eq 'resizing'", "state", odata.Bounds{Words: []string{"active", "resizing"}}},
		{"state eq 'active' and state eq 'resizing'", "state", odata.Bounds{Words: []string{}}},
		{"state eq 'active' or count eq 1", "state", odata.Bounds{}},
		{"not (state eq 'active')", "state", odata.Bounds{}},
		{"count gt 1 and (count le 7 and count lt 9)", "count", odata.Bounds{From: ptr(1), To: ptr(7)}},
		{"count eq 7", "count", odata.Bounds{From: ptr(7), To: ptr(7)}},
		{"count gt 1 or count lt 0", "count", odata.Bounds{}},
		{"created ge DateTime'2026-11-01T12:00:00Z' and state eq 'active'", "created", odata.Bounds{From: at("2026-11-01T12:00:00Z")}},
		{"startswith(id,'a') and state eq 'active'", "id", odata.Bounds{Named: true}},
		{"id gt 'a'", "id", odata.Bounds{Named: true}},
		{"id ne 'a' and startswith(id,'')", "id", odata.Bounds{}},
		{"", "state", odata.Bounds{}},
	} {
		t.Run(c.filter+" for "+c.field, func(t *testing.T) {
			t.Parallel()
			f, err := odata.ParseFilter(c.filter, fields)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(f.Bounds(c.field), c.want); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func ptr(n int64) *int64 { return &n }

func TestWhatPassesIsWithinBounds(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		f, err := odata.Check(drawExpr(t, 3), fields)
		if err != nil {
			t.Skip(err)
		}
		r := drawRow(t, "row")
		if !f.Match(func(name string) any { return r.values[name] }) {
			return
		}
		for _, name := range []string{"state", "count", "created"} {
			if why := outside(f.Bounds(name), r.values[name]); why != "" {
				t.Fatalf("%s passes %v although its %s is %s", f, r.values, name, why)
			}
		}
	})
}

// outside tells why a value is not within bounds, if it is not.
func outside(b odata.Bounds, value any) string {
	var n int64
	switch v := value.(type) {
	case string:
		if b.Words != nil && !slices.Contains(b.Words, v) {
			return fmt.Sprintf("none of %q", b.Words)
		}
		return ""
	case int64:
		n = v
	case time.Time:
		n = v.UnixMicro()
	default: // no value
		if b.Words != nil || b.From != nil || b.To != nil {
			return "absent"
		}
		return ""
	}
	if b.From != nil && n < *b.From || b.To != nil && n > *b.To {
		return "out of range"
	}
	return ""
}
