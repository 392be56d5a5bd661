package api_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/batchyard/batchyard/auth"
	"github.com/batchyard/batchyard/batch"
)

// written is when the files of the tests were.
var written = batch.At(time.Date(2030, 1, 31, 12, 0, 0, 500_000_000, time.UTC))

// agent answers the file requests of a node from a map, in place of a real
// agent: it is the other end of the verbs under test.
type agent struct {
	edge  *edge
	node  batch.NodeID
	token string
	files map[string]string
}

// withFiles is an edge whose task ran on a node that has its files.
func withFiles(t *testing.T, files map[string]string) (*edge, batch.NodeID) {
	t.Helper()
	e := withTask(t)
	node := e.addNode(t, "p")
	e.ran(t, node)
	token, err := e.verbs.NewNodeToken(t.Context(), node)
	if err != nil {
		t.Fatal(err)
	}
	a := &agent{e, node, token, files}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return e, node
}

// run asks for orders and answers what they ask for until the test is over.
func (a *agent) run(ctx context.Context) error {
	report := batch.NodeReport{Instance: "one", Agent: &batch.AgentInfo{Version: "1", IPAddress: "127.0.0.1"}}
	for {
		orders, err := a.edge.nodes.Sync(ctx, a.node, a.token, report)
		switch {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // the test is over, which ends the call
		case err != nil:
			return fmt.Errorf("sync: %w", err)
		}
		report.Revision, report.Boot = orders.Revision, orders.Boot
		if orders.Settings != nil {
			report.Settings = orders.Settings.Version
		}
		for _, request := range orders.Files {
			answer, body := a.answer(request)
			err := a.edge.nodes.AnswerFile(ctx, a.node, a.token, request.ID, answer, body)
			if err != nil && ctx.Err() == nil {
				return fmt.Errorf("answer: %w", err)
			}
		}
	}
}

func (a *agent) answer(r batch.FileRequest) (batch.FileAnswer, io.Reader) {
	content, found := a.files[r.Path]
	file := &batch.File{
		Name: r.Path, Size: int64(len(content)), Modified: written, Created: written, Mode: 0o100644, ContentType: "text/html",
	}
	switch {
	case r.Op == batch.FileList:
		return a.list(r), nil
	case !found:
		return batch.FileAnswer{Error: &batch.FileError{Code: batch.CodeFileNotFound, Message: "The specified file does not exist."}}, nil
	case r.Op == batch.FileDelete:
		delete(a.files, r.Path)
		return batch.FileAnswer{}, nil
	case r.Op == batch.FileStat:
		return batch.FileAnswer{File: file}, nil
	}
	if r.Offset > 0 && r.Offset >= file.Size { // as the real one answers
		return batch.FileAnswer{File: file, Error: &batch.FileError{Code: batch.CodeInvalidRange, Message: "Behind the end."}}, nil
	}
	from := min(r.Offset, file.Size)
	to := file.Size
	if r.Length >= 0 {
		to = min(to, from+r.Length)
	}
	return batch.FileAnswer{File: file}, strings.NewReader(content[from:to])
}

func (a *agent) list(r batch.FileRequest) batch.FileAnswer {
	var names []string
	for name := range a.files {
		if name > r.After && strings.HasPrefix(name, r.Prefix) && (r.Recursive || !strings.Contains(name, "/")) {
			names = append(names, name)
		}
	}
	sort.Strings(names)
	answer := batch.FileAnswer{More: len(names) > r.Max}
	for _, name := range names[:min(len(names), r.Max)] {
		answer.Files = append(answer.Files, batch.File{
			Name: name, Size: int64(len(a.files[name])), Modified: written, Mode: 0o100644, ContentType: "text/plain",
		})
	}
	return answer
}

func TestFiles(t *testing.T) {
	t.Parallel()
	large := strings.Repeat("0123456789abcdef", 1<<16)
	e, node := withFiles(t, map[string]string{
		"stdout.txt": "hello world", "stderr.txt": "", "wd/out put.txt": "spaced", "wd/large": large, "doomed": "x",
	})
	const files = "/jobs/j/tasks/t/files"

	t.Run("a file is read with what is known of it", func(t *testing.T) {
		t.Parallel()
		a := e.must(t, 200, "GET", files+"/stdout.txt", newest, "")
		if a.body != "hello world" {
			t.Errorf("body %q", a.body)
		}
		for name, want := range map[string]string{
			"Content-Length": "11", "Last-Modified": "Thu, 31 Jan 2030 12:00:00 GMT", "ocp-creation-time": "Thu, 31 Jan 2030 12:00:00 GMT",
			"ocp-batch-file-isdirectory": "False", "ocp-batch-file-mode": "0o100644", "ocp-batch-file-url": e.url + files + "/stdout.txt",
			// What the task says is HTML must not become a page of the server.
			"Content-Type": "text/plain",
		} {
			if got := a.header.Get(name); got != want {
				t.Errorf("header %s is %q, want %q", name, got, want)
			}
		}
	})

	t.Run("a name may be encoded or not", func(t *testing.T) {
		t.Parallel()
		for _, name := range []string{"wd%2Fout%20put.txt", "wd/out%20put.txt", "wd%2fout%20put%2Etxt"} {
			a := e.must(t, 200, "GET", files+"/"+name, newest, "")
			if a.body != "spaced" {
				t.Errorf("%s: body %q", name, a.body)
			}
			if got, want := a.header.Get("ocp-batch-file-url"), e.url+files+"/wd%2Fout%20put.txt"; got != want {
				t.Errorf("url %q, want %q", got, want)
			}
		}
	})

	t.Run("a large file passes through whole", func(t *testing.T) {
		t.Parallel()
		if a := e.must(t, 200, "GET", files+"/wd/large", newest, ""); a.body != large {
			t.Errorf("%d bytes, want %d", len(a.body), len(large))
		}
	})

	t.Run("an empty file is a file", func(t *testing.T) {
		t.Parallel()
		if a := e.must(t, 200, "GET", files+"/stderr.txt", newest, ""); a.body != "" || a.header.Get("Content-Length") != "0" {
			t.Errorf("body %q, length %q", a.body, a.header.Get("Content-Length"))
		}
	})

	t.Run("a file of the node is found in the node", func(t *testing.T) {
		t.Parallel()
		a := e.must(t, 200, "GET", "/pools/p/nodes/"+string(node)+"/files/stdout.txt", newest, "")
		if a.body != "hello world" {
			t.Errorf("body %q", a.body)
		}
	})

	for name, tc := range map[string]struct {
		header, value string
		status        int
		body, content string
	}{
		"the first bytes":           {"ocp-range", "bytes=0-4", 200, "hello", "bytes 0-4/11"},
		"the last bytes":            {"ocp-range", "bytes=-5", 200, "world", "bytes 6-10/11"},
		"all but the first bytes":   {"ocp-range", "bytes=6-", 200, "world", "bytes 6-10/11"},
		"more than there is":        {"ocp-range", "bytes=6-99", 200, "world", "bytes 6-10/11"},
		"the header of HTTP itself": {"Range", "bytes=0-4", 206, "hello", "bytes 0-4/11"},
		"a range beyond the end":    {"ocp-range", "bytes=11-", 416, "InvalidRange", "bytes */11"},
		"a range far beyond it":     {"Range", "bytes=4000-5000", 416, "InvalidRange", "bytes */11"},
		"two ranges":                {"ocp-range", "bytes=0-1,3-4", 400, "InvalidHeaderValue", ""},
		"a range backwards":         {"ocp-range", "bytes=4-2", 400, "InvalidHeaderValue", ""},
		"a range of lines":          {"ocp-range", "lines=4-6", 400, "InvalidHeaderValue", ""},
	} {
		t.Run(name+" can be asked for", func(t *testing.T) {
			t.Parallel()
			a := e.must(t, tc.status, "GET", files+"/stdout.txt", newest, "", tc.header, tc.value)
			got := a.body
			if a.status >= 400 {
				got = a.code(t)
			}
			if diff := cmp.Diff([]string{got, a.header.Get("Content-Range")}, []string{tc.body, tc.content}); diff != "" {
				t.Error(diff)
			}
		})
	}

	t.Run("a file that has not changed is not read again", func(t *testing.T) {
		t.Parallel()
		e.must(t, 304, "GET", files+"/stdout.txt", newest, "", "If-Modified-Since", written.Format(http.TimeFormat))
		e.must(t, 412, "GET", files+"/stdout.txt", newest, "", "If-Unmodified-Since", written.Add(-time.Hour).Format(http.TimeFormat))
	})

	t.Run("the properties of a file come without its content", func(t *testing.T) {
		t.Parallel()
		a := e.must(t, 200, "HEAD", files+"/stdout.txt", newest, "")
		if a.body != "" || a.header.Get("Content-Length") != "11" {
			t.Errorf("body %q, length %q", a.body, a.header.Get("Content-Length"))
		}
		e.must(t, 404, "HEAD", files+"/none", newest, "")
	})

	t.Run("a file that is not there says so", func(t *testing.T) {
		t.Parallel()
		if got := e.must(t, 404, "GET", files+"/none", newest, "").code(t); got != "FileNotFound" {
			t.Errorf("code %s, want FileNotFound", got)
		}
	})

	t.Run("a file is deleted", func(t *testing.T) {
		t.Parallel()
		e.must(t, 200, "DELETE", files+"/doomed?recursive=true", newest, "")
		e.must(t, 404, "GET", files+"/doomed", newest, "")
	})

	t.Run("files are listed by pages and by prefix", func(t *testing.T) {
		t.Parallel()
		for path, want := range map[string][]string{
			files + "?$filter=startswith(name,'std')":                             {"stderr.txt", "stdout.txt"},
			files + "?recursive=true&maxresults=1&$filter=startswith(name,'wd/')": {"wd/large", "wd/out put.txt"},
		} {
			var got []string
			for _, item := range e.all(t, strings.ReplaceAll(path, "'", "%27"), newest) {
				got = append(got, fmt.Sprint(item["name"]))
			}
			if diff := cmp.Diff(got, want); diff != "" {
				t.Errorf("%s: %s", path, diff)
			}
		}
		for _, query := range []string{"$filter=name%20eq%20%27x%27", "recursive=maybe", "$skiptoken=%21"} {
			e.must(t, 400, "GET", files+"?"+query, newest, "")
		}
	})
}

func TestFilesOfTasksThatNeverRan(t *testing.T) {
	t.Parallel()
	e := withTask(t)
	if got := e.must(t, 409, "GET", "/jobs/j/tasks/t/files/stdout.txt", newest, "").code(t); got != "TaskFilesUnavailable" {
		t.Errorf("code %s, want TaskFilesUnavailable", got)
	}
}

func TestFilesOfSilentNodes(t *testing.T) {
	t.Parallel()
	e := withTask(t)
	node := e.addNode(t, "p")
	e.ran(t, node)
	a := e.do(t, "GET", "/jobs/j/tasks/t/files/stdout.txt?timeout=1", newest, "")
	if a.status != 500 && a.status != 409 {
		t.Errorf("status %d: %s", a.status, a.body)
	}
}

// A caller that goes away while it reads must not be taken for a fault.
func TestBrokenTransfers(t *testing.T) {
	t.Parallel()
	e, _ := withFiles(t, map[string]string{"large": strings.Repeat("x", 8<<20)})
	ctx, cancel := context.WithCancel(t.Context())
	r := e.request(t, "GET", "/jobs/j/tasks/t/files/large", newest, "").WithContext(ctx)
	if err := auth.SignBatch(r, string(e.account), e.key, e.now()); err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(response.Body, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	cancel()
	response.Body.Close()
	e.must(t, 200, "GET", "/pools", newest, "")
	if log := e.log.String(); strings.Contains(log, "ERROR") {
		t.Error(log)
	}
}
