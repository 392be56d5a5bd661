package agent_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/batchyard/batchyard/batch"
)

// leave makes the node's folder look as agents leave it that did not end as they
// were told to: how many there were, and for which attempts the last was at work.
func (n *node) leave(agents int, work map[string]int) {
	n.t.Helper()
	var starts []batch.Time
	for i := range agents {
		starts = append(starts, batch.At(time.Now().Add(time.Duration(i-agents)*time.Second)))
	}
	text, err := json.Marshal(map[string]any{"starts": starts})
	if err == nil {
		err = os.MkdirAll(filepath.Join(n.options.State, "work"), 0o700)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(n.options.State, "lives.json"), text, 0o600)
	}
	for id, deaths := range work {
		if err == nil {
			err = os.WriteFile(filepath.Join(n.options.State, "work", strings.ReplaceAll(id, "/", ".")), []byte(fmt.Sprint(deaths)), 0o600)
		}
	}
	if err != nil {
		n.t.Fatal(err)
	}
}

func TestAgentsThatDie(t *testing.T) {
	t.Parallel()
	started := func(n *node, task string) int {
		attempt := n.bind(task, shell("true"))
		n.orders.Tasks[len(n.orders.Tasks)-1].Started = true
		return attempt
	}

	t.Run("again and again", func(t *testing.T) {
		t.Parallel()
		n := makeNode(t)
		n.leave(3, map[string]int{"j/t/7": 0})
		n.options.LastWord = "fatal error: stack overflow\n\ngoroutine 1"
		n.start()
		var e batch.NodeError
		n.until("the first call tells of it", func() bool {
			if len(n.report.Errors) == 1 {
				e = n.report.Errors[0]
			}
			return len(n.report.Errors) == 1
		})
		if e.Code != "AgentRestarted" || !strings.Contains(e.Message, "4 times") || len(e.ErrorDetails) != 2 ||
			e.ErrorDetails[0].Value != "fatal error: stack overflow" || e.ErrorDetails[1].Value != "j/t/7" {
			t.Errorf("it says %+v", e)
		}
		if got := summarize(n.run("t", shell("true"))); got != (summary{}) {
			t.Errorf("a task ends as %+v", got)
		}
	})

	t.Run("once, or told to, is no news", func(t *testing.T) {
		t.Parallel()
		n := newNode(t)
		for range 5 {
			n.booted(1)
			n.restart()
		}
		n.booted(1)
		n.run("t", shell("true"))
		n.mu.Lock()
		defer n.mu.Unlock()
		if len(n.report.Errors) > 0 {
			t.Errorf("it says %+v", n.report.Errors)
		}
	})

	for name, c := range map[string]struct {
		word   string
		deaths int
		want   batch.Death
	}{
		"by a crash":                   {"fatal error: all is lost", 0, batch.DeathCrash},
		"killed, for the first time":   {"", 0, batch.DeathLost},
		"killed, three times in a row": {"", 2, batch.DeathCrash},
	} {
		t.Run("at work for an attempt, "+name, func(t *testing.T) {
			t.Parallel()
			n := makeNode(t)
			attempt := started(n, "poison")
			n.leave(1, map[string]int{fmt.Sprintf("j/poison/%d", attempt): c.deaths})
			n.options.LastWord = c.word
			n.start()
			if got := n.result(attempt); got.Phase != batch.PhaseReleased || got.Died != c.want {
				t.Errorf("the attempt is reported as %+v", got)
			}
			if got := summarize(n.run("other", shell("true"))); got != (summary{}) {
				t.Errorf("another task ends as %+v", got)
			}
		})
	}
}
