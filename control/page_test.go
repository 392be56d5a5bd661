package control_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/control"
	"github.com/batchyard/batchyard/store/storetest"
)

func TestLists(t *testing.T) {
	t.Parallel()
	y, node := running(t)
	node.end("t-000", 5)
	node.sync()
	ids := func(filter string, size int) (ids []batch.TaskID) {
		q := control.Query{Filter: filter, Max: size}
		for {
			page, err := y.Tasks(ctx(t), acct, "job", q)
			y.check(err)
			for _, task := range page.Items {
				ids = append(ids, task.ID)
			}
			if q.Token = page.Next; q.Token == "" {
				return ids
			}
		}
	}
	for filter, want := range map[string][]batch.TaskID{
		"":                            {"t-000", "t-001", "t-002", "t-003"},
		"state eq 'Running'":          {"t-001"},
		"state eq 'active'":           {"t-002", "t-003"},
		"executionInfo/exitCode eq 5": {"t-000"},
		"startswith(id,'T-00') and id ge 't-002'":                                       {"t-002", "t-003"},
		"executionInfo/failureInfo/code eq 'FailureExitCode'":                           {"t-000"},
		"not (state eq 'completed') and creationTime gt DateTime'2000-01-01T00:00:00Z'": {"t-002", "t-003", "t-001"}, // by the last change
		"startswith(id,'t-00') and creationTime gt DateTime'2000-01-01T00:00:00Z'":      {"t-000", "t-001", "t-002", "t-003"},
		"creationTime gt DateTime'2100-01-01T00:00:00Z'":                                nil,
		"stateTransitionTime le DateTime'2000-01-01T00:00:00Z'":                         nil,
		"state eq 'active' and state eq 'running'":                                      nil,
	} {
		for _, size := range []int{0, 1, 3} {
			if diff := cmp.Diff(want, ids(filter, size)); diff != "" {
				t.Errorf("%q in pages of %d:\n%s", filter, size, diff)
			}
		}
	}
	for name, q := range map[string]control.Query{
		"a filter on what is no field":  {Filter: "colour eq 'red'"},
		"a filter that is none":         {Filter: "state eq"},
		"a state that there is not":     {Filter: "state eq 'asleep'"},
		"a page of less than one item":  {Max: -1},
		"a page of more than there may": {Max: 1001},
		"a token that nobody gave":      {Token: "?"},
		"a token of a list by id":       {Token: "dC0wMDE", Filter: "state eq 'active'"},
		"a token of a list by change":   {Token: "QDEgdC0wMDE"},
	} {
		_, err := y.Tasks(ctx(t), acct, "job", q)
		if batch.CodeOf(err) != batch.CodeInvalidQueryParameterValue {
			t.Errorf("%s: %v", name, err)
		}
	}
	every := map[string]func(control.Query) (int, error){
		"pools": func(q control.Query) (int, error) { p, err := y.Pools(ctx(t), acct, q); return len(p.Items), err },
		"nodes": func(q control.Query) (int, error) {
			p, err := y.Nodes(ctx(t), acct, "pool", q)
			return len(p.Items), err
		},
		"jobs": func(q control.Query) (int, error) { p, err := y.Jobs(ctx(t), acct, q); return len(p.Items), err },
		"counts": func(q control.Query) (int, error) {
			p, err := y.PoolNodeCounts(ctx(t), acct, q)
			return len(p.Items), err
		},
	}
	for name, list := range every {
		if n, err := list(control.Query{}); n != 1 || err != nil {
			t.Errorf("%s: %d (%v)", name, n, err)
		}
	}
	every["tasks"] = func(q control.Query) (int, error) {
		p, err := y.Tasks(ctx(t), acct, "job", q)
		return len(p.Items), err
	}
	for name, list := range every {
		all := 1
		if name == "tasks" {
			all = 4
		}
		for filter, want := range map[string]int{
			"displayName eq null": all, "displayName ne null": 0, "displayName eq ''": 0, "displayName ne 'x'": all,
			"displayName lt 'x'": 0, "not startswith(displayName,'x')": all, "startswith(displayName,'')": 0,
		} {
			if name == "nodes" || name == "counts" {
				break
			}
			if n, err := list(control.Query{Filter: filter}); n != want || err != nil {
				t.Errorf("%s with %s: %d (%v), want %d", name, filter, n, err, want)
			}
		}
	}
	counts, err := y.PoolNodeCounts(ctx(t), acct, control.Query{Filter: "poolId eq 'pool'"})
	y.check(err)
	if got := counts.Items[0].Dedicated[batch.NodeRunning]; got != 1 {
		t.Errorf("%d nodes run", got)
	}
	_, err = y.Nodes(ctx(t), acct, "none", control.Query{})
	y.refused(err, batch.CodeResourceNotFound)
}

func TestListsThatGoThroughALargeJob(t *testing.T) {
	t.Parallel()
	y := newYard(t, storetest.SQLite(t))
	y.prepare(0, 1)
	y.addTasks("job", "t", 100)
	for _, n := range []int{3, 40, 60, 61, 99} {
		_, err := y.TerminateTask(ctx(t), acct, "job", batch.TaskID(fmt.Sprintf("t-%03d", n)), batch.Conditions{})
		y.check(err)
	}
	// No index knows of the end of a task.
	filter := "executionInfo/endTime gt DateTime'2000-01-01T00:00:00Z'"
	want := []batch.TaskID{"t-003", "t-040", "t-060", "t-061", "t-099"}
	for _, size := range []int{0, 1, 2, 3, 4, 5} {
		var got []batch.TaskID
		q := control.Query{Filter: filter, Max: size}
		for more := true; more; more = q.Token != "" {
			page, err := y.Tasks(ctx(t), acct, "job", q)
			y.check(err)
			for _, task := range page.Items {
				got = append(got, task.ID)
			}
			q.Token = page.Next
		}
		if diff := cmp.Diff(got, want); diff != "" {
			t.Errorf("pages of %d: %s", size, diff)
		}
	}
	page, err := y.Tasks(ctx(t), acct, "job", control.Query{Filter: "displayName eq 'none'"})
	if y.check(err); len(page.Items) > 0 {
		t.Errorf("got %v", page.Items)
	}
}

// TestLargeItems lists more bytes than a page may have: it comes in parts. Those that
// no index knows are read by three at a time.
func TestLargeItems(t *testing.T) {
	t.Parallel()
	storetest.Each(t, func(t *testing.T, url string) {
		y := newYard(t, url)
		y.prepare(1, 1)
		const count, size = 240, 250 << 10
		for i := range count {
			_, err := y.AddTask(ctx(t), acct, "job", batch.TaskSpecification{
				ID: batch.TaskID(fmt.Sprintf("t-%03d", i)), CommandLine: "true",
				EnvironmentSettings: []batch.EnvironmentSetting{{Name: "LARGE", Value: strings.Repeat("x", size)}},
			})
			y.check(err)
		}
		for _, filter := range []string{"", "state eq 'active'", "state ne 'completed'", "startswith(id,'t-')", "startswith(displayName,'x') or requiredSlots lt 5"} {
			var ids []batch.TaskID
			pages, q := 0, control.Query{Filter: filter}
			for {
				page, err := y.Tasks(ctx(t), acct, "job", q)
				if batch.CodeOf(err) == batch.CodeInvalidQueryParameterValue {
					t.Fatalf("%q is refused: %v", filter, err)
				}
				y.check(err)
				if bytes := len(page.Items) * size; bytes > 49<<20 {
					t.Errorf("%q: a page has %d bytes", filter, bytes)
				}
				for _, task := range page.Items {
					ids = append(ids, task.ID)
				}
				pages++
				if q.Token = page.Next; q.Token == "" {
					break
				}
			}
			slices.Sort(ids)
			if n := len(ids); n != count || len(slices.Compact(ids)) != count || pages < 2 {
				t.Errorf("%q: %d tasks in %d pages, %d different", filter, n, pages, len(slices.Compact(ids)))
			}
		}
	})
}

// TestNodesWithoutAnAddress: a node that has not been heard has none.
func TestNodesWithoutAnAddress(t *testing.T) {
	t.Parallel()
	y := newYard(t, storetest.SQLite(t))
	y.prepare(2, 1)
	y.check(y.StepPool(ctx(t), acct, "pool", func(*batch.Pool, []batch.Node, time.Time) control.PoolStep {
		return control.PoolStep{AddDedicated: 2}
	}))
	for filter, want := range map[string]int{
		"ipAddress eq null": 2, "ipAddress ne null": 0, "ipAddress ne '10.0.0.1'": 2, "startswith(ipAddress,'')": 0, "lastBootTime eq null": 2,
	} {
		page, err := y.Nodes(ctx(t), acct, "pool", control.Query{Filter: filter})
		if y.check(err); len(page.Items) != want {
			t.Errorf("%s: %d nodes, want %d", filter, len(page.Items), want)
		}
	}
}
