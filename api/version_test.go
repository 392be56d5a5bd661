package api_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// published are all versions that are served, oldest first.
var published = []string{
	"2015-06-01.2.0", "2015-11-01.2.1", "2015-12-01.2.2", "2016-02-01.3.0", "2016-07-01.3.1", "2017-01-01.4.0",
	"2017-05-01.5.0", "2017-06-01.5.1", "2017-09-01.6.0", "2018-03-01.6.1", "2018-08-01.7.0", "2018-12-01.8.0",
	"2019-06-01.9.0", "2019-08-01.10.0", "2020-03-01.11.0", "2020-09-01.12.0", "2021-06-01.14.0", "2022-01-01.15.0",
	"2022-10-01.16.0", "2023-05-01.17.0", "2023-11-01.18.0", "2024-02-01.19.0", "2024-07-01.20.0", "2025-06-01",
}

func TestVersions(t *testing.T) {
	t.Parallel()
	e := newEdge(t)

	t.Run("every published version is served", func(t *testing.T) {
		t.Parallel()
		for _, version := range published {
			e.must(t, 200, "GET", "/pools", version, "")
		}
	})

	for name, tc := range map[string]struct{ version, code, reason string }{
		"no version at all":     {"", "MissingRequiredQueryParameter", newest},
		"a day that is none":    {"2022-13-01.1.0", "UnsupportedApiVersion", newest},
		"no date":               {"latest", "UnsupportedApiVersion", newest},
		"the protocol of 2015":  {"2015-03-01.1.1", "UnsupportedApiVersion", "another protocol"},
		"an older one than any": {"2015-05-31.2.0", "UnsupportedApiVersion", newest},
		"more than a date":      {"2022-10-01.16.0.1", "UnsupportedApiVersion", newest},
		"the protocol of 2014":  {"2014-10-01.1.0", "UnsupportedApiVersion", "another protocol"},
	} {
		t.Run(name+" is refused", func(t *testing.T) {
			t.Parallel()
			a := e.must(t, 400, "GET", "/pools", tc.version, "")
			if got := a.code(t); got != tc.code {
				t.Errorf("code %s, want %s", got, tc.code)
			}
			if got := a.detail(t, "Reason"); !strings.Contains(got, tc.reason) {
				t.Errorf("the reason %q does not say %q", got, tc.reason)
			}
		})
	}

	t.Run("a version that is not known is served as the one before it", func(t *testing.T) {
		t.Parallel()
		e := newEdge(t)
		e.must(t, 201, "POST", "/pools", newest, linuxPool)
		for version, as := range map[string]string{
			"2022-06-01.15.0": "2022-01-01.15.0", "2022-10-01": "2022-10-01.16.0", "2016-02-01.9.9": "2016-02-01.3.0", "2020-09-02.1.1": "2020-09-01.12.0",
			"2026-08-01": newest, "2099-01-01": newest,
		} {
			got := e.must(t, 200, "GET", "/pools", version, "").object(t)
			if diff := cmp.Diff(e.must(t, 200, "GET", "/pools", as, "").object(t), got); diff != "" {
				t.Errorf("%s as %s: %s", version, as, diff)
			}
		}
	})

	t.Run("the oldest versions write actions as words of the query", func(t *testing.T) {
		t.Parallel()
		e := newEdge(t)
		for _, version := range []string{"2015-06-01.2.0", "2015-11-01.2.1"} {
			id := "q" + version[5:7]
			e.must(t, 201, "POST", "/pools", version, `{"id":"`+id+`","vmSize":"small","osFamily":"4"}`)
			e.must(t, 202, "POST", "/pools/"+id+"?resize", version, `{"targetDedicated":1}`)
			e.must(t, 202, "POST", "/pools/"+id+"?stopresize", version, "")
		}
		e.must(t, 405, "POST", "/pools/q06?resize", "2015-12-01.2.2", `{"targetDedicated":1}`)
	})

	t.Run("a property of another version is not known", func(t *testing.T) {
		t.Parallel()
		for _, tc := range []struct{ version, body, property string }{
			{"2019-08-01.10.0", `{"id":"x","vmSize":"small","taskSlotsPerNode":1}`, "taskSlotsPerNode"},
			{newest, `{"id":"x","vmSize":"small","maxTasksPerNode":1}`, "maxTasksPerNode"},
			{"2016-07-01.3.1", `{"id":"x","vmSize":"small","targetDedicatedNodes":1}`, "targetDedicatedNodes"},
			{newest, `{"id":"x","vmSize":"small","cloudServiceConfiguration":{"osFamily":"4"}}`, "cloudServiceConfiguration"},
		} {
			a := e.must(t, 400, "POST", "/pools", tc.version, tc.body)
			got := []string{a.code(t), a.detail(t, "PropertyName")}
			if diff := cmp.Diff(got, []string{"InvalidRequestBody", tc.property}); diff != "" {
				t.Errorf("%s: %s", tc.version, diff)
			}
		}
	})
}

// TestRoundTrips adds resources in the terms of one version and reads them in
// those of all others.
func TestRoundTrips(t *testing.T) {
	t.Parallel()
	pools := map[string]string{
		"2015-06-01.2.0": `{"id":"p","vmSize":"small","osFamily":"4","targetOSVersion":"*","targetDedicated":0,"maxTasksPerNode":2,
			"startTask":{"commandLine":"a","runElevated":true,"resourceFiles":[{"blobSource":"http://h/c/b","filePath":"b"}]}}`,
		"2016-02-01.3.0": `{"id":"p","vmSize":"small","cloudServiceConfiguration":{"osFamily":"4","targetOSVersion":"*"},"maxTasksPerNode":2,
			"startTask":{"commandLine":"a","runElevated":true,"resourceFiles":[{"blobSource":"http://h/c/b","filePath":"b"}]}}`,
		"2018-08-01.7.0": `{"id":"p","vmSize":"small","cloudServiceConfiguration":{"osFamily":"4","targetOSVersion":"*"},"maxTasksPerNode":2,
			"startTask":{"commandLine":"a","userIdentity":{"autoUser":{"elevationLevel":"admin"}},"resourceFiles":[{"blobSource":"http://h/c/b","filePath":"b"}]}}`,
		"2020-09-01.12.0": `{"id":"p","vmSize":"small","cloudServiceConfiguration":{"osFamily":"4","osVersion":"*"},"taskSlotsPerNode":2,
			"startTask":{"commandLine":"a","waitForSuccess":false,"userIdentity":{"autoUser":{"elevationLevel":"admin"}},"resourceFiles":[{"httpUrl":"http://h/c/b","filePath":"b"}]}}`,
	}
	tasks := map[string]string{
		"2015-06-01.2.0": `{"id":"t","commandLine":"a","runElevated":true,"resourceFiles":[{"blobSource":"http://h/c/b","filePath":"b"}]}`,
		"2016-02-01.3.0": `{"id":"t","commandLine":"a","runElevated":true,"resourceFiles":[{"blobSource":"http://h/c/b","filePath":"b"}]}`,
		"2018-08-01.7.0": `{"id":"t","commandLine":"a","userIdentity":{"autoUser":{"elevationLevel":"admin"}},"resourceFiles":[{"blobSource":"http://h/c/b","filePath":"b"}]}`,
		"2020-09-01.12.0": `{"id":"t","commandLine":"a","constraints":{"retentionTime":"P10675199DT2H48M5.4775807S"},
			"userIdentity":{"autoUser":{"elevationLevel":"admin"}},"resourceFiles":[{"httpUrl":"http://h/c/b","filePath":"b"}]}`,
	}
	views := map[string]map[string]any{}
	for from := range pools {
		t.Run("added as "+from, func(t *testing.T) {
			e := newEdge(t)
			e.must(t, 201, "POST", "/pools", from, pools[from])
			e.must(t, 201, "POST", "/jobs", from, plainJob)
			e.must(t, 201, "POST", "/jobs/j/tasks", from, tasks[from])
			for _, as := range eras() {
				for _, path := range []string{"/pools/p", "/jobs/j", "/jobs/j/tasks/t", "/pools", "/jobs", "/jobs/j/tasks"} {
					view := timeless(e.must(t, 200, "GET", path, as, "").object(t)).(map[string]any)
					// All four say the same in their own terms, so that they
					// look the same in those of each other.
					key := path + " " + as
					if views[key] == nil {
						views[key] = view
					}
					if diff := cmp.Diff(view, views[key]); diff != "" {
						t.Errorf("%s: %s", key, diff)
					}
				}
			}
		})
	}
}

// timeless drops what differs from run to run.
func timeless(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for name, value := range v {
			if strings.HasSuffix(name, "Time") && name != "retentionTime" && name != "maxWallClockTime" ||
				name == "lastModified" || name == "eTag" || name == "url" || name == "odata.metadata" {
				delete(v, name)
				continue
			}
			v[name] = timeless(value)
		}
	case []any:
		for i := range v {
			v[i] = timeless(v[i])
		}
	}
	return v
}
