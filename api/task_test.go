package api_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestJobs(t *testing.T) {
	t.Parallel()
	e := newEdge(t)
	e.must(t, 201, "POST", "/pools", newest, linuxPool)

	t.Run("an added job is named by its first run in the headers", func(t *testing.T) {
		t.Parallel()
		a := e.must(t, 201, "POST", "/jobs", newest, `{"id":"named","poolInfo":{"poolId":"p"}}`)
		got := []string{a.header.Get("Location"), a.header.Get("DataServiceId")}
		if diff := cmp.Diff(got, []string{e.url + "/jobs/job-1", e.url + "/jobs/job-1"}); diff != "" {
			t.Error(diff)
		}
	})

	t.Run("a job shows the defaults that nobody set", func(t *testing.T) {
		t.Parallel()
		e.must(t, 201, "POST", "/jobs", newest, `{"id":"defaults","poolInfo":{"poolId":"p"}}`)
		job := e.must(t, 200, "GET", "/jobs/defaults", newest, "").object(t)
		for name, want := range map[string]any{
			"priority": 0.0, "maxParallelTasks": -1.0, "allowTaskPreemption": false, "usesTaskDependencies": false,
			"onAllTasksComplete": "noaction", "onTaskFailure": "noaction", "state": "active",
			"constraints": map[string]any{"maxWallClockTime": "P10675199DT2H48M5.4775807S", "maxTaskRetryCount": 0.0},
		} {
			if diff := cmp.Diff(job[name], want); diff != "" {
				t.Errorf("%s: %s", name, diff)
			}
		}
	})

	t.Run("a job is changed, replaced, disabled, enabled, terminated and deleted", func(t *testing.T) {
		t.Parallel()
		e.must(t, 201, "POST", "/jobs", newest, `{"id":"busy","poolInfo":{"poolId":"p"},"priority":7}`)
		e.must(t, 200, "PATCH", "/jobs/busy", newest, `{"metadata":[{"name":"a","value":"b"}]}`)
		if job := e.must(t, 200, "GET", "/jobs/busy", newest, "").object(t); job["priority"] != 7.0 || job["metadata"] == nil {
			t.Errorf("after a patch: priority %v and metadata %v", job["priority"], job["metadata"])
		}
		e.must(t, 200, "PUT", "/jobs/busy", newest, `{"poolInfo":{"poolId":"p"}}`)
		if job := e.must(t, 200, "GET", "/jobs/busy", newest, "").object(t); job["priority"] != 0.0 || job["metadata"] != nil {
			t.Errorf("after a replacement: priority %v and metadata %v", job["priority"], job["metadata"])
		}
		e.must(t, 202, "POST", "/jobs/busy/disable", newest, `{"disableTasks":"requeue"}`)
		e.must(t, 202, "POST", "/jobs/busy/enable", newest, "")
		e.must(t, 202, "POST", "/jobs/busy/terminate", newest, `{"terminateReason":"enough"}`)
		e.must(t, 202, "DELETE", "/jobs/busy?force=true", newest, "")
	})

	t.Run("a terminate without a body has no reason of its own", func(t *testing.T) {
		t.Parallel()
		e.must(t, 201, "POST", "/jobs", newest, `{"id":"ended","poolInfo":{"poolId":"p"}}`)
		e.must(t, 202, "POST", "/jobs/ended/terminate", newest, "")
		refused := e.must(t, 400, "POST", "/jobs/ended/terminate?force=maybe", newest, "")
		if got := refused.detail(t, "QueryParameterName"); got != "force" {
			t.Errorf("refused %q, want force", got)
		}
	})

	t.Run("what a job may not have is refused by name", func(t *testing.T) {
		t.Parallel()
		a := e.must(t, 400, "POST", "/jobs", newest, `{"id":"x","poolInfo":{"autoPoolSpecification":{"poolLifetimeOption":"job"}}}`)
		got := []string{a.code(t), a.detail(t, "PropertyName")}
		if diff := cmp.Diff(got, []string{"PropertyNotSupported", "poolInfo.autoPoolSpecification"}); diff != "" {
			t.Error(diff)
		}
	})
}

func TestTasks(t *testing.T) {
	t.Parallel()
	e := withTask(t)

	t.Run("an added task is found with its defaults", func(t *testing.T) {
		t.Parallel()
		task := e.must(t, 200, "GET", "/jobs/j/tasks/t", newest, "").object(t)
		for name, want := range map[string]any{
			"id": "t", "state": "active", "requiredSlots": 1.0, "url": e.url + "/jobs/j/tasks/t",
			"userIdentity": map[string]any{"autoUser": map[string]any{"scope": "pool", "elevationLevel": "nonadmin"}},
			"constraints": map[string]any{
				"maxWallClockTime": "P10675199DT2H48M5.4775807S", "retentionTime": "P7D", "maxTaskRetryCount": 0.0,
			},
			"executionInfo": map[string]any{"retryCount": 0.0, "requeueCount": 0.0},
			"nodeInfo":      nil,
		} {
			if diff := cmp.Diff(task[name], want); diff != "" {
				t.Errorf("%s: %s", name, diff)
			}
		}
	})

	t.Run("a task is terminated once, reactivated and deleted", func(t *testing.T) {
		t.Parallel()
		e.must(t, 201, "POST", "/jobs/j/tasks", newest, `{"id":"life","commandLine":"true"}`)
		e.must(t, 409, "POST", "/jobs/j/tasks/life/reactivate", newest, "")
		e.must(t, 204, "POST", "/jobs/j/tasks/life/terminate", newest, "")
		if got := e.must(t, 409, "POST", "/jobs/j/tasks/life/terminate", newest, "").code(t); got != "TaskCompleted" {
			t.Errorf("code %s, want TaskCompleted", got)
		}
		task := e.must(t, 200, "GET", "/jobs/j/tasks/life", newest, "").object(t)
		if got := task["executionInfo"].(map[string]any)["failureInfo"].(map[string]any)["code"]; got != "TaskEnded" {
			t.Errorf("failure code %v, want TaskEnded", got)
		}
		e.must(t, 204, "POST", "/jobs/j/tasks/life/reactivate", newest, "")
		e.must(t, 200, "DELETE", "/jobs/j/tasks/life", newest, "")
		e.must(t, 404, "GET", "/jobs/j/tasks/life", newest, "")
	})

	t.Run("tasks are counted, in the form of the version", func(t *testing.T) {
		t.Parallel()
		e := withTask(t)
		counts := map[string]any{"active": 1.0, "running": 0.0, "completed": 0.0, "succeeded": 0.0, "failed": 0.0}
		now := e.must(t, 200, "GET", "/jobs/j/taskcounts", newest, "").object(t)
		if diff := cmp.Diff([]any{now["taskCounts"], now["taskSlotCounts"]}, []any{counts, counts}); diff != "" {
			t.Error(diff)
		}
		flat := e.must(t, 200, "GET", "/jobs/j/taskcounts", "2019-08-01.10.0", "").object(t)
		delete(flat, "odata.metadata")
		if diff := cmp.Diff(flat, counts); diff != "" {
			t.Error(diff)
		}
	})
}

// statuses are what became of the tasks of a collection: "id status code".
func statuses(items []map[string]any) []string {
	var out []string
	for _, item := range items {
		code := any("-")
		if e, ok := item["error"].(map[string]any); ok {
			code = e["code"]
		}
		out = append(out, fmt.Sprint(item["taskId"], " ", item["status"], " ", code))
	}
	return out
}

func TestTaskCollections(t *testing.T) {
	t.Parallel()
	e := withTask(t)
	add := func(t *testing.T, status int, version, body string) answer {
		t.Helper()
		return e.must(t, status, "POST", "/jobs/j/addtaskcollection", version, body)
	}

	t.Run("every task has its own result, in the order of the request", func(t *testing.T) {
		t.Parallel()
		a := add(t, 200, newest, `{"value":[
			{"id":"c1","commandLine":"true"},
			{"id":"t","commandLine":"true"},
			{"id":"c2","commandLine":"true","colour":1},
			{"id":"c3","commandLine":5},
			{"id":"c4","commandLine":""},
			{"id":7,"commandLine":"true"},
			{"id":"c5","commandLine":"true"}]}`)
		want := []string{
			"c1 success -", "t clienterror TaskExists", "c2 clienterror InvalidRequestBody",
			"c3 clienterror InvalidPropertyValue", "c4 clienterror MissingRequiredProperty",
			" clienterror InvalidPropertyValue", "c5 success -",
		}
		if diff := cmp.Diff(statuses(a.items(t)), want); diff != "" {
			t.Error(diff)
		}
		first := a.items(t)[0]
		if got, want := first["location"], e.url+"/jobs/j/tasks/c1"; got != want {
			t.Errorf("location %v, want %v", got, want)
		}
		found := e.must(t, 200, "GET", "/jobs/j/tasks/c1", newest, "")
		if got, want := first["eTag"], found.header.Get("ETag"); got != want {
			t.Errorf("eTag %v, want %v", got, want)
		}
	})

	t.Run("tasks of an old client are read in its own terms, one by one", func(t *testing.T) {
		t.Parallel()
		a := add(t, 200, "2016-02-01.3.0", `{"value":[
			{"id":"o1","commandLine":"true","runElevated":true,"resourceFiles":[{"blobSource":"http://h/c/b","filePath":"b"}]},
			{"id":"o2","commandLine":"true","requiredSlots":2}]}`)
		if diff := cmp.Diff(statuses(a.items(t)), []string{"o1 Success -", "o2 ClientError InvalidRequestBody"}); diff != "" {
			t.Error(diff)
		}
		task := e.must(t, 200, "GET", "/jobs/j/tasks/o1", newest, "").object(t)
		want := []any{map[string]any{"httpUrl": "http://h/c/b", "filePath": "b"}}
		if diff := cmp.Diff(task["resourceFiles"], any(want)); diff != "" {
			t.Error(diff)
		}
	})

	many := func(n int) string {
		var tasks []string
		for i := range n {
			tasks = append(tasks, fmt.Sprintf(`{"id":"m%d","commandLine":"true"}`, i))
		}
		return `{"value":[` + strings.Join(tasks, ",") + `]}`
	}

	t.Run("a hundred tasks are added, one more is refused as a whole", func(t *testing.T) {
		t.Parallel()
		if got := add(t, 400, newest, many(101)).detail(t, "PropertyName"); got != "value" {
			t.Errorf("refused %q, want value", got)
		}
		for _, item := range statuses(add(t, 200, newest, many(100)).items(t)) {
			if !strings.Contains(item, "success") {
				t.Error(item)
			}
		}
	})

	t.Run("a collection that is none is refused as a whole", func(t *testing.T) {
		t.Parallel()
		for _, body := range []string{"", `{}`, `{"value":null}`, `{"value":5}`, `{"value":[{]}`, `{"value":[],"colour":1}`, many(3)[1:]} {
			add(t, 400, newest, body)
		}
		if items := add(t, 200, newest, `{"value":[],"odata.metadata":"x"}`).items(t); len(items) != 0 {
			t.Errorf("%d results for no tasks", len(items))
		}
	})

	t.Run("a collection over the limit says the limit, so that clients split it", func(t *testing.T) {
		t.Parallel()
		body := strings.Replace(many(2), "true", strings.Repeat("x", 1<<20), 1)
		if got := add(t, 413, newest, body).code(t); got != "RequestBodyTooLarge" {
			t.Errorf("code %s, want RequestBodyTooLarge", got)
		}
	})

	t.Run("a job that is not there is an error of the whole", func(t *testing.T) {
		t.Parallel()
		e.must(t, 404, "POST", "/jobs/none/addtaskcollection", newest, many(1))
	})
}
