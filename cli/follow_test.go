package cli_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os/exec"
	"strings"
	"sync"
	"testing"
)

// troubled stands before a server and has troubles of its own.
type troubled struct {
	server http.Handler

	mu        sync.Mutex // guards all below
	asked     int
	completed int // requests for files since the task was seen completed, -1 before
}

// trouble says what goes wrong with a request: nothing, if empty.
func (p *troubled) trouble(r *http.Request) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r.Method != http.MethodGet || !strings.Contains(r.URL.Path, "/tasks/") {
		return ""
	}
	p.asked++
	files := strings.Contains(r.URL.Path, "/files/")
	if files && p.completed >= 0 {
		p.completed++
	}
	switch {
	case p.asked > 5 && p.asked < 9:
		return "gone"
	case p.asked < 12 && p.asked > 9:
		return "busy"
	case files && p.completed > 0 && p.completed < 3:
		return "unready"
	case files && p.completed == 3:
		return "cut"
	}
	return ""
}

func (p *troubled) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	trouble := p.trouble(r)
	refuse := func(status int, code string) {
		w.WriteHeader(status)
		fmt.Fprintf(w, `{"code":%q,"message":{"value":"Not now."}}`, code)
	}
	switch trouble {
	case "gone":
		panic(http.ErrAbortHandler)
	case "busy":
		refuse(http.StatusServiceUnavailable, "ServerBusy")
		return
	case "unready":
		refuse(http.StatusConflict, "NodeNotReady")
		return
	}
	answer := httptest.NewRecorder()
	p.server.ServeHTTP(answer, r)
	body := answer.Body.String()
	if strings.Contains(body, `"state":"completed"`) {
		p.mu.Lock()
		p.completed = max(0, p.completed)
		p.mu.Unlock()
	}
	for name, values := range answer.Header() {
		w.Header()[name] = values
	}
	w.WriteHeader(answer.Code)
	if trouble == "cut" && len(body) > 0 {
		_, _ = io.WriteString(w, body[:len(body)/2])
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
	_, _ = io.WriteString(w, body)
}

// A command goes on when the server is started again or a node is out of reach
// for a while, and what the task wrote arrives whole and once.
func TestRunGoesOnThroughTroubles(t *testing.T) {
	t.Parallel()
	r, _ := startDev(t, "--nodes", "1")
	to, err := url.Parse(r.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	between := &troubled{server: httputil.NewSingleHostReverseProxy(to), completed: -1}
	web := httptest.NewServer(between)
	t.Cleanup(web.Close)
	// The last line is long enough to be cut, and comes with the end.
	command := exec.CommandContext(t.Context(), batchyard(t), "run", "--", "sh", "-c",
		"for i in 1 2 3; do echo $i; sleep 0.3; done; seq 1000; exit 9")
	command.Env = []string{"AZURE_BATCH_ENDPOINT=" + web.URL, "AZURE_BATCH_ACCOUNT=" + r.Account, "AZURE_BATCH_ACCESS_KEY=" + r.AccountKey}
	var stderr strings.Builder
	command.Stderr = &stderr
	stdout, err := command.Output()
	if code := command.ProcessState.ExitCode(); code != 9 {
		t.Fatalf("exit code %d, %v, %s", code, err, stderr.String())
	}
	want := "1\n2\n3\n"
	for i := range 1000 {
		want += fmt.Sprintln(i + 1)
	}
	if string(stdout) != want {
		t.Errorf("%d bytes arrived of %d", len(stdout), len(want))
	}
	if between.asked < 12 || between.completed < 4 {
		t.Errorf("not all troubles came: %d, %d", between.asked, between.completed)
	}
}
