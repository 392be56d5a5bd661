package agent_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/batchyard/batchyard/agent"
	"github.com/batchyard/batchyard/agent/run"
	"github.com/batchyard/batchyard/batch"
)

// crowd binds tasks that note that they have begun, and returns their attempts.
func (n *node) crowd(count int, log string) []int {
	var attempts []int
	n.change(func() {
		for i := range count {
			attempts = append(attempts, n.bind(fmt.Sprint("t", i), shell(fmt.Sprintf("echo %d >> %s", i, log))))
		}
	})
	return attempts
}

// once checks that each of so many tasks has noted itself once.
func (n *node) once(count int, log string) {
	n.t.Helper()
	seen := map[string]int{}
	for _, line := range strings.Fields(n.text(log)) {
		seen[line]++
	}
	for i := range count {
		if got := seen[fmt.Sprint(i)]; got != 1 {
			n.t.Errorf("task %d began %d times", i, got)
		}
	}
}

func TestLine(t *testing.T) {
	t.Parallel()
	const many = 200

	t.Run("short tasks follow one another", func(t *testing.T) {
		t.Parallel()
		n := newNode(t, slots(2))
		log := n.path("shared", "log")
		for _, attempt := range n.crowd(many, log) {
			if got := summarize(n.outcome(attempt)); got != (summary{}) {
				t.Fatalf("outcome of attempt %d is %+v", attempt, got)
			}
		}
		n.once(many, log)
	})

	t.Run("failures do not stop it", func(t *testing.T) {
		t.Parallel()
		n := newNode(t, slots(2))
		var attempts []int
		n.change(func() {
			for i := range 60 {
				attempts = append(attempts, n.bind(fmt.Sprint("t", i), shell(fmt.Sprintf("exit %d", i%3))))
			}
		})
		for i, attempt := range attempts {
			if got := summarize(n.outcome(attempt)); got.Exit != i%3 {
				t.Fatalf("outcome of attempt %d is %+v", attempt, got)
			}
		}
	})

	t.Run("an agent that is replaced finds what has begun", func(t *testing.T) {
		t.Parallel()
		n := newNode(t, slots(2))
		log := n.path("shared", "log")
		attempts := n.crowd(many, log)
		n.result(attempts[10])
		n.restart()
		n.result(attempts[60])
		n.restart()
		for _, attempt := range attempts {
			if got := n.result(attempt); got.Phase != batch.PhaseEnded {
				t.Fatalf("attempt %d is %s", attempt, got.Phase)
			}
		}
		n.once(many, log)
	})

	t.Run("who is in line is given back, and once", func(t *testing.T) {
		t.Parallel()
		n := newNode(t, slots(2))
		log := n.path("shared", "log")
		attempts := n.crowd(many, log)
		n.result(attempts[5])
		n.change(func() {
			for i := range n.orders.Tasks {
				n.orders.Tasks[i].Release = batch.ReleaseUnstarted
			}
		})
		began := map[string]bool{}
		for i, attempt := range attempts {
			switch got := n.result(attempt); got.Phase {
			case batch.PhaseEnded:
				began[fmt.Sprint(i)] = true
			case batch.PhaseReleased:
				if exists(n.place(fmt.Sprint("t", i))) {
					t.Errorf("task %d did not begin and has a directory", i)
				}
			default:
				t.Errorf("attempt %d is %s", attempt, got.Phase)
			}
		}
		lines := strings.Fields(n.text(log))
		for _, line := range lines {
			if !began[line] {
				t.Errorf("task %s ran and was given back", line)
			}
		}
		if len(lines) != len(began) || len(began) == many {
			t.Errorf("%d of %d tasks are said to have run, %d did", len(began), many, len(lines))
		}
	})
}

// slowTurn is a keeper that tells when the turn of attempt j/called has come, and
// waits before it lets the agent go on.
type slowTurn struct {
	*run.Keeper
	turned, goOn chan struct{}
}

func (s slowTurn) Process(spec run.Spec) run.Execution {
	p := s.Keeper.Process(spec)
	if strings.HasPrefix(spec.ID, "j/called") {
		return slowTurnProcess{p, s}
	}
	return p
}

type slowTurnProcess struct {
	*run.Process
	keeper slowTurn
}

func (p slowTurnProcess) LineUp(ctx context.Context, entered func()) (run.Started, error) {
	began, err := p.Process.LineUp(ctx, entered)
	close(p.keeper.turned)
	<-p.keeper.goOn
	return began, err
}

// Who is cancelled between his turn and his start is not left in line, where he
// would be started later.
func TestCancelledInTurn(t *testing.T) {
	t.Parallel()
	keeper := slowTurn{turned: make(chan struct{}), goOn: make(chan struct{})}
	n := newNode(t, slots(1), func(n *node) {
		n.options.OpenKeeper = func(ctx context.Context, o run.Options) (agent.Keeper, error) {
			k, err := run.Open(ctx, o)
			keeper.Keeper = k
			return keeper, err
		}
	})
	log, first := n.path("shared", "log"), n.newGate("first")
	n.change(func() {
		n.bind("first", shell(first.wait()+"; exit 1")) // the keeper passes on no room of who fails
		n.bind("called", shell("echo ran >> "+log))
	})
	n.phase("first", batch.PhaseRunning)
	first.open()
	<-keeper.turned
	n.release("called", batch.ReleaseAlways)
	n.until("the orders are applied", func() bool { return n.report.Revision == n.orders.Revision })
	close(keeper.goOn)
	n.phase("called", batch.PhaseReleased)
	for i := range 3 {
		if got := summarize(n.run(fmt.Sprint("next", i), shell("true"))); got != (summary{}) {
			t.Fatalf("task %d after it ends as %+v", i, got)
		}
	}
	if exists(log) {
		t.Error("a task that was given back has run")
	}
}
