package agent_test

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/batchyard/batchyard/agent"
	"github.com/batchyard/batchyard/batch"
)

func TestLease(t *testing.T) {
	t.Parallel()

	t.Run("tasks end when the server is silent for a lease, and are given back", func(t *testing.T) {
		t.Parallel()
		n := makeNode(t, slots(1))
		n.lease = 6 * time.Second
		n.start()
		up := n.newGate("up")
		attempt := n.add("t", shell("echo $$ > pid; "+up.reach("up")+"; sleep 600"))
		queued := n.add("queued", shell("sleep 600"))
		up.reached()
		n.phase("t", batch.PhaseRunning)
		pid := n.pidIn(n.place("t", "wd", "pid"))
		n.change(func() { n.down = errDown })
		awaitEnd(t, pid)
		n.change(func() { n.down = nil })
		if got := n.result(attempt); got.Phase != batch.PhaseReleased {
			t.Errorf("reported as %+v", got)
		}
		n.release("queued", batch.ReleaseAlways)
		n.result(queued)
	})

	t.Run("a call that got lost on the way does not end them", func(t *testing.T) {
		t.Parallel()
		n := makeNode(t)
		n.lease = 5 * time.Second
		deaf := &deafServer{server: n.server}
		n.options.Server = deaf
		n.start()
		up, g := n.newGate("up"), n.newGate("g")
		attempt := n.add("t", shell(up.reach("up")+"; "+g.wait()))
		up.reached()
		n.phase("t", batch.PhaseRunning)
		calls := 0
		n.until("calls for longer than a lease", func() bool {
			if calls == 0 {
				calls = n.calls
			}
			return n.calls > calls+4
		})
		g.open()
		if got := summarize(n.outcome(attempt)); got != (summary{}) {
			t.Errorf("outcome is %+v", got)
		}
	})

	t.Run("an agent without a server ends after its patience", func(t *testing.T) {
		t.Parallel()
		n := makeNode(t, func(n *node) { n.options.Patience = 100 * time.Millisecond })
		n.lease = 4 * time.Second
		n.start()
		n.booted(1)
		n.change(func() { n.down = errDown })
		if err := n.exit(); !errors.Is(err, agent.ErrLost) {
			t.Errorf("agent ended with %v", err)
		}
	})

	t.Run("also one that never had an answer", func(t *testing.T) {
		t.Parallel()
		n := makeNode(t, func(n *node) { n.options.Patience = 100 * time.Millisecond })
		n.down = errDown
		n.start()
		if err := n.exit(); !errors.Is(err, agent.ErrLost) {
			t.Errorf("agent ended with %v", err)
		}
	})

	t.Run("also one that owes a result, which the next one hands over", func(t *testing.T) {
		t.Parallel()
		n := makeNode(t, func(n *node) { n.options.Patience = 100 * time.Millisecond })
		n.lease = 6 * time.Second
		n.start()
		up, g := n.newGate("up"), n.newGate("g")
		attempt := n.add("t", shell(up.reach("up")+"; "+g.wait()+"; exit 7"))
		up.reached()
		n.phase("t", batch.PhaseRunning)
		n.change(func() { n.down = errDown })
		g.open()
		if err := n.exit(); !errors.Is(err, agent.ErrLost) {
			t.Errorf("agent ended with %v", err)
		}
		if !n.keeperGone() {
			t.Error("the keeper is left")
		}
		n.change(func() { n.down = nil })
		n.start()
		if got := summarize(n.outcome(attempt)); got.Exit != 7 {
			t.Errorf("the next agent reported %+v", got)
		}
		// A later task of the same name is another, whatever becomes of this agent.
		n.forgotten("t")
		if exists(filepath.Join(n.options.State, "owed.json")) {
			t.Error("the result is still on disk as owed")
		}
	})
}
