package api_test

import (
	"regexp"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// number is a whole number as a value of a member, or as an item of a list.
var number = regexp.MustCompile(`([:\[,])(-?[0-9]+)([,}\]])`)

// asTexts writes the whole numbers of a body as texts.
func asTexts(body string) string { return number.ReplaceAllString(body, `$1"$2"$3`) }

func TestWholeNumbersMayBeTexts(t *testing.T) {
	t.Parallel()
	for _, version := range published {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			var views [2]map[string]any
			for i, write := range []func(string) string{func(s string) string { return s }, asTexts} {
				e := newEdge(t)
				pool := `{"id":"p","vmSize":"small","cloudServiceConfiguration":{"osFamily":"4"},"targetDedicated":0,"maxTasksPerNode":3,` +
					`"startTask":{"commandLine":"a","maxTaskRetryCount":2}}`
				resize := `{"targetDedicated":1}`
				switch {
				case version < "2016-02":
					pool = `{"id":"p","vmSize":"small","osFamily":"4","targetDedicated":0,"maxTasksPerNode":3,"startTask":{"commandLine":"a","maxTaskRetryCount":2}}`
				case version >= "2020-09":
					pool = `{"id":"p","vmSize":"small","virtualMachineConfiguration":{"nodeAgentSKUId":"batch.node.ubuntu 24.04","imageReference":` +
						`{"publisher":"canonical","offer":"ubuntu-24_04-lts","sku":"server"}},"targetDedicatedNodes":0,"targetLowPriorityNodes":0,` +
						`"taskSlotsPerNode":3,"startTask":{"commandLine":"a","maxTaskRetryCount":2}}`
				case version >= "2017-05":
					pool = `{"id":"p","vmSize":"small","cloudServiceConfiguration":{"osFamily":"4"},"targetDedicatedNodes":0,"targetLowPriorityNodes":0,` +
						`"maxTasksPerNode":3,"startTask":{"commandLine":"a","maxTaskRetryCount":2}}`
				}
				if version >= "2017-05" {
					resize = `{"targetDedicatedNodes":1,"targetLowPriorityNodes":0}`
				}
				e.must(t, 201, "POST", "/pools", version, write(pool))
				e.must(t, 201, "POST", "/jobs", version, write(`{"id":"j","priority":-5,"constraints":{"maxTaskRetryCount":4},"poolInfo":{"poolId":"p"}}`))
				e.must(t, 200, "PATCH", "/jobs/j", version, write(`{"priority":100}`))
				e.must(t, 201, "POST", "/jobs/j/tasks", version, write(`{"id":"t","commandLine":"a","constraints":{"maxTaskRetryCount":-1},"odata.x":1}`))
				e.must(t, 200, "PUT", "/jobs/j/tasks/t", version, write(`{"constraints":{"maxTaskRetryCount":6}}`))
				e.must(t, 200, "POST", "/jobs/j/addtaskcollection", version, write(`{"value":[{"id":"c","commandLine":"a","constraints":{"maxTaskRetryCount":8}}]}`))
				if version >= "2015-12" {
					e.must(t, 202, "POST", "/pools/p/resize", version, write(resize))
				}
				views[i] = map[string]any{}
				for _, path := range []string{"/pools/p", "/jobs/j", "/jobs/j/tasks/t", "/jobs/j/tasks/c"} {
					views[i][path] = timeless(e.must(t, 200, "GET", path, version, "").object(t))
				}
			}
			if diff := cmp.Diff(views[0], views[1]); diff != "" {
				t.Errorf("numbers (-) and texts (+): %s", diff)
			}
		})
	}
}

// Clients keep numbers in 32 bits, and could not read a list with a larger one.
func TestNumbersThatClientsCannotReadAreRefused(t *testing.T) {
	t.Parallel()
	e, version := newEdge(t), published[len(published)-1]
	e.must(t, 201, "POST", "/pools", version, `{"id":"p","vmSize":"small","virtualMachineConfiguration":{"nodeAgentSKUId":"batch.node.ubuntu 24.04",`+
		`"imageReference":{"publisher":"canonical","offer":"ubuntu-24_04-lts","sku":"server"}}}`)
	e.must(t, 201, "POST", "/jobs", version, `{"id":"j","poolInfo":{"poolId":"p"}}`)
	e.must(t, 201, "POST", "/jobs/j/tasks", version, `{"id":"t","commandLine":"a","constraints":{"maxTaskRetryCount":2147483647}}`)
	for _, c := range [][2]string{
		{"/jobs/j/tasks", `{"id":"u","commandLine":"a","constraints":{"maxTaskRetryCount":2147483648}}`},
		{"/jobs", `{"id":"k","poolInfo":{"poolId":"p"},"constraints":{"maxTaskRetryCount":"2147483648"}}`},
		{"/jobs", `{"id":"k","poolInfo":{"poolId":"p"},"maxParallelTasks":2147483648}`},
	} {
		e.must(t, 400, "POST", c[0], version, c[1])
	}
}
