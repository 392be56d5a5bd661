package agent_test

import (
	"fmt"
	"strings"
	"testing"

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
