package odata_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/batchyard/batchyard/odata"
)

const selected = `{"id": "a", "state": "active",
	"executionInfo": {"startTime": "t", "exitCode": 0, "failureInfo": {"code": "c", "message": "m"}},
	"nodes": [{"id": "n1", "state": "idle"}, {"id": "n2", "state": "idle"}]}`

func isSelectable(name string) bool {
	top, _, _ := strings.Cut(name, "/")
	return top == "id" || top == "state" || top == "executionInfo" || top == "nodes"
}

// project walks a selection beside a value, as whoever writes an answer does.
func project(s odata.Selection, v any) any {
	if s.All() {
		return v
	}
	switch v := v.(type) {
	case map[string]any:
		kept := map[string]any{}
		for name, member := range v {
			if sub, ok := s.Keep(name); ok {
				kept[name] = project(sub, member)
			}
		}
		return kept
	case []any:
		kept := make([]any, len(v))
		for i, element := range v {
			kept[i] = project(s, element)
		}
		return kept
	default:
		return v
	}
}

func TestSelectScript(t *testing.T) {
	t.Parallel()
	var object any
	if err := json.Unmarshal([]byte(selected), &object); err != nil {
		t.Fatal(err)
	}
	for _, s := range readScript(t, "select.test") {
		selection, err := odata.ParseSelection(s.text, isSelectable)
		if s.verb == "fails" {
			var refused *odata.Error
			if !errors.As(err, &refused) || refused.Error() != s.under[""] {
				t.Errorf("line %d: %s: got error %v, want %s", s.line, s.text, err, s.under[""])
			}
			continue
		}
		if err != nil {
			t.Errorf("line %d: %s: %v", s.line, s.text, err)
			continue
		}
		got, err := json.Marshal(project(selection, object))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(got), s.under["keeps"]); diff != "" {
			t.Errorf("line %d: %s (-got +want):\n%s", s.line, s.text, diff)
		}
	}
}

func TestSelectionLimits(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"many names": strings.Repeat("id,", 200) + "id",
		"a long one": strings.Repeat("i", 5000),
	} {
		if _, err := odata.ParseSelection(text, isSelectable); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestParseExpand(t *testing.T) {
	t.Parallel()
	got, err := odata.ParseExpand(" stats,stats ", "stats")
	if diff := cmp.Diff(got, []string{"stats"}); diff != "" || err != nil {
		t.Errorf("error %v (-got +want):\n%s", err, diff)
	}
	if got, err := odata.ParseExpand("", "stats"); len(got) != 0 || err != nil {
		t.Errorf("got %v and error %v for no text", got, err)
	}
	_, err = odata.ParseExpand("stats,tasks", "stats")
	if want := "at character 7: tasks cannot be expanded here"; err == nil || err.Error() != want {
		t.Errorf("got error %v, want %s", err, want)
	}
}
