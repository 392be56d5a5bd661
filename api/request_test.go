package api_test

import (
	"bufio"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/batchyard/batchyard/api"
	"github.com/batchyard/batchyard/auth"
)

func TestBodies(t *testing.T) {
	t.Parallel()
	e := withTask(t)
	for name, tc := range map[string]struct{ body, code, property string }{
		"nothing":                      {"", "InvalidRequestBody", ""},
		"text that is no JSON":         {"id=5", "InvalidRequestBody", ""},
		"half an object":               {`{"id":"x"`, "InvalidRequestBody", ""},
		"two objects":                  {`{"id":"x","commandLine":"y"}{}`, "InvalidRequestBody", ""},
		"an array":                     {`[]`, "InvalidPropertyValue", ""},
		"a name twice":                 {`{"id":"x","id":"y","commandLine":"z"}`, "InvalidRequestBody", ""},
		"invalid UTF-8":                {"{\"id\":\"\xff\"}", "InvalidRequestBody", ""},
		"nesting without end":          {`{"id":` + strings.Repeat(`[`, 20_000), "InvalidRequestBody", "id"},
		"nesting that is annotated":    {`{"id":"x","commandLine":"y","odata.a":1,"containerSettings":` + strings.Repeat(`[`, 200) + strings.Repeat(`]`, 200) + `}`, "InvalidRequestBody", "containerSettings"},
		"a URL without end":            {`{"id":"x","commandLine":"y","resourceFiles":[{"filePath":"f","httpUrl":"http://h/?` + strings.Repeat("? ", 10_000) + `"}]}`, "InvalidPropertyValue", "resourceFiles[0].httpUrl"},
		"an unknown property":          {`{"id":"x","commandLine":"y","colour":1}`, "InvalidRequestBody", "colour"},
		"an unknown property inside":   {`{"id":"x","commandLine":"y","constraints":{"colour":1}}`, "InvalidRequestBody", "constraints.colour"},
		"a property in another case":   {`{"ID":"x","commandLine":"y"}`, "InvalidRequestBody", "ID"},
		"a number for a string":        {`{"id":5,"commandLine":"y"}`, "InvalidPropertyValue", "id"},
		"a string for a number":        {`{"id":"x","commandLine":"y","requiredSlots":"two"}`, "InvalidPropertyValue", "requiredSlots"},
		"a fraction of a slot":         {`{"id":"x","commandLine":"y","requiredSlots":1.5}`, "InvalidPropertyValue", "requiredSlots"},
		"an object for an array":       {`{"id":"x","commandLine":"y","resourceFiles":{}}`, "InvalidPropertyValue", "resourceFiles"},
		"a wrong type in an item":      {`{"id":"x","commandLine":"y","resourceFiles":[{"filePath":1}]}`, "InvalidPropertyValue", "resourceFiles[0].filePath"},
		"a duration that is none":      {`{"id":"x","commandLine":"y","constraints":{"retentionTime":"1 day"}}`, "InvalidPropertyValue", "constraints.retentionTime"},
		"a duration as a number":       {`{"id":"x","commandLine":"y","constraints":{"retentionTime":1}}`, "InvalidPropertyValue", "constraints.retentionTime"},
		"a value that is not legal":    {`{"id":"x y","commandLine":"y"}`, "InvalidPropertyValue", "id"},
		"no command line":              {`{"id":"x"}`, "MissingRequiredProperty", "commandLine"},
		"a property of a later time":   {`{"id":"x","commandLine":"y","dependsOn":{"taskIds":["a"]}}`, "PropertyNotSupported", "dependsOn"},
		"a property of the collection": {`{"value":[]}`, "InvalidRequestBody", "value"},
	} {
		t.Run(name+" is refused", func(t *testing.T) {
			t.Parallel()
			a := e.must(t, 400, "POST", "/jobs/j/tasks", newest, tc.body)
			got := []string{a.code(t), a.detail(t, "PropertyName")}
			if diff := cmp.Diff(got, []string{tc.code, tc.property}); diff != "" {
				t.Errorf("%s%s", diff, a.body)
			}
		})
	}

	t.Run("annotations of the transport are not properties", func(t *testing.T) {
		t.Parallel()
		e.must(t, 201, "POST", "/jobs/j/tasks", newest,
			`{"odata.metadata":"x","id":"annotated","commandLine":"y","constraints":{"odata.type":"z"},"id@odata.type":"s"}`)
	})

	t.Run("a refusal shows the value that was sent", func(t *testing.T) {
		t.Parallel()
		for member, want := range map[string]string{
			`"constraints":{"retentionTime":"00:00:05"}`: "constraints.retentionTime=00:00:05", `"constraints":{"retentionTime":5}`: "constraints.retentionTime=5",
			`"constraints":{"maxTaskRetryCount":"two"}`: "constraints.maxTaskRetryCount=two", `"constraints":{"maxTaskRetryCount":" 2"}`: "constraints.maxTaskRetryCount= 2",
			`"constraints":{"maxTaskRetryCount":"+2"}`: "constraints.maxTaskRetryCount=+2", `"constraints":{"maxTaskRetryCount":"1.5"}`: "constraints.maxTaskRetryCount=1.5",
			`"constraints":{"maxTaskRetryCount":"99999999999999999999"}`: "constraints.maxTaskRetryCount=99999999999999999999",
			`"requiredSlots":1.5`: "requiredSlots=1.5", `"requiredSlots":true`: "requiredSlots=true", `"requiredSlots":[1]`: "requiredSlots=[1]",
			`"displayName":7`: "displayName=7", `"resourceFiles":[{},{"filePath":{"a":1}}]`: `resourceFiles[1].filePath={"a":1}`,
			`"odata.x":1,"requiredSlots":"x"`: "requiredSlots=x", `"requiredSlots":-1`: "requiredSlots=-1",
			`"environmentSettings":[{"name":"n","value":7}]`: "environmentSettings[0].value=7",
		} {
			for _, version := range []string{newest, "2020-09-01.12.0"} {
				a := e.must(t, 400, "POST", "/jobs/j/tasks", version, `{"id":"x","commandLine":"y",`+member+`}`)
				if got := a.detail(t, "PropertyName") + "=" + a.detail(t, "PropertyValue"); got != want || a.code(t) != "InvalidPropertyValue" {
					t.Errorf("%s: %s, want %s: %s", member, got, want, a.body)
				}
			}
		}
	})

	t.Run("a header of an upload that could not be sent is refused", func(t *testing.T) {
		t.Parallel()
		const task = `{"id":"x","commandLine":"y","outputFiles":[{"filePattern":"f","destination":{"container":{"containerUrl":"http://s.example/c",` +
			`"uploadHeaders":[{"name":"x-ms-meta-a","value":"good"},{"name":"%s","value":"%s"}]}},"uploadOptions":{"uploadCondition":"taskSuccess"}}]}`
		for _, tc := range []struct{ name, value, want string }{ // as written in JSON
			{`x-ms-meta-b`, `a\r\nX-Planted: 1`, "value"}, {`x-ms-meta-b`, `a\nb`, "value"}, {`x-ms-meta-b`, `\u007f`, "value"},
			{`x-ms-meta-b\r\nX-Planted`, `1`, "name"}, {`x-ms-meta-a b`, `1`, "name"}, {`x-ms-meta-ä`, `1`, "name"}, {``, `1`, "name"},
		} {
			a := e.must(t, 400, "POST", "/jobs/j/tasks", newest, fmt.Sprintf(task, tc.name, tc.value))
			got := []string{a.code(t), a.detail(t, "PropertyName")}
			if diff := cmp.Diff([]string{"InvalidPropertyValue", "outputFiles[0].destination.container.uploadHeaders[1]." + tc.want}, got); diff != "" {
				t.Errorf("%q: %q: %s", tc.name, tc.value, diff)
			}
		}
	})

	t.Run("a NUL is refused wherever it is", func(t *testing.T) {
		t.Parallel()
		a := e.must(t, 400, "POST", "/jobs/j/tasks", newest, `{"id":"nul","commandLine":"y","displayName":"a\u0000b"}`)
		if got := a.detail(t, "PropertyName"); got != "displayName" {
			t.Errorf("refused %q", got)
		}
		e.must(t, 201, "POST", "/jobs/j/tasks", newest, `{"id":"nonul","commandLine":"y","displayName":"a\\u0000b"}`)
		items := e.must(t, 200, "POST", "/jobs/j/addtaskcollection", newest,
			`{"value":[{"id":"nul1","commandLine":"y"},{"id":"nul2","commandLine":"y","displayName":"\u0000"}]}`).items(t)
		if diff := cmp.Diff(statuses(items), []string{"nul1 success -", "nul2 clienterror InvalidPropertyValue"}); diff != "" {
			t.Error(diff)
		}
		for _, path := range []string{"/pools/a%00b", "/pools/a%ffb", "/jobs/j/tasks/t/files/%ff"} {
			if got := e.must(t, 400, "GET", path, newest, "").code(t); got != "InvalidUri" {
				t.Errorf("%s: code %s, want InvalidUri", path, got)
			}
		}
	})

	t.Run("a byte order mark is no part of a body", func(t *testing.T) {
		t.Parallel()
		e.must(t, 201, "POST", "/jobs/j/tasks", newest, "\uFEFF"+`{"id":"marked","commandLine":"y"}`)
		items := e.must(t, 200, "POST", "/jobs/j/addtaskcollection", newest, "\uFEFF"+`{"value":[{"id":"marked2","commandLine":"y"}]}`).items(t)
		if diff := cmp.Diff(statuses(items), []string{"marked2 success -"}); diff != "" {
			t.Error(diff)
		}
		e.must(t, 400, "POST", "/jobs/j/tasks", newest, "\uFEFF\uFEFF"+`{"id":"twice","commandLine":"y"}`)
	})

	t.Run("null is the same as absent", func(t *testing.T) {
		t.Parallel()
		e.must(t, 201, "POST", "/jobs/j/tasks", newest,
			`{"id":"nulls","commandLine":"y","constraints":null,"resourceFiles":null,"displayName":null,"dependsOn":null}`)
	})

	t.Run("a body over the limit is refused with the limit", func(t *testing.T) {
		t.Parallel()
		big := `{"id":"x","commandLine":"` + strings.Repeat("y", 1<<20) + `"}`
		a := e.must(t, 413, "POST", "/jobs/j/tasks", newest, big)
		got := []string{a.code(t), a.detail(t, "MaxLimit")}
		if diff := cmp.Diff(got, []string{"RequestBodyTooLarge", "1048576"}); diff != "" {
			t.Error(diff)
		}
	})

	t.Run("a caller that sends a large body before it reads is told so", func(t *testing.T) {
		t.Parallel()
		r := e.request(t, "POST", "/jobs/j/tasks", newest, strings.Repeat("y", 12<<20))
		if err := auth.SignBatch(r, string(e.account), e.key, e.now()); err != nil {
			t.Fatal(err)
		}
		conn, err := net.Dial("tcp", r.URL.Host)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := r.Write(conn); err != nil {
			t.Fatal(err)
		}
		answer, err := http.ReadResponse(bufio.NewReader(conn), r)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		if answer.StatusCode != 413 {
			t.Errorf("status %d, want 413", answer.StatusCode)
		}
	})

	t.Run("a body over the limit that does not say its length is refused too", func(t *testing.T) {
		t.Parallel()
		r := e.request(t, "POST", "/jobs/j/tasks", newest, "")
		r.Body = http.NoBody
		if err := auth.SignBatch(r, string(e.account), e.key, e.now()); err != nil {
			t.Fatal(err)
		}
		r.Body, r.ContentLength = readCloser{strings.NewReader(strings.Repeat(" ", 2<<20))}, -1
		if a := send(t, r); a.status != 413 {
			t.Errorf("status %d, want 413: %s", a.status, a.body)
		}
	})

	t.Run("a compressed body is refused by its header", func(t *testing.T) {
		t.Parallel()
		a := e.must(t, 400, "POST", "/jobs/j/tasks", newest, plainTask, "Content-Encoding", "gzip")
		if got := a.detail(t, "HeaderName"); got != "Content-Encoding" {
			t.Errorf("refused %q", got)
		}
	})
}

type readCloser struct{ *strings.Reader }

func (readCloser) Close() error { return nil }

func TestRoutes(t *testing.T) {
	t.Parallel()
	e := withTask(t)

	t.Run("an address that is none says so", func(t *testing.T) {
		t.Parallel()
		for _, path := range []string{"/", "/nothing", "/pools/p/colour", "/jobs/j/tasks/t/files/", "/pools//nodes", "/certificates(x"} {
			if got := e.must(t, 400, "GET", path, newest, "").code(t); got != "InvalidUri" {
				t.Errorf("%s: code %s, want InvalidUri", path, got)
			}
		}
	})

	t.Run("a method that an address does not have is named with those it has", func(t *testing.T) {
		t.Parallel()
		a := e.must(t, 405, "OPTIONS", "/pools/p", newest, "")
		got := []string{a.code(t), a.header.Get("Allow")}
		if diff := cmp.Diff(got, []string{"UnsupportedHttpVerb", "DELETE, GET, HEAD, PATCH"}); diff != "" {
			t.Error(diff)
		}
	})

	t.Run("an encoded id is the same id", func(t *testing.T) {
		t.Parallel()
		e.must(t, 200, "GET", "/jobs/%6A/tasks/t", newest, "")
		e.must(t, 404, "GET", "/jobs/j%201/tasks/t", newest, "")
	})

	for name, tc := range map[string]struct {
		method, path string
		status       int
		code         string
	}{
		"autoscale":              {"POST", "/pools/p/enableautoscale", 501, "OperationNotSupported"},
		"upgrades of the system": {"POST", "/pools/p/upgradeos", 501, "OperationNotSupported"},
		"node users":             {"POST", "/pools/p/nodes/n/users", 501, "OperationNotSupported"},
		"remote desktops":        {"GET", "/pools/p/nodes/n/rdp", 501, "OperationNotSupported"},
		"login settings":         {"GET", "/pools/p/nodes/n/remoteloginsettings", 501, "OperationNotSupported"},
		"log uploads":            {"POST", "/pools/p/nodes/n/uploadbatchservicelogs", 501, "OperationNotSupported"},
		"deallocation":           {"POST", "/pools/p/nodes/n/deallocate", 501, "OperationNotSupported"},
		"lifetime statistics":    {"GET", "/lifetimepoolstats", 501, "OperationNotSupported"},
		"usage metrics":          {"GET", "/poolusagemetrics", 400, "PoolUsageMetricAPIRetired"},
		"new certificates":       {"POST", "/certificates", 501, "OperationNotSupported"},
		"a certificate":          {"GET", "/certificates(thumbprintAlgorithm=sha1,thumbprint=ab)", 404, "CertificateNotFound"},
		"cancelled deletions":    {"POST", "/certificates(thumbprintAlgorithm=sha1,thumbprint=ab)/canceldelete", 404, "CertificateNotFound"},
		"new job schedules":      {"POST", "/jobschedules", 501, "OperationNotSupported"},
		"a job schedule":         {"GET", "/jobschedules/s", 404, "JobScheduleNotFound"},
		"an application":         {"GET", "/applications/a", 404, "ApplicationNotFound"},
		"preparation tasks":      {"GET", "/jobs/j/jobpreparationandreleasetaskstatus", 409, "JobPreparationTaskOrReleaseTaskNotSpecified"},
	} {
		t.Run(name+" are answered in the protocol's words", func(t *testing.T) {
			t.Parallel()
			if got := e.must(t, tc.status, tc.method, tc.path, newest, "").code(t); got != tc.code {
				t.Errorf("code %s, want %s", got, tc.code)
			}
		})
	}

	t.Run("lists of what nobody can have are empty", func(t *testing.T) {
		t.Parallel()
		for _, path := range []string{"/applications", "/certificates", "/jobschedules", "/jobs/j/tasks/t/subtasksinfo"} {
			if items := e.must(t, 200, "GET", path, "2022-10-01.16.0", "").items(t); len(items) != 0 {
				t.Errorf("%s has %d items", path, len(items))
			}
		}
		e.must(t, 404, "HEAD", "/jobschedules/s", newest, "")
	})
}

func TestHeaders(t *testing.T) {
	t.Parallel()
	e := newEdge(t)

	t.Run("every answer has the headers of the service", func(t *testing.T) {
		t.Parallel()
		for _, path := range []string{"/pools", "/pools/none", "/nothing"} {
			a := e.do(t, "GET", path, newest, "")
			for name, want := range map[string]string{
				"DataServiceVersion": "3.0", "Server": "Microsoft-HTTPAPI/2.0", "X-Content-Type-Options": "nosniff",
				"Content-Type": "application/json;odata=minimalmetadata",
			} {
				if got := a.header.Get(name); got != want {
					t.Errorf("%s: header %s is %q, want %q", path, name, got, want)
				}
			}
			if a.header.Get("Strict-Transport-Security") == "" {
				t.Errorf("%s: no Strict-Transport-Security", path)
			}
		}
	})

	t.Run("the request id of the client comes back only when asked for", func(t *testing.T) {
		t.Parallel()
		const id = "8c9f1c0e-3d8f-4d3f-9f57-9a6f1c7b0a11"
		for _, name := range []string{"client-request-id", "x-ms-client-request-id"} {
			asked := e.do(t, "GET", "/pools", newest, "", name, id, "return-client-request-id", "True")
			if got := asked.header.Get(name); got != id {
				t.Errorf("%s is %q, want %q", name, got, id)
			}
			if got := e.do(t, "GET", "/pools", newest, "", name, id, "return-client-request-id", "false").header.Get(name); got != "" {
				t.Errorf("%s is %q although it was not asked for", name, got)
			}
		}
	})

	t.Run("browsers are not told to shun other servers of the machine", func(t *testing.T) {
		t.Parallel()
		r := e.request(t, "GET", "/pools", newest, "")
		r.Host = "localhost:8443"
		if got := send(t, r).header.Get("Strict-Transport-Security"); got != "" {
			t.Errorf("Strict-Transport-Security is %q for localhost", got)
		}
	})

	t.Run("an error names the request and the time in its message", func(t *testing.T) {
		t.Parallel()
		a := e.do(t, "GET", "/pools/none", newest, "")
		if want := "\nRequestId:" + a.header.Get("request-id") + "\nTime:"; !strings.Contains(a.object(t)["message"].(map[string]any)["value"].(string), want) {
			t.Errorf("the message has no %q: %s", want, a.body)
		}
	})
}

func TestTimeouts(t *testing.T) {
	t.Parallel()
	e := newEdge(t)
	e.must(t, 200, "GET", "/pools?timeout=60", newest, "")
	e.must(t, 200, "GET", "/pools?timeOut=3600", newest, "")
}

func TestPanics(t *testing.T) {
	t.Parallel()
	log := &journal{}
	// Without verbs every operation is a bug of the kind that panics.
	server := httptest.NewServer(api.New(api.Options{Log: slog.New(slog.NewTextHandler(log, nil))}))
	t.Cleanup(server.Close)
	e := &edge{url: server.URL, account: "test", key: auth.NewKey(), now: time.Now}
	a := e.must(t, 500, "GET", "/pools", newest, "")
	if got := a.code(t); got != "InternalError" {
		t.Errorf("code %s, want InternalError", got)
	}
	if text := log.String(); strings.Count(text, "request panicked") != 1 || !strings.Contains(text, a.header.Get("request-id")) {
		t.Errorf("the log does not tell of the request once: %s", text)
	}
	if strings.Contains(a.body, "nil pointer") {
		t.Errorf("the caller is told of the bug: %s", a.body)
	}
}

func TestObserve(t *testing.T) {
	t.Parallel()
	type seen struct {
		Operation string
		Status    int
	}
	got := make(chan seen, 3)
	e := newEdge(t, func(o *api.Options) {
		o.Observe = func(operation string, status int, _ time.Duration) { got <- seen{operation, status} }
	})
	e.do(t, "GET", "/pools/p", newest, "")
	e.do(t, "GET", "/nothing", newest, "")
	if diff := cmp.Diff([]seen{<-got, <-got}, []seen{{"GET pools/{pool}", 404}, {"unknown", 400}}); diff != "" {
		t.Error(diff)
	}
}
