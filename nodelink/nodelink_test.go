package nodelink_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/nodelink"
	"github.com/google/go-cmp/cmp"
)

// server plays the verbs: what it was asked is kept, what it answers is set.
type server struct {
	node   batch.NodeID
	token  string
	report batch.NodeReport
	orders batch.NodeOrders
	err    error

	request string
	answer  batch.FileAnswer
	body    []byte
}

func (s *server) CheckToken(_ context.Context, _ batch.NodeID, token string) error {
	if s.token != "" && s.token != token {
		return batch.Errorf(batch.CodeAuthenticationFailed, "Another token.")
	}
	return nil
}

func (s *server) Sync(_ context.Context, node batch.NodeID, token string, report batch.NodeReport) (batch.NodeOrders, error) {
	s.node, s.token, s.report = node, token, report
	return s.orders, s.err
}

func (s *server) AnswerFile(_ context.Context, node batch.NodeID, token, id string, answer batch.FileAnswer, body io.Reader) (err error) {
	s.node, s.token, s.request, s.answer = node, token, id, answer
	if s.body, err = io.ReadAll(body); err != nil {
		return err
	}
	return s.err
}

// join puts both ends together over real HTTP.
func join(t *testing.T, s *server) *nodelink.Client {
	t.Helper()
	listening := httptest.NewServer(nodelink.Handler(s, slog.New(slog.DiscardHandler)))
	t.Cleanup(listening.Close)
	return &nodelink.Client{
		URL: listening.URL, Node: "tvmps_1_d", Token: "byt_secret", HTTP: &http.Client{Transport: nodelink.Transport()},
	}
}

func TestReportsAndOrdersArriveWhole(t *testing.T) {
	t.Parallel()
	code, at := 7, batch.At(batch.Stamp(1_000_000).Modified())
	report := batch.NodeReport{
		Revision: 3, Instance: "one", Boot: 1, Removed: []int64{4},
		Tasks: []batch.TaskReport{{
			Job: "job", Task: "task", Attempt: 5, Phase: batch.PhaseEnded, Start: &at,
			Outcome: &batch.Outcome{End: at, ExitCode: &code, Failure: &batch.FailureInfo{Category: batch.UserError, Code: batch.FailureExitCode}},
		}},
	}
	orders := batch.NodeOrders{
		Revision: 4, Lease: batch.Minute, Boot: 1,
		Settings: &batch.NodeSettings{Version: 9, TaskSlots: 2, Size: batch.Size{Cores: 1, Memory: 1 << 30, Disk: 1 << 30}},
		Tasks: []batch.TaskOrder{{
			Job: "job", Task: "next", Attempt: 6, Release: batch.ReleaseUnstarted,
			Run: &batch.TaskRun{CommandLine: "true", RequiredSlots: 1, MaxWallClockTime: batch.Unlimited, RetentionTime: batch.Day},
		}},
		Removals: []batch.Removal{{ID: 8, Job: "old"}},
		Files:    []batch.FileRequest{{ID: "f", Op: batch.FileRead, Job: "job", Task: "task", Path: "stdout.txt", Length: -1}},
	}
	s := &server{orders: orders}
	got, err := join(t, s).Sync(t.Context(), report)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(got, orders); diff != "" {
		t.Errorf("orders (-got +want):\n%s", diff)
	}
	if diff := cmp.Diff(s.report, report); diff != "" {
		t.Errorf("report (-got +want):\n%s", diff)
	}
	if s.node != "tvmps_1_d" || s.token != "byt_secret" {
		t.Errorf("the call came as %s with %s", s.node, s.token)
	}
}

func TestNamesThatAreNotTextHoldNothingUp(t *testing.T) {
	t.Parallel()
	report := batch.NodeReport{Instance: "one", Tasks: []batch.TaskReport{{
		Job: "job", Task: "task", Phase: batch.PhaseEnded,
		Outcome: &batch.Outcome{Failure: &batch.FailureInfo{Message: "upload bad\xffname"}},
	}}}
	s := &server{orders: batch.NodeOrders{Files: []batch.FileRequest{{ID: "f", Path: "wd/bad\xffname"}}}}
	agent := join(t, s)
	orders, err := agent.Sync(t.Context(), report)
	if err != nil {
		t.Fatal(err)
	}
	if got := orders.Files[0].Path; got != "wd/bad\uFFFDname" {
		t.Errorf("the path arrives as %q", got)
	}
	if got := s.report.Tasks[0].Outcome.Failure.Message; got != "upload bad\uFFFDname" {
		t.Errorf("the message arrives as %q", got)
	}
	if err := agent.AnswerFile(t.Context(), "f", batch.FileAnswer{Files: []batch.File{{Name: "bad\xffname"}}}, nil); err != nil {
		t.Fatal(err)
	}
	if got := s.answer.Files[0].Name; got != "bad\uFFFDname" {
		t.Errorf("the name arrives as %q", got)
	}
}

func TestRefusalsKeepTheirCode(t *testing.T) {
	t.Parallel()
	for _, code := range []batch.Code{batch.CodeNodeNotFound, batch.CodeForbidden, batch.CodeAuthenticationFailed, batch.CodeServerBusy} {
		s := &server{err: batch.Errorf(code, "The reason.")}
		_, err := join(t, s).Sync(t.Context(), batch.NodeReport{Instance: "one"})
		if batch.CodeOf(err) != code || !strings.Contains(err.Error(), "The reason.") {
			t.Errorf("a refusal with %s arrives as %v", code, err)
		}
	}
	s := &server{err: errors.New("the disk is on fire")}
	_, err := join(t, s).Sync(t.Context(), batch.NodeReport{Instance: "one"})
	if batch.CodeOf(err) != batch.CodeInternalError || strings.Contains(err.Error(), "fire") {
		t.Errorf("an unexpected error arrives as %v", err)
	}
}

// broken is a server with a fault in it.
type broken struct{ server }

func (*broken) Sync(context.Context, batch.NodeID, string, batch.NodeReport) (batch.NodeOrders, error) {
	panic("a fault")
}

func TestAPanicIsAnAnswerAndALineInTheLog(t *testing.T) {
	t.Parallel()
	var log strings.Builder
	handler := nodelink.Handler(&broken{}, slog.New(slog.NewTextHandler(&log, nil)))
	answer := httptest.NewRecorder()
	call := httptest.NewRequest(http.MethodPost, "/nodelink/tvmps_1_d/sync", strings.NewReader(`{"instance":"one"}`))
	call.Header.Set("Authorization", "Bearer byt_secret")
	handler.ServeHTTP(answer, call)
	if answer.Code != http.StatusInternalServerError || !strings.Contains(answer.Body.String(), "InternalError") {
		t.Errorf("the answer is %d %s", answer.Code, answer.Body)
	}
	if !strings.Contains(log.String(), "a fault") || !strings.Contains(log.String(), "nodelink_test.go") {
		t.Errorf("the log says %q", log.String())
	}
}

func TestFilesAreStreamedBehindTheirAnswer(t *testing.T) {
	t.Parallel()
	s := &server{}
	content := bytes.Repeat([]byte("line\n"), 100_000)
	answer := batch.FileAnswer{File: &batch.File{Name: "stdout.txt", Size: int64(len(content))}}
	if err := join(t, s).AnswerFile(t.Context(), "a/b", answer, bytes.NewReader(content)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(s.answer, answer); diff != "" || s.request != "a/b" || !bytes.Equal(s.body, content) {
		t.Errorf("request %q, %d bytes, answer (-got +want):\n%s", s.request, len(s.body), diff)
	}
	if err := join(t, s).AnswerFile(t.Context(), "c", batch.FileAnswer{More: true}, nil); err != nil || len(s.body) != 0 {
		t.Errorf("an answer without a body: %v, %d bytes", err, len(s.body))
	}
}

func TestMalformedCallsAreRefused(t *testing.T) {
	t.Parallel()
	handler := nodelink.Handler(&server{}, slog.New(slog.DiscardHandler))
	for name, c := range map[string]struct {
		path, token, body string
		want              int
	}{
		"no token":          {"/nodelink/n/sync", "", "{}", http.StatusForbidden},
		"no JSON":           {"/nodelink/n/sync", "Bearer t", "{", http.StatusBadRequest},
		"wrong type":        {"/nodelink/n/sync", "Bearer t", `{"revision":"x"}`, http.StatusBadRequest},
		"no first line":     {"/nodelink/n/files/1", "Bearer t", "{}", http.StatusBadRequest},
		"endless line":      {"/nodelink/n/files/1", "Bearer t", strings.Repeat("x", 5<<20), http.StatusBadRequest},
		"another operation": {"/nodelink/n/start", "Bearer t", "{}", http.StatusNotFound},
	} {
		request := httptest.NewRequestWithContext(t.Context(), http.MethodPost, c.path, strings.NewReader(c.body))
		if c.token != "" {
			request.Header.Set("Authorization", c.token)
		}
		recorder := httptest.NewRecorder()
		handler.ServeHTTP(recorder, request)
		if recorder.Code != c.want {
			t.Errorf("%s: answered %d, want %d", name, recorder.Code, c.want)
		}
	}
}

// untouched is a body that nobody may read.
type untouched struct{ t *testing.T }

func (u untouched) Read([]byte) (int, error) {
	u.t.Error("the body of a stranger is read")
	return 0, io.EOF
}

func TestWhatStrangersBringIsNotRead(t *testing.T) {
	t.Parallel()
	handler := nodelink.Handler(&server{token: "byt_known"}, slog.New(slog.DiscardHandler))
	for name, path := range map[string]string{
		"a report of unknown length": "/nodelink/n/sync",
		"a file":                     "/nodelink/n/files/1",
	} {
		request := httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, untouched{t})
		request.Header.Set("Authorization", "Bearer byt_guessed")
		recorder := httptest.NewRecorder()
		handler.ServeHTTP(recorder, request)
		if recorder.Code != http.StatusForbidden {
			t.Errorf("%s: answered %d", name, recorder.Code)
		}
	}
}
