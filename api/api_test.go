package api_test

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/batchyard/batchyard/api"
	"github.com/batchyard/batchyard/api/shapetest"
	"github.com/batchyard/batchyard/auth"
	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/control"
	"github.com/batchyard/batchyard/conversation"
	"github.com/batchyard/batchyard/store"
)

const newest = "2025-06-01"

// eras are versions of which every test of shapes has one: the oldest, and one
// from each time between two breaks.
func eras() []string {
	return []string{
		"2015-06-01.2.0", "2016-02-01.3.0", "2018-08-01.7.0", "2020-09-01.12.0",
		"2022-10-01.16.0", "2024-07-01.20.0", newest,
	}
}

// edge is a server of the protocol on real verbs and a real database.
type edge struct {
	url     string
	account batch.AccountName
	key     auth.Key
	verbs   *control.Service
	nodes   *conversation.Room
	db      *store.DB
	now     func() time.Time
	log     *journal
}

// journal is a log that may be read while it is written.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

// noon is the time at which the tests with a fixed clock play.
var noon = time.Date(2030, 1, 31, 12, 0, 0, 0, time.UTC)

func newEdge(t *testing.T, change ...func(*api.Options)) *edge {
	t.Helper()
	return newEdgeAt(t, time.Now, change...)
}

func newEdgeAt(t *testing.T, now func() time.Time, change ...func(*api.Options)) *edge {
	t.Helper()
	db, err := store.Open(t.Context(), store.Options{URL: filepath.Join(t.TempDir(), "batchyard.db"), Now: now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	e := &edge{account: "test", db: db, now: now, log: &journal{}}
	e.verbs = control.New(control.Options{DB: db})
	e.nodes = conversation.New(conversation.Options{DB: db, Control: e.verbs, Now: now})
	e.key = e.addAccount(t, e.account)
	options := api.Options{Control: e.verbs, Nodes: e.nodes, Now: now, Log: slog.New(slog.NewTextHandler(e.log, nil))}
	for _, c := range change {
		c(&options)
	}
	server := httptest.NewServer(api.New(options))
	t.Cleanup(server.Close)
	e.url = server.URL
	return e
}

func (e *edge) addAccount(t *testing.T, name batch.AccountName) auth.Key {
	t.Helper()
	key := auth.NewKey()
	err := e.verbs.AddAccount(t.Context(), batch.Account{Name: name, Keys: [2][]byte{key, auth.NewKey()}, Created: e.now()})
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   string
}

// request makes an unsigned request. The path may have a query; the version is
// added to it.
func (e *edge) request(t *testing.T, method, path, version, body string, headers ...string) *http.Request {
	t.Helper()
	sep := "?"
	if strings.Contains(path, "?") {
		sep = "&"
	}
	if version != "" {
		path += sep + "api-version=" + version
	}
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	r, err := http.NewRequestWithContext(t.Context(), method, e.url+path, reader)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	return r
}

// do signs and sends a request, and holds the answer against the shapes of the
// protocol.
func (e *edge) do(t *testing.T, method, path, version, body string, headers ...string) answer {
	t.Helper()
	r := e.request(t, method, path, version, body, headers...)
	if err := auth.SignBatch(r, string(e.account), e.key, e.now()); err != nil {
		t.Fatal(err)
	}
	a := send(t, r)
	for _, problem := range shapetest.Check(method, r.URL.EscapedPath()+"?"+r.URL.RawQuery, version, a.status, a.header, []byte(a.body)) {
		if !strings.Contains(problem, "206") {
			t.Error(problem)
		}
	}
	return a
}

func send(t *testing.T, r *http.Request) answer {
	t.Helper()
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{response.StatusCode, response.Header, string(body)}
}

// must is do for requests that a test needs to succeed.
func (e *edge) must(t *testing.T, status int, method, path, version, body string, headers ...string) answer {
	t.Helper()
	a := e.do(t, method, path, version, body, headers...)
	if a.status != status {
		t.Fatalf("%s %s: status %d, want %d: %s", method, path, a.status, status, a.body)
	}
	return a
}

// code is the code of an error.
func (a answer) code(t *testing.T) string {
	t.Helper()
	var e struct {
		Code string `json:"code"`
	}
	if err := json.Unmarshal([]byte(a.body), &e); err != nil {
		t.Fatalf("%v: %s", err, a.body)
	}
	return e.Code
}

// detail is a value of an error by its key.
func (a answer) detail(t *testing.T, key string) string {
	t.Helper()
	var e struct {
		Values []batch.Detail `json:"values"`
	}
	if err := json.Unmarshal([]byte(a.body), &e); err != nil {
		t.Fatalf("%v: %s", err, a.body)
	}
	for _, d := range e.Values {
		if d.Key == key {
			return d.Value
		}
	}
	return ""
}

// object is the body as a JSON object.
func (a answer) object(t *testing.T) map[string]any {
	t.Helper()
	var o map[string]any
	if err := json.Unmarshal([]byte(a.body), &o); err != nil {
		t.Fatalf("%v: %s", err, a.body)
	}
	return o
}

// items is the value of a list.
func (a answer) items(t *testing.T) []map[string]any {
	t.Helper()
	var l struct {
		Value []map[string]any `json:"value"`
	}
	if err := json.Unmarshal([]byte(a.body), &l); err != nil {
		t.Fatalf("%v: %s", err, a.body)
	}
	return l.Value
}

const (
	linuxPool = `{"id":"p","vmSize":"STANDARD_D2_V3","virtualMachineConfiguration":{` +
		`"imageReference":{"publisher":"canonical","offer":"ubuntu-24_04-lts","sku":"server"},` +
		`"nodeAgentSKUId":"batch.node.ubuntu 24.04"}}`
	plainJob  = `{"id":"j","poolInfo":{"poolId":"p"}}`
	plainTask = `{"id":"t","commandLine":"/bin/true"}`
)

// addNode puts a node into a pool without anything that would make one.
func (e *edge) addNode(t *testing.T, pool batch.PoolID) batch.NodeID {
	t.Helper()
	id := batch.NodeID("tvmps_" + strings.Repeat("0123456789abcdef", 4) + "_d")
	err := e.db.Update(t.Context(), func(tx *store.Tx) error {
		return tx.InsertNodes([]batch.Node{{
			ID: id, Account: e.account, Pool: pool, State: batch.NodeIdle, SchedulingState: batch.SchedulingEnabled,
			StateTransitionTime: tx.Now(), AllocationTime: tx.Now(), LastBootTime: tx.Now(),
			IPAddress: "127.0.0.1", VMSize: "STANDARD_D2_V3", Dedicated: true, AgentVersion: "1.0", AgentTime: tx.Now(), Revision: 1,
		}})
	})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// ran makes the task of withTask one that a node has run and that failed.
func (e *edge) ran(t *testing.T, node batch.NodeID) {
	t.Helper()
	err := e.db.Update(t.Context(), func(tx *store.Tx) error {
		task, err := tx.Task(e.account, "j", "t")
		if err != nil {
			return err
		}
		if err := task.Bind(node); err != nil {
			return err
		}
		code, failure := 3, &batch.FailureInfo{
			Category: batch.UserError, Code: batch.FailureExitCode,
			Message: "The task exited with an exit code representing a failure",
			Details: []batch.NameValue{{Name: "Message", Value: "The task exited with an exit code representing a failure"}},
		}
		outcome := batch.Outcome{End: batch.At(tx.Now()), ExitCode: &code, Failure: failure}
		if err := task.Finish(tx.Now(), outcome, tx.Now()); err != nil {
			return err
		}
		return tx.UpdateTask(&task)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// withTask is an edge that has a pool, a job and a task.
func withTask(t *testing.T) *edge {
	t.Helper()
	return withTaskAt(t, time.Now)
}

func withTaskAt(t *testing.T, now func() time.Time, change ...func(*api.Options)) *edge {
	t.Helper()
	e := newEdgeAt(t, now, change...)
	e.must(t, 201, "POST", "/pools", newest, linuxPool)
	e.must(t, 201, "POST", "/jobs", newest, plainJob)
	e.must(t, 201, "POST", "/jobs/j/tasks", newest, plainTask)
	return e
}
