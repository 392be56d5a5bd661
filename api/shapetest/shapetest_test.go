package shapetest_test

import (
	"bytes"
	"compress/gzip"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/batchyard/batchyard/api/shapetest"
	"github.com/google/go-cmp/cmp"
)

const newest = "2024-07-01.20.0"

const poolBody = `{
	"odata.metadata": "http://127.0.0.1:8443/$metadata#pools/@Element",
	"id": "p", "url": "http://127.0.0.1:8443/pools/p", "eTag": "0x8DE1",
	"lastModified": "2026-11-20T10:11:12.5Z", "creationTime": "2026-11-20T10:11:12.5Z",
	"state": "active", "stateTransitionTime": "2026-11-20T10:11:12Z",
	"allocationState": "steady", "allocationStateTransitionTime": "2026-11-20T10:11:12.1234567Z",
	"vmSize": "standard_d2_v3", "resizeTimeout": "PT15M",
	"currentDedicatedNodes": 0, "targetDedicatedNodes": 2,
	"currentLowPriorityNodes": 0, "targetLowPriorityNodes": 0,
	"enableAutoScale": false, "enableInterNodeCommunication": false, "taskSlotsPerNode": 1,
	"taskSchedulingPolicy": {"nodeFillType": "Spread"},
	"virtualMachineConfiguration": {
		"imageReference": {"publisher": "canonical", "offer": "o", "sku": "22_04-lts", "version": "latest"},
		"nodeAgentSKUId": "batch.node.ubuntu 22.04"}
}`

const taskBody = `{
	"odata.metadata": "http://127.0.0.1:8443/$metadata#tasks/@Element",
	"id": "t", "url": "http://127.0.0.1:8443/jobs/j/tasks/t", "eTag": "0x8DE1",
	"lastModified": "2026-11-20T10:11:12Z", "creationTime": "2026-11-20T10:11:12Z",
	"state": "active", "stateTransitionTime": "2026-11-20T10:11:12Z", "commandLine": "true",
	"constraints": {"maxWallClockTime": "P10675199DT2H48M5.4775807S", "retentionTime": "P7D", "maxTaskRetryCount": 0},
	"executionInfo": {"retryCount": 0, "requeueCount": 0}, "requiredSlots": 1,
	"userIdentity": {"autoUser": {"scope": "pool", "elevationLevel": "nonadmin"}}
}`

const errorBody = `{
	"odata.metadata": "http://127.0.0.1:8443/$metadata#Microsoft.Azure.Batch.Protocol.Entities.Container.errors/@Element",
	"code": "PoolNotFound",
	"message": {"lang": "en-US", "value": "The specified pool does not exist.\nRequestId:1\nTime:2"}
}`

// envelope is what every answer carries; more is added in pairs of name and value.
func envelope(more ...string) http.Header {
	h := http.Header{}
	h.Set("DataServiceVersion", "3.0")
	h.Set("request-id", "6f4e3a1c-0f2b-4c53-9d44-0123456789ab")
	for i := 0; i < len(more); i += 2 {
		h.Set(more[i], more[i+1])
	}
	return h
}

func jsonEnvelope(more ...string) http.Header {
	return envelope(append(more, "Content-Type", "application/json;odata=minimalmetadata")...)
}

func tagged() http.Header {
	return jsonEnvelope("ETag", "0x8DE1", "Last-Modified", "Fri, 20 Nov 2026 10:11:12 GMT")
}

func TestCheck(t *testing.T) {
	t.Parallel()
	type request struct {
		method, path, version string
		status                int
		header                http.Header
		body                  string
	}
	list := func(metadata, items string) string {
		return `{"odata.metadata": "http://h/$metadata#` + metadata + `", "value": [` + items + `]}`
	}
	for _, tc := range []struct {
		name string
		request
		want []string // parts of the problems, in order
	}{
		{
			"a pool as the service answers it has no problem",
			request{"GET", "/pools/p", newest, 200, tagged(), poolBody}, nil,
		},
		{
			"a task as the service answers it has no problem",
			request{"GET", "/jobs/j/tasks/t", newest, 200, tagged(), taskBody}, nil,
		},
		{
			"the version may stand in the query",
			request{"GET", "/pools/p?api-version=" + newest, "", 200, tagged(), poolBody}, nil,
		},
		{
			"a field of a later version is reported",
			request{"GET", "/pools/p", "2019-08-01.10.0", 200, tagged(), poolBody},
			[]string{"pool.taskSlotsPerNode came only with", "pool.maxTasksPerNode is missing"},
		},
		{
			"a field the protocol does not have is reported",
			request{"GET", "/pools/p", newest, 200, tagged(), strings.Replace(poolBody, `"state"`, `"colour": 1, "state"`, 1)},
			[]string{"pool.colour is not a field"},
		},
		{
			"a word in another casing is reported",
			request{"GET", "/pools/p", newest, 200, tagged(), strings.Replace(poolBody, `"Spread"`, `"spread"`, 1)},
			[]string{`pool.taskSchedulingPolicy.nodeFillType is "spread", want word(Spread|Pack)`},
		},
		{
			"a time with a trailing zero is reported",
			request{"GET", "/pools/p", newest, 200, tagged(), strings.Replace(poolBody, `"2026-11-20T10:11:12.1234567Z"`, `"2026-11-20T10:11:12.10Z"`, 1)},
			[]string{"pool.allocationStateTransitionTime is"},
		},
		{
			"null is reported",
			request{"GET", "/pools/p", newest, 200, tagged(), strings.Replace(poolBody, `"PT15M"`, `null`, 1)},
			[]string{"pool.resizeTimeout is null"},
		},
		{
			"headers that differ from the body are reported",
			request{"GET", "/pools/p", newest, 200, jsonEnvelope("ETag", "0x8DE2", "Last-Modified", "Fri, 20 Nov 2026 10:11:13 GMT"), poolBody},
			[]string{"header ETag is", "header Last-Modified is"},
		},
		{
			"a quoted tag is reported",
			request{"PATCH", "/pools/p", newest, 200, envelope("ETag", `"0x8DE2"`, "Last-Modified", "Fri, 20 Nov 2026 10:11:13 GMT", "DataServiceId", "http://h/pools/p"), ""},
			[]string{`header ETag is "\"0x8DE2\""`},
		},
		{
			"a header that does not belong there is reported",
			request{"DELETE", "/pools/p", newest, 202, envelope("ETag", "0x8DE2"), ""},
			[]string{`header ETag is "0x8DE2", want none`},
		},
		{
			"another status of success is reported",
			request{"DELETE", "/pools/p", newest, 200, envelope(), ""},
			[]string{"status 200, want 202"},
		},
		{
			"a body where there is none is reported",
			request{"DELETE", "/pools/p", newest, 202, envelope(), "{}"},
			[]string{"a body of 2 bytes"},
		},
		{
			"an operation that does not exist is reported",
			request{"PUT", "/pools/p/nodes", newest, 200, envelope(), ""},
			[]string{"the protocol has no such operation"},
		},
		{
			"an error has no problem",
			request{"GET", "/pools/p", newest, 404, jsonEnvelope(), errorBody}, nil,
		},
		{
			"an error with another status is reported",
			request{"GET", "/pools/p", newest, 409, jsonEnvelope(), errorBody},
			[]string{"error PoolNotFound has status 409, want 404"},
		},
		{
			"an error of HEAD has no body",
			request{"HEAD", "/pools/p", newest, 404, envelope(), ""}, nil,
		},
		{
			"an answer without its envelope is reported",
			request{"HEAD", "/pools/p", newest, 404, http.Header{}, ""},
			[]string{"DataServiceVersion", "request-id"},
		},
		{
			"a list is judged item by item",
			request{"POST", "/jobs/j/addtaskcollection", newest, 200, jsonEnvelope(), list("taskaddresult",
				`{"status": "Success", "taskId": "a", "eTag": "0x1", "lastModified": "2026-11-20T10:11:12Z", "location": "http://h/jobs/j/tasks/a"},
				 {"status": "ClientError", "taskId": "b"}`)},
			[]string{"value[1].error is missing although status is ClientError"},
		},
		{
			"$select frees from sending the rest",
			request{"GET", "/jobs/j/tasks?$select=id,executionInfo/exitCode", newest, 200, jsonEnvelope(), list("tasks",
				`{"id": "a", "executionInfo": {"exitCode": 0}}`)}, nil,
		},
		{
			"$select binds to what was selected",
			request{"GET", "/jobs/j/tasks?$select=id,state", newest, 200, jsonEnvelope(), list("tasks", `{"id": "a", "url": "http://h/x"}`)},
			[]string{"url was not selected", "state is missing"},
		},
		{
			"the name of the list is judged",
			request{"GET", "/jobs/j/tasks", newest, 200, jsonEnvelope(), list("jobs", "")},
			[]string{"want a URL that ends in /$metadata#tasks"},
		},
		{
			"a file needs its own headers and no JSON",
			request{"GET", "/jobs/j/tasks/t/files/wd/out%20put.txt", newest, 200, envelope("Content-Type", "application/octet-stream"), "anything"},
			[]string{"Last-Modified is missing", "ocp-batch-file-isdirectory is missing", "ocp-batch-file-url is missing"},
		},
		{
			"an action in the query of the first versions is the same operation",
			request{"POST", "/pools/p?resize", "2015-06-01.2.0", 202, envelope("ETag", "0x1", "Last-Modified", "Fri, 20 Nov 2026 10:11:12 GMT", "DataServiceId", "http://h/pools/p"), ""}, nil,
		},
		{
			"paths beside the data plane are not judged",
			request{"GET", "/healthz", "", 500, http.Header{}, "ill"}, nil,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			r := tc.request
			got := shapetest.Check(r.method, r.path, r.version, r.status, r.header, []byte(r.body))
			if len(got) != len(tc.want) {
				t.Fatalf("problems: %s", cmp.Diff(tc.want, got))
			}
			for i, want := range tc.want {
				if !strings.Contains(got[i], want) {
					t.Errorf("problem %q does not say %q", got[i], want)
				}
			}
		})
	}
}

func TestProxy(t *testing.T) {
	t.Parallel()
	// serve answers as a Batch server would, one pool and one error.
	serve := func(w http.ResponseWriter, r *http.Request) {
		status, header, body := http.StatusOK, tagged(), poolBody
		if r.URL.EscapedPath() != "/pools/p%20q" {
			status, header, body = http.StatusNotFound, jsonEnvelope(), strings.Replace(errorBody, "PoolNotFound", "Pool", 1)
			header.Del("request-id")
		}
		maps.Copy(w.Header(), header)
		w.Header().Set("seen-host", r.Host)
		w.Header().Set("seen-query", r.URL.RawQuery)
		if r.Header.Get("Accept-Encoding") != "gzip" {
			w.WriteHeader(status)
			io.WriteString(w, body)
			return
		}
		w.Header().Set("Content-Encoding", "gzip")
		w.WriteHeader(status)
		zip := gzip.NewWriter(w)
		io.WriteString(zip, body)
		zip.Close()
	}
	type bundle struct {
		url      string
		problems func() []string
	}
	setup := func(t *testing.T) *bundle {
		t.Helper()
		server := httptest.NewServer(http.HandlerFunc(serve))
		t.Cleanup(server.Close)
		target, err := url.Parse(server.URL)
		if err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		var problems []string
		proxy := httptest.NewServer(shapetest.Proxy(target, func(problem string) {
			mu.Lock()
			defer mu.Unlock()
			problems = append(problems, problem)
		}))
		t.Cleanup(proxy.Close)
		return &bundle{proxy.URL, func() []string {
			mu.Lock()
			defer mu.Unlock()
			return problems
		}}
	}
	get := func(t *testing.T, url string, header http.Header) (*http.Response, []byte) {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), "GET", url, nil)
		if err != nil {
			t.Fatal(err)
		}
		maps.Copy(request.Header, header)
		resp, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp, body
	}

	t.Run("requests and answers pass unchanged", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		query := "api-version=" + newest + "&$select=&x=%2Fa%20b"
		resp, body := get(t, b.url+"/pools/p%20q?"+query, nil)
		if got, want := string(body), poolBody; got != want {
			t.Errorf("body: %s", cmp.Diff(want, got))
		}
		if got, want := resp.Header.Get("seen-host"), strings.TrimPrefix(b.url, "http://"); got != want {
			t.Errorf("the server saw host %q, want %q", got, want)
		}
		if got := resp.Header.Get("seen-query"); got != query {
			t.Errorf("the server saw query %q, want %q", got, query)
		}
		if got := b.problems(); got != nil {
			t.Errorf("problems: %q", got)
		}
	})

	t.Run("a compressed answer is judged and passed on compressed", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		resp, body := get(t, b.url+"/pools/p%20q?api-version=2016-07-01.3.1", http.Header{"Accept-Encoding": {"gzip"}})
		if resp.Header.Get("Content-Encoding") != "gzip" || !bytes.HasPrefix(body, []byte{0x1f, 0x8b}) {
			t.Error("the answer lost its compression")
		}
		if got := b.problems(); len(got) == 0 || !strings.Contains(strings.Join(got, "\n"), "pool.currentDedicated is missing") {
			t.Errorf("problems of an old version: %q", got)
		}
	})

	t.Run("every problem is reported", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		get(t, b.url+"/pools/other?api-version="+newest, http.Header{
			"Client-Request-Id": {"1"}, "Return-Client-Request-Id": {"true"},
		})
		got := b.problems()
		if len(got) != 2 || !strings.Contains(got[0], "request-id is") || !strings.Contains(got[1], "client-request-id is") {
			t.Errorf("problems: %q", got)
		}
	})
}
