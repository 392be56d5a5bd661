package api

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/gate"
)

// posted is a call with a body.
func posted(t *testing.T, o Options, version, body string) (*call, error) {
	t.Helper()
	s := New(o).(*server)
	c := s.begin(httptest.NewRecorder(), httptest.NewRequest("POST", "/jobs/j/tasks", strings.NewReader(body)))
	c.version = s.versions[version]
	return c, c.receive()
}

// Not in parallel: it counts what the process allocates.
func TestABodyTakesNoMoreMemoryThanItIsCharged(t *testing.T) {
	nested := func(depth int) string {
		return `{"id":"x","commandLine":"y","odata.type":"z","containerSettings":` + strings.Repeat("[", depth) + strings.Repeat("]", depth) + `}`
	}
	list := func(item string, n int) string {
		return strings.TrimSuffix(strings.Repeat(item+",", n), ",")
	}
	const mib = 1 << 20
	for name, body := range map[string]string{
		"lists in lists":                nested(100_000),
		"as many as may be":             nested(maxNested - 1),
		"lists in lists, not annotated": strings.ReplaceAll(nested(100_000), `"odata.type":"z",`, ""),
		"lists that do not end":         strings.Repeat("[", 200_000),
		"many empty files":              `{"id":"x","commandLine":"y","odata.type":"z","resourceFiles":[` + list("{}", maxItems) + `]}`,
		"many files that are null":      `{"id":"x","commandLine":"y","resourceFiles":[` + list("null", maxItems) + `]}`,
		"many settings":                 `{"id":"x","commandLine":"y","environmentSettings":[` + list(`{"name":"a"}`, maxItems) + `]}`,
		"many tasks":                    `{"value":[` + list("{}", maxItems) + `]}`,
		"a list that is too long":       `{"value":[` + list("{}", 340_000) + `]}`,
		"many ids":                      `{"id":"x","commandLine":"y","dependsOn":{"taskIds":[` + list(`"a"`, maxItems) + `]}}`,
		"members of another time":       `{"id":"x","commandLine":"y","odata.x":1,` + list(`"odata.a":[]`, 1) + `}`,
	} {
		for _, version := range []string{"2025-06-01", "2016-07-01.3.1"} {
			budget := gate.NewBudget(256 * mib)
			c, err := posted(t, Options{Buffers: budget}, version, body)
			if err != nil {
				t.Fatal(err)
			}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			if strings.HasPrefix(body, `{"value"`) {
				if text, err := c.readBody(); err == nil {
					_, _, _ = c.decodeCollection(text)
				}
			} else {
				_ = c.decode(kindTask, &batch.TaskSpecification{})
			}
			runtime.ReadMemStats(&after)
			// Garbage of growing lists and of the decoder counts here too.
			used, charged := int64(after.TotalAlloc-before.TotalAlloc), budget.Used()
			if used > 6*charged+mib {
				t.Errorf("%s, %s: %d KiB of text take %d KiB and are charged %d", name, version, len(body)>>10, used>>10, charged>>10)
			}
			if len(body) < 300<<10 && used > 100*mib {
				t.Errorf("%s, %s: %d KiB of text take %d KiB", name, version, len(body)>>10, used>>10)
			}
			c.Buffers.Give(c.held)
			if budget.Used() != 0 {
				t.Errorf("%s: %d bytes are kept", name, budget.Used())
			}
		}
	}
}

func TestABodyForWhichThereIsNoMemoryIsToldToComeAgain(t *testing.T) {
	t.Parallel()
	body := `{"id":"x","commandLine":"y","resourceFiles":[` + strings.TrimSuffix(strings.Repeat("{},", 60_000), ",") + `]}`
	c, err := posted(t, Options{Buffers: gate.NewBudget(4 << 20)}, "2025-06-01", body)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.decode(kindTask, &batch.TaskSpecification{}); batch.CodeOf(err) != batch.CodeServerBusy {
		t.Errorf("answered with %v", err)
	}
}

func TestAnnotationsAreDroppedInOnePass(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`{"a":1,"odata.type":{"b":[1,{"c":2}]},"d":[{"x@odata.type":"y","e":"odata.f"}]}`: `{"a":1,"d":[{"e":"odata.f"}]}`,
		`{"odata.a":1}`: `{}`, `[["odata.a"]]`: `[["odata.a"]]`, `{"a":1.50e3}`: `{"a":1.50e3}`, `"odata.a"`: `"odata.a"`,
	} {
		got, err := withoutAnnotations([]byte(text))
		if err != nil || string(got) != want {
			t.Errorf("%s becomes %s, %v; want %s", text, got, err, want)
		}
	}
}

// What measure counts is what is there.
func TestMeasureCountsValues(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		items := rapid.SliceOf(rapid.StringMatching(`[\\"{}\[\],a]{0,6}`)).Draw(r, "items")
		text, err := json.Marshal(map[string]any{"value": items})
		if err != nil {
			r.Fatal(err)
		}
		got, err := measure(text)
		want := measured{values: 2 + max(0, len(items)-1), items: len(items)}
		if len(items) < 2 {
			want.items = 0 // without a comma nothing is counted
		}
		if items == nil {
			want = measured{values: 1}
		}
		if diff := cmp.Diff(fmt.Sprint(want), fmt.Sprint(got)); diff != "" || err != nil {
			r.Fatalf("%s: %v, %s", text, err, diff)
		}
	})
	for depth, refused := range map[int]bool{maxNested: false, maxNested + 1: true} {
		if _, err := measure([]byte(strings.Repeat("[", depth))); (err != nil) != refused {
			t.Errorf("%d deep: %v", depth, err)
		}
	}
}
