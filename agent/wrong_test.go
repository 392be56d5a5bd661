package agent_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/batchyard/batchyard/agent"
	"github.com/batchyard/batchyard/agent/run"
	"github.com/batchyard/batchyard/batch"
)

// What a container's address answers may be anything, and fails the task alone.
func TestWrongLists(t *testing.T) {
	t.Parallel()
	xml := func(body string) func(w http.ResponseWriter) {
		return func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "application/xml")
			fmt.Fprint(w, `<?xml version="1.0" encoding="utf-8"?>`+body)
		}
	}
	const results = `<EnumerationResults ServiceEndpoint="x" ContainerName="c">`
	for name, answer := range map[string]func(w http.ResponseWriter){
		"a page for people": func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "text/html")
			fmt.Fprint(w, "<html><body><p>hello</p></body></html>")
		},
		"nothing":                   func(http.ResponseWriter) {},
		"JSON":                      func(w http.ResponseWriter) { fmt.Fprint(w, `{"value":[]}`) },
		"a list of another store":   xml(`<ListBucketResult><Contents><Key>a</Key></Contents></ListBucketResult>`),
		"a list without blobs":      xml(results + `<NextMarker/></EnumerationResults>`),
		"a blob without a name":     xml(results + `<Blobs><Blob><Properties/></Blob></Blobs><NextMarker/></EnumerationResults>`),
		"a blob with an empty name": xml(results + `<Blobs><Blob><Name></Name></Blob></Blobs><NextMarker/></EnumerationResults>`),
		"a name that leads out":     xml(results + `<Blobs><Blob><Name>../../x</Name></Blob></Blobs><NextMarker/></EnumerationResults>`),
		"pages without an end":      xml(results + `<Blobs></Blobs><NextMarker>again</NextMarker></EnumerationResults>`),
		"sizes and times of nobody": xml(results + `<Blobs><Blob><Name>a</Name><Properties><Content-Length>many</Content-Length></Properties></Blob></Blobs></EnumerationResults>`),
		"a list that never ends": func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "application/xml")
			fmt.Fprint(w, results+"<Blobs>")
			for block := strings.Repeat("<Blob></Blob>", 10_000); ; {
				if _, err := io.WriteString(w, block); err != nil {
					return
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { answer(w) }))
			t.Cleanup(web.Close)
			n := newNode(t, allow(host(web)))
			got := n.run("t", fetching(batch.ResourceFile{StorageContainerURL: web.URL + "/c"}))
			if got.ExitCode != nil || got.Failure == nil || got.Failure.Code != batch.FailureBlobDownload || got.Failure.Category != batch.UserError {
				t.Errorf("outcome is %+v, failure %+v", got, got.Failure)
			}
			if got := summarize(n.run("other", shell("true"))); got != (summary{}) {
				t.Errorf("another task ends as %+v", got)
			}
			n.mu.Lock()
			defer n.mu.Unlock()
			if len(n.report.Errors) > 0 {
				t.Errorf("the node says %+v", n.report.Errors)
			}
		})
	}
}

// flawed is a keeper that panics when a task of a certain name is to start.
type flawed struct{ *run.Keeper }

func (f flawed) Process(spec run.Spec) run.Execution {
	p := f.Keeper.Process(spec)
	if strings.HasPrefix(spec.ID, "j/poison") {
		return flawedProcess{p}
	}
	return p
}

type flawedProcess struct{ run.Execution }

func (flawedProcess) Start(context.Context) (run.Started, error) {
	panic("started")
}

func (flawedProcess) LineUp(context.Context, func()) (run.Started, error) { panic("lined up") }

// A panic is the end of one attempt, and is told.
func TestPanics(t *testing.T) {
	t.Parallel()
	n := newNode(t, func(n *node) {
		n.options.OpenKeeper = func(ctx context.Context, o run.Options) (agent.Keeper, error) {
			k, err := run.Open(ctx, o)
			return flawed{k}, err
		}
	})
	g := n.newGate("g")
	beside := n.add("beside", shell(g.wait()))
	n.phase("beside", batch.PhaseRunning)
	for _, task := range []string{"poison1", "poison2"} {
		got := n.run(task, shell("true"))
		if got.ExitCode != nil || got.Failure == nil || got.Failure.Category != batch.ServerError {
			t.Errorf("%s ended as %+v, failure %+v", task, got, got.Failure)
		}
	}
	n.until("the node tells of it", func() bool { return slices.Equal(errorCodes(n.report), []string{"AgentInternalError"}) })
	g.open()
	if got := summarize(n.outcome(beside)); got != (summary{}) {
		t.Errorf("the task beside ends as %+v", got)
	}
	if got := summarize(n.run("after", shell("true"))); got != (summary{}) {
		t.Errorf("the next task ends as %+v", got)
	}
}
