//go:build linux

package keeper_test

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/batchyard/batchyard/agent/link"
	"github.com/batchyard/batchyard/agent/run"
)

// text is a message written by hand, as earlier versions write it.
type text string

func (t text) AppendBinary(b []byte) ([]byte, error) { return append(b, t...), nil }

func TestAgentOfAnEarlierVersion(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	l, err := link.Dial(n.ctx(), n.options.Dir)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ask := func(request text, wanted ...string) {
		t.Helper()
		if err := l.Send(request); err != nil {
			t.Fatal(err)
		}
		for _, want := range wanted {
			body, err := l.Receive()
			if err != nil {
				t.Fatal(err)
			}
			if body[0] != '{' || !strings.Contains(string(body), want) {
				t.Errorf("to %s the keeper says %q, wanted JSON with %s", request, body, want)
			}
		}
	}
	ask(`{"id":1,"hello":{"version":2,"node":{}}}`, `"version":2`)
	ask(`{"id":2,"start":{"id":"old","args":["/bin/true"],"dir":"/"}}`, `"started":{"pid":`, `"exited":{"id":"old"`)
	ask(`{"id":3,"lineUp":{"id":"old","args":["/bin/true"],"dir":"/"}}`, `"id":3,"started":{"pid":`)
	ask(`{"forget":["old"]}`)
	ask(`{"id":4,"list":true}`, `{"id":4}`)
	l.Close()

	// An agent of this version comes back and finds the keeper as it was.
	n.open()
	if r := n.run(n.shell("new", "exit 3")); r.ExitCode != 3 {
		t.Errorf("result %+v", r)
	}
}

// oldKeeper answers one agent as a keeper of version 2 does. It returns what it
// was asked until its agent went.
func oldKeeper(t *testing.T, listener *link.Listener) []string {
	l, err := listener.Accept()
	if err != nil {
		t.Error(err)
		return nil
	}
	defer l.Close()
	answers := []text{
		`{"id":1,"welcome":{"version":2,"instance":"old","pid":1,"capabilities":{"root":false,"groups":"none","memory":false,"cpu":false,"processes":false,"killAll":false},` +
			`"held":[{"id":"before","started":{"pid":5,"at":"2026-01-02T03:04:05Z"}}]}}`,
		`{"id":2,"started":{"pid":7,"at":"2026-01-02T03:04:06Z"}}`,
		`{"exited":{"id":"before","started":{"pid":5,"at":"2026-01-02T03:04:05Z"},"result":{"reason":"exited","exitCode":3,` +
			`"started":"2026-01-02T03:04:05Z","ended":"2026-01-02T03:04:07Z","userCPU":1,"systemCPU":2}}}`,
	}
	var asked []string
	for {
		body, err := l.Receive()
		if err != nil {
			return asked
		}
		asked = append(asked, string(body))
		switch {
		case strings.Contains(string(body), `"bye"`):
			_ = l.Send(text(`{"id":3}`))
		case len(answers) > 0:
			_ = l.Send(answers[0])
			answers = answers[1:]
		}
	}
}

func TestKeeperOfAnEarlierVersion(t *testing.T) {
	t.Parallel()
	n := &node{t: t, dir: t.TempDir()}
	n.options = run.Options{Dir: filepath.Join(n.dir, "k"), Command: []string{"/bin/false"}, Build: "new"}
	if err := os.Mkdir(n.options.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	listener, err := link.Listen(n.options.Dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	asked := make(chan []string, 1)
	go func() { asked <- oldKeeper(t, listener) }()

	k, err := run.Open(n.ctx(), n.options)
	if err != nil {
		t.Fatal(err)
	}
	s := run.Spec{ID: "new", Args: []string{"/bin/true"}, Dir: "/"}
	if started, err := k.Process(s).Start(n.ctx()); err != nil || started.PID != 7 {
		t.Errorf("started %+v, %v", started, err)
	}
	k.Forget("new") // runs: says nothing
	if err := k.Lease(time.Minute); err != nil {
		t.Error(err)
	}
	if r, err := k.Process(run.Spec{ID: "before"}).Wait(n.ctx()); err != nil || r.ExitCode != 3 {
		t.Errorf("what the old keeper held ended with %+v, %v", r, err)
	}
	k.Forget("before")
	if err := errors.Join(k.Close(), listener.Close()); err != nil && !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	for i, request := range <-asked {
		if request[0] != '{' {
			t.Errorf("request %d to a keeper of version 2 is no JSON: %q", i, request)
		}
	}
}
