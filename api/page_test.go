package api_test

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/batchyard/batchyard/auth"
)

// all follows the next links of a list, signing each anew.
func (e *edge) all(t *testing.T, path, version string) []map[string]any {
	t.Helper()
	a := e.must(t, 200, "GET", path, version, "")
	items := a.items(t)
	for pages := 1; ; pages++ {
		next, _ := a.object(t)["odata.nextLink"].(string)
		if next == "" {
			return items
		}
		if pages > 100 {
			t.Fatal("the list has no end")
		}
		r, err := http.NewRequestWithContext(t.Context(), "GET", next, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := auth.SignBatch(r, string(e.account), e.key, e.now()); err != nil {
			t.Fatal(err)
		}
		if a = send(t, r); a.status != 200 {
			t.Fatalf("GET %s: status %d: %s", next, a.status, a.body)
		}
		items = append(items, a.items(t)...)
	}
}

func ids(items []map[string]any) []string {
	var out []string
	for _, item := range items {
		out = append(out, fmt.Sprint(item["id"]))
	}
	return out
}

func TestPages(t *testing.T) {
	t.Parallel()
	e := withTask(t)
	want := []string{"t"}
	for i := range 7 {
		id := fmt.Sprintf("t%d", i)
		e.must(t, 201, "POST", "/jobs/j/tasks", newest, `{"id":"`+id+`","commandLine":"true"}`)
		want = append(want, id)
	}

	t.Run("following the links gives every item once", func(t *testing.T) {
		t.Parallel()
		for _, path := range []string{
			"/jobs/j/tasks?maxresults=3", "/jobs/j/tasks?maxresults=8", "/jobs/j/tasks?maxresults=1&$select=id",
			"/jobs/j/tasks?maxresults=3&$filter=" + url.QueryEscape("startswith(id,'t') and state eq 'active'"),
		} {
			got := map[string]int{}
			for _, id := range ids(e.all(t, path, newest)) {
				got[id]++
			}
			counts := map[string]int{}
			for _, id := range want {
				counts[id] = 1
			}
			if diff := cmp.Diff(got, counts); diff != "" {
				t.Errorf("%s: %s", path, diff)
			}
		}
	})

	t.Run("a link keeps the query and writes no plus for a space", func(t *testing.T) {
		t.Parallel()
		a := e.must(t, 200, "GET", "/jobs/j/tasks?maxresults=1&timeOut=20&$filter="+url.QueryEscape("state eq 'active'"), newest, "")
		link := fmt.Sprint(a.object(t)["odata.nextLink"])
		next, err := url.Parse(link)
		if err != nil {
			t.Fatal(err)
		}
		q := next.Query()
		got := []string{q.Get("$filter"), q.Get("maxresults"), q.Get("timeOut"), q.Get("api-version")}
		if diff := cmp.Diff(got, []string{"state eq 'active'", "1", "20", newest}); diff != "" {
			t.Error(diff)
		}
		if strings.Contains(link, "+") {
			t.Errorf("the link %s has a plus", link)
		}
	})

	t.Run("a select keeps what it names, in parts too", func(t *testing.T) {
		t.Parallel()
		item := e.must(t, 200, "GET", "/jobs/j/tasks/t?$select=id,executionInfo/retryCount", newest, "").object(t)
		delete(item, "odata.metadata")
		want := map[string]any{"id": "t", "executionInfo": map[string]any{"retryCount": 0.0}}
		if diff := cmp.Diff(item, want); diff != "" {
			t.Error(diff)
		}
	})

	t.Run("a list keeps of each item what the item itself keeps", func(t *testing.T) {
		t.Parallel()
		for _, path := range []string{"/jobs/j/tasks", "/jobs", "/pools"} {
			whole := e.must(t, 200, "GET", path, newest, "").items(t)[0]
			for name := range whole {
				item := e.must(t, 200, "GET", path+"?$select="+name+",displayName", newest, "").items(t)[0]
				if diff := cmp.Diff(item, map[string]any{name: whole[name]}); diff != "" && name != "displayName" {
					t.Errorf("%s of %s: %s", name, path, diff)
				}
			}
			names := slices.Collect(maps.Keys(whole))
			item := e.must(t, 200, "GET", path+"?$select="+strings.Join(names, ","), newest, "").items(t)[0]
			if diff := cmp.Diff(item, whole); diff != "" {
				t.Errorf("all of %s: %s", path, diff)
			}
		}
		item := e.must(t, 200, "GET", "/jobs/j/tasks?maxresults=1&$select=executionInfo/retryCount", newest, "").items(t)[0]
		if diff := cmp.Diff(item, map[string]any{"executionInfo": map[string]any{"retryCount": 0.0}}); diff != "" {
			t.Error(diff)
		}
	})

	t.Run("a select knows the names of the request's version", func(t *testing.T) {
		t.Parallel()
		e.must(t, 200, "GET", "/jobs/j/tasks?$select=executionInfo/schedulingError/code,executionInfo/containerInfo/state,resourceFiles/filePath", "2016-07-01.3.1", "")
		item := e.must(t, 200, "GET", "/pools/p?$select=maxTasksPerNode,stats", "2019-06-01.9.0", "").object(t)
		delete(item, "odata.metadata")
		if diff := cmp.Diff(item, map[string]any{"maxTasksPerNode": 1.0}); diff != "" {
			t.Error(diff)
		}
	})

	for name, tc := range map[string]struct{ path, parameter string }{
		"no items at all":          {"/pools?maxresults=0", "maxresults"},
		"more than a page can":     {"/pools?maxresults=1001", "maxresults"},
		"a number that is none":    {"/pools?maxresults=ten", "maxresults"},
		"an unknown property":      {"/pools?$select=colour", "$select"},
		"a property of a text":     {"/pools?$select=id/x", "$select"},
		"one far below a text":     {"/jobs/j/tasks?$select=id/x/y/z", "$select"},
		"one that a part has not":  {"/jobs/j/tasks?$select=executionInfo/colour", "$select"},
		"an unknown expansion":     {"/pools?$expand=nodes", "$expand"},
		"an order":                 {"/pools?$orderby=id", "$orderby"},
		"a filter that ends early": {"/pools?$filter=id%20eq", "$filter"},
		"a filter on a stranger":   {"/jobs/j/tasks?$filter=colour%20eq%20%271%27", "$filter"},
		"a negative timeout":       {"/pools?timeout=-1", "timeout"},
		"images from nowhere":      {"/supportedimages?$skiptoken=99", "$skiptoken"},
	} {
		t.Run(name+" is refused by name", func(t *testing.T) {
			t.Parallel()
			a := e.must(t, 400, "GET", tc.path, newest, "")
			got := []string{a.code(t), a.detail(t, "QueryParameterName")}
			if diff := cmp.Diff(got, []string{"InvalidQueryParameterValue", tc.parameter}); diff != "" {
				t.Error(diff)
			}
			if a.detail(t, "Reason") == "" {
				t.Error("no reason is given")
			}
		})
	}
}
