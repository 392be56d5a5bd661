//go:build linux

package keeper_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/batchyard/batchyard/agent/run"
)

// started is how LineUp was answered.
type started struct {
	id  string
	err error
}

// lineUp lines up a task and returns when it is in line; the channel gets the
// answer.
func (n *node) lineUp(ctx context.Context, s run.Spec) (*run.Process, <-chan started) {
	n.t.Helper()
	p := n.Process(s)
	entered, answer := make(chan struct{}), make(chan started, 1)
	enter := sync.OnceFunc(func() { close(entered) })
	go func() {
		_, err := p.LineUp(ctx, enter)
		answer <- started{s.ID, err}
		enter()
	}()
	<-entered
	// What was lined up is on its way; this comes after it.
	if _, err := n.Process(run.Spec{ID: "nobody"}).Withdraw(n.ctx()); err != nil {
		n.t.Fatal(err)
	}
	return p, answer
}

// held tells whether a task has begun.
func (n *node) held(id string) bool {
	for _, h := range n.Held() {
		if h.ID == id {
			return true
		}
	}
	return false
}

// gated is a task that ends when the test writes to its pipe, and lets others
// take its place.
func (n *node) gated(id, then string) (run.Spec, *fifo) {
	n.t.Helper()
	gate := n.fifo("gate-" + id)
	s := n.shell(id, "read x < "+gate.path+"; "+then)
	s.Room, s.Yields = 1, true
	return s, gate
}

func (f *fifo) open() {
	f.t.Helper()
	if err := os.WriteFile(f.path, []byte("go\n"), 0); err != nil {
		f.t.Fatal(err)
	}
}

func TestLine(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, n *node) {
		first, gate := n.gated("first", "exit 0")
		running := n.start(first)
		var answers []<-chan started
		var last *run.Process
		for i := range 20 {
			s := n.shell(fmt.Sprint("next-", i), fmt.Sprintf("echo %d >> %s/order", i, n.dir))
			s.Room, s.Yields = 1, true
			p, answer := n.lineUp(n.ctx(), s)
			answers, last = append(answers, answer), p
		}
		gate.open()
		if r := n.wait(running); r.Next != "next-0" {
			t.Errorf("the first task is followed by %q", r.Next)
		}
		for _, answer := range answers {
			if got := <-answer; got.err != nil {
				t.Fatalf("%s: %v", got.id, got.err)
			}
		}
		if r := n.wait(last); r.Reason != run.Exited || r.Next != "" {
			t.Errorf("the last task ended as %+v", r)
		}
		text, err := os.ReadFile(n.dir + "/order")
		if err != nil {
			t.Fatal(err)
		}
		var want strings.Builder
		for i := range 20 {
			fmt.Fprintln(&want, i)
		}
		if diff := cmp.Diff(want.String(), string(text)); diff != "" {
			t.Errorf("order (-want +got):\n%s", diff)
		}
	})
}

// TestWhoIsNotFollowed ends tasks in ways after which the agent decides.
func TestWhoIsNotFollowed(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		then   string
		change func(first, next *run.Spec)
		kill   bool
	}{
		{name: "a task that fails", then: "exit 3"},
		{name: "a task that is killed", kill: true},
		{name: "a task that yields nothing", then: "exit 0", change: func(first, _ *run.Spec) { first.Yields = false }},
		{name: "a task with too little room", then: "exit 0", change: func(_, next *run.Spec) { next.Room = 2 }},
		{name: "a task with more room than is wanted", then: "exit 0", change: func(first, _ *run.Spec) { first.Room = 2 }},
	}
	n := newNode(t)
	for i, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			first, gate := n.gated(fmt.Sprint("first-", i), test.then)
			next := n.spec(fmt.Sprint("next-", i), "/bin/true")
			next.Room, next.Yields = 1, true
			if test.change != nil {
				test.change(&first, &next)
			}
			running := n.start(first)
			waiting, answer := n.lineUp(n.ctx(), next)
			if test.kill {
				if err := running.Kill(n.ctx(), 0); err != nil {
					t.Fatal(err)
				}
			} else {
				gate.open()
			}
			if r := n.wait(running); r.Next != "" || n.held(next.ID) {
				t.Errorf("it is followed by %q", r.Next)
			}
			if _, err := waiting.Start(n.ctx()); err != nil {
				t.Errorf("start of the next: %v", err)
			}
			if got := <-answer; got.err != nil {
				t.Errorf("who lined it up hears %v", got.err)
			}
			if r := n.wait(waiting); r.ExitCode != 0 {
				t.Errorf("the next ended as %+v", r)
			}
		})
	}
}

func TestWithdraw(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	first, gate := n.gated("first", "exit 0")
	running := n.start(first)
	s := n.shell("next", "echo ran")
	s.Room = 1
	ctx, giveUp := context.WithCancel(n.ctx())
	waiting, answer := n.lineUp(ctx, s)
	giveUp()
	if got := <-answer; !errors.Is(got.err, context.Canceled) {
		t.Errorf("line up answers %v", got.err)
	}
	if how, err := waiting.Withdraw(n.ctx()); how != nil || err != nil {
		t.Errorf("withdraw answers %v, %v", how, err)
	}
	gate.open()
	if r := n.wait(running); r.Next != "" || n.held("next") {
		t.Errorf("one that was withdrawn follows: %q", r.Next)
	}

	ran := n.start(n.spec("ran", "/bin/true"))
	n.wait(ran)
	if how, err := ran.Withdraw(n.ctx()); how == nil || err != nil {
		t.Errorf("withdraw of one that ran answers %v, %v", how, err)
	}
	if how, err := n.Process(n.spec("unheard", "/bin/true")).Withdraw(n.ctx()); how != nil || err != nil {
		t.Errorf("withdraw of one unheard of answers %v, %v", how, err)
	}
}

// TestLineEnds ends what a line depends on: nobody in it may start afterwards.
func TestLineEnds(t *testing.T) {
	t.Parallel()

	t.Run("with the lease", func(t *testing.T) {
		t.Parallel()
		n := newNode(t)
		first, _ := n.gated("first", "exit 0")
		running := n.start(first)
		next := n.spec("next", "/bin/true")
		next.Room = 1
		_, answer := n.lineUp(n.ctx(), next)
		if err := n.Lease(20 * time.Millisecond); err != nil {
			t.Fatal(err)
		}
		if r := n.wait(running); r.Reason != run.LeaseExpired || r.Next != "" {
			t.Errorf("the task ended as %+v", r)
		}
		if got := <-answer; !errors.Is(got.err, run.ErrNoLease) {
			t.Errorf("who waited hears %v", got.err)
		}
	})

	t.Run("with the agent", func(t *testing.T) {
		t.Parallel()
		n := newNode(t)
		first, gate := n.gated("first", "exit 0")
		n.start(first)
		next := n.spec("next", "/bin/true")
		next.Room = 1
		_, answer := n.lineUp(n.ctx(), next)
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
		if got := <-answer; !errors.Is(got.err, run.ErrClosed) {
			t.Errorf("who waited hears %v", got.err)
		}
		n.open()
		gate.open()
		if r := n.wait(n.Process(run.Spec{ID: "first"})); r.Next != "" || n.held("next") {
			t.Errorf("it is followed by %q", r.Next)
		}
	})

	t.Run("with the keeper", func(t *testing.T) {
		t.Parallel()
		n := newNode(t)
		first, _ := n.gated("first", "exit 0")
		running := n.start(first)
		next := n.spec("next", "/bin/true")
		next.Room = 1
		_, answer := n.lineUp(n.ctx(), next)
		if err := n.Shutdown(n.ctx()); err != nil {
			t.Fatal(err)
		}
		if got := <-answer; got.err == nil {
			t.Error("who waited hears that it has started")
		}
		if r, err := running.Wait(n.ctx()); err != nil || r.Reason != run.Killed {
			t.Errorf("the task ended as %+v, %v", r, err)
		}
	})
}
