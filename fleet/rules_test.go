package fleet_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/batchyard/batchyard/batch"
)

var seedFlag = flag.Uint64("seed", 0, "the seed of the random life of a fleet; 0 draws one")

// TestRulesOfAFleet has rows come and go, agents die and servers be replaced at random, and after
// each step holds what runs against the rules: each row has one agent as far as there is room, an
// agent that nobody disturbed is still the same, and nothing runs that has no row.
func TestRulesOfAFleet(t *testing.T) {
	t.Parallel()
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("again: go test ./fleet -run TestRulesOfAFleet -seed %d", seed)
	for part := range uint64(6) {
		t.Run(fmt.Sprint("life ", part), func(t *testing.T) {
			t.Parallel()
			live(t, rand.New(rand.NewPCG(seed, part)))
		})
	}
}

// life is a fleet and what it should be.
type life struct {
	*yard
	dice  *rand.Rand
	most  int
	rows  []batch.NodeID // in the order of the list
	pids  map[batch.NodeID]int
	count int // of rows so far
	stop  func()
	story []string
}

func live(t *testing.T, dice *rand.Rand) {
	l := &life{yard: newYard(t), dice: dice, most: 1 + dice.IntN(4), pids: map[batch.NodeID]int{}}
	go func() { // nobody reads what the provider says
		for range l.log {
		}
	}()
	l.stop = l.provide(l.most, false)
	t.Cleanup(func() {
		for _, pid := range l.pids { // of a life that failed
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	})
	steps := []func(){l.add, l.add, l.remove, l.remove, l.killOne, l.replaceServer}
	for range 15 {
		steps[dice.IntN(len(steps))]()
		l.judge()
		if t.Failed() {
			t.Fatalf("room for %d agents:\n%s", l.most, strings.Join(l.story, "\n"))
		}
	}
	for len(l.rows) > 0 && !t.Failed() {
		l.remove()
		l.judge()
	}
	l.stop()
	select {
	case pid := <-l.lines:
		t.Errorf("agent %s began, and nothing asked for it", pid)
	default:
	}
}

func (l *life) tell(format string, args ...any) {
	l.story = append(l.story, fmt.Sprintf(format, args...))
}

// add adds a row at the end, or before others.
func (l *life) add() {
	l.count++
	id := batch.NodeID(fmt.Sprintf("tvmps_%02d_d", l.count))
	l.tell("add %s", id)
	l.rows = append(l.rows, id)
	l.want(l.rows...)
}

// remove takes a row away, which its agent learns from the server.
func (l *life) remove() {
	if len(l.rows) == 0 {
		return
	}
	at := l.dice.IntN(len(l.rows))
	id := l.rows[at]
	l.tell("remove %s", id)
	l.rows = slices.Delete(l.rows, at, at+1)
	l.want(l.rows...)
	if pid, ok := l.pids[id]; ok {
		delete(l.pids, id)
		if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
			l.t.Errorf("agent %d of %s had ended: %v", pid, id, err)
		}
		l.gone(pid)
	}
}

// killOne kills an agent, which is started again.
func (l *life) killOne() {
	for _, id := range l.rows {
		if pid, ok := l.pids[id]; ok {
			l.tell("kill %s", id)
			delete(l.pids, id)
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				l.t.Errorf("agent %d of %s had ended: %v", pid, id, err)
			}
			l.gone(pid)
			return
		}
	}
}

// replaceServer has another server follow, which agents outlive.
func (l *life) replaceServer() {
	l.tell("replace the server")
	l.stop()
	l.stop = l.provide(l.most, false)
}

// judge waits for as many agents as there are to come, and looks at what there is.
func (l *life) judge() {
	l.t.Helper()
	for len(l.pids) < min(l.most, len(l.rows)) {
		pid := l.up()
		id := l.nodeOf(pid)
		if !slices.Contains(l.rows, id) {
			l.t.Errorf("agent %d of %s began, which has no row", pid, id)
			return
		}
		if other, ok := l.pids[id]; ok {
			l.t.Errorf("%s has agents %d and %d", id, other, pid)
		}
		l.pids[id] = pid
		l.tell("%s has an agent", id)
	}
	for id, pid := range l.pids {
		if got := l.nodeOf(pid); syscall.Kill(pid, 0) != nil || got != id {
			l.t.Errorf("agent %d of %s is not there any more, or of %q", pid, id, got)
		}
	}
	select {
	case pid := <-l.lines:
		l.t.Errorf("agent %s began beyond %d of %d rows", pid, l.most, len(l.rows))
	default:
	}
}

// nodeOf is the node whose folder an agent holds.
func (l *life) nodeOf(pid int) batch.NodeID {
	l.t.Helper()
	locks, err := filepath.Glob(filepath.Join(l.dir, "*", "state", "agent.lock"))
	if err != nil {
		l.t.Fatal(err)
	}
	for _, lock := range locks {
		text, err := os.ReadFile(lock)
		if err == nil && strings.TrimSpace(string(text)) == strconv.Itoa(pid) {
			return batch.NodeID(filepath.Base(filepath.Dir(filepath.Dir(lock))))
		}
	}
	return ""
}
