package agent_test

import (
	"context"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/batchyard/batchyard/batch"
	"github.com/google/go-cmp/cmp"
)

// summary is what a user sees of an outcome.
type summary struct {
	Exit     int // -1: the command never ran
	Category batch.FailureCategory
	Code     batch.FailureCode
	Message  string
}

func summarize(o batch.Outcome) summary {
	s := summary{Exit: -1}
	if o.ExitCode != nil {
		s.Exit = *o.ExitCode
	}
	if o.Failure != nil {
		s.Category, s.Code, s.Message = o.Failure.Category, o.Failure.Code, o.Failure.Message
	}
	return s
}

// about is the value of a detail of a failure.
func about(o batch.Outcome, name string) string {
	if o.Failure == nil {
		return ""
	}
	for _, d := range o.Failure.Details {
		if d.Name == name {
			return d.Value
		}
	}
	return ""
}

func TestTaskEnvironment(t *testing.T) {
	t.Parallel()
	n := newNode(t)

	t.Run("a task has the variables of the service and nothing else", func(t *testing.T) {
		n.run("env", shell("env"))
		got := strings.Split(strings.TrimSpace(n.text(n.place("env", "stdout.txt"))), "\n")
		slices.Sort(got)
		address, wd := n.agent.IPAddress, n.place("env", "wd")
		want := []string{
			"AZ_BATCH_ACCOUNT_NAME=myaccount",
			"AZ_BATCH_ACCOUNT_URL=https://myaccount.region.example",
			"AZ_BATCH_HOST_LIST=" + address,
			"AZ_BATCH_IS_CURRENT_NODE_MASTER=true",
			"AZ_BATCH_JOB_ID=j",
			"AZ_BATCH_NODE_ID=tvmps_1_d",
			"AZ_BATCH_NODE_IS_DEDICATED=true",
			"AZ_BATCH_NODE_LIST=" + address,
			"AZ_BATCH_NODE_MOUNTS_DIR=" + n.path("fsmounts"),
			"AZ_BATCH_NODE_ROOT_DIR=" + n.path(),
			"AZ_BATCH_NODE_SHARED_DIR=" + n.path("shared"),
			"AZ_BATCH_NODE_STARTUP_DIR=" + n.path("startup"),
			"AZ_BATCH_NODE_STARTUP_WORKING_DIR=" + n.path("startup", "wd"),
			"AZ_BATCH_POOL_ID=mypool",
			"AZ_BATCH_TASK_DIR=" + n.place("env"),
			"AZ_BATCH_TASK_ID=env",
			"AZ_BATCH_TASK_USER=_azbatch",
			"AZ_BATCH_TASK_USER_IDENTITY=PoolNonAdmin",
			"AZ_BATCH_TASK_WORKING_DIR=" + wd,
			"BATCHYARD_TASK_ATTEMPT=1",
			"HOME=" + wd,
			"LANG=C.UTF-8",
			"LOGNAME=_azbatch",
			"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
			"PWD=" + wd,
			"USER=_azbatch",
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("environment (-want +got):\n%s", diff)
		}
	})

	t.Run("its own settings win, and of two of one name the later", func(t *testing.T) {
		run := shell(`printf '%s|%s|%s' "$A" "$LANG" "${E-unset}"; env | grep -c ^A=`)
		run.EnvironmentSettings = []batch.EnvironmentSetting{
			{Name: "A", Value: "1"}, {Name: "LANG", Value: "de"}, {Name: "A", Value: "two words"}, {Name: "E"},
		}
		n.run("own", run)
		if got, want := n.text(n.place("own", "stdout.txt")), "two words|de|1\n"; got != want {
			t.Errorf("task saw %q, want %q", got, want)
		}
	})
}

func TestTaskOutcome(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	exit := "The task exited with an exit code representing a failure"
	cases := []struct {
		name, task string
		line       string
		want       summary
	}{
		{"exit code 0 is success", "ok", "/bin/true", summary{}},
		{"another exit code is the user's failure", "three", "/bin/sh -c 'exit 3'", summary{3, batch.UserError, batch.FailureExitCode, exit}},
		{
			"a signal shows as 128 and its number", "signal", "/bin/sh -c 'kill -KILL $$'",
			summary{137, batch.UserError, batch.FailureExitCode, exit},
		},
		{
			"a program that is not there", "missing", "no-such-program --flag",
			summary{-1, batch.UserError, batch.FailureProgramNotFound, "The specified command program is not found"},
		},
		{
			"a program that cannot be run", "directory", "/usr",
			summary{-1, batch.UserError, batch.FailureCommandLaunch, "The command could not be launched"},
		},
		{
			"a quote without end", "quote", "/bin/echo 'a",
			summary{-1, batch.UserError, batch.FailureCommandLaunch, "The command line cannot be read"},
		},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			run := shell("")
			run.CommandLine = c.line
			got := n.run(c.task, run)
			if diff := cmp.Diff(c.want, summarize(got)); diff != "" {
				t.Errorf("outcome (-want +got):\n%s", diff)
			}
			if got.End.IsZero() {
				t.Error("outcome has no end")
			}
		})
	}

	t.Run("a failure names command line and reason", func(t *testing.T) {
		run := shell("")
		run.CommandLine = "no-such-program --flag"
		got := n.run("named", run)
		if about(got, "CommandLine") != run.CommandLine || about(got, "Message") == "" {
			t.Errorf("details are %v", got.Failure.Details)
		}
	})

	t.Run("output is kept in two files", func(t *testing.T) {
		n.run("output", shell("echo good; echo bad >&2"))
		if got, want := n.text(n.place("output", "stdout.txt"))+n.text(n.place("output", "stderr.txt")), "good\nbad\n"; got != want {
			t.Errorf("files have %q, want %q", got, want)
		}
	})

	t.Run("what a task leaves running is gone when it has ended", func(t *testing.T) {
		n.run("leaver", shell("setsid sleep 600 >/dev/null 2>&1 & echo $! > pid; sleep 0.1"))
		if pid := n.pidIn(n.place("leaver", "wd", "pid")); alive(pid) {
			t.Errorf("process %d lives on", pid)
		}
	})

	t.Run("times are those of the run", func(t *testing.T) {
		before := time.Now()
		r := n.result(n.add("times", shell("true")))
		if r.Start == nil || r.Start.Before(before) || r.Outcome.End.Before(r.Start.Time) || r.Outcome.End.After(time.Now()) {
			t.Errorf("start %v and end %v, asked for at %v", r.Start, r.Outcome.End, before)
		}
	})
}

func TestWallClock(t *testing.T) {
	t.Parallel()
	n := newNode(t)

	t.Run("a task that takes too long is ended", func(t *testing.T) {
		run := shell("echo $$ > pid; sleep 600")
		run.MaxWallClockTime = batch.DurationOf(300 * time.Millisecond)
		got := n.run("long", run)
		want := summary{137, batch.UserError, batch.FailureWallClock, "The task exceeded its maximum wall clock time"}
		if diff := cmp.Diff(want, summarize(got)); diff != "" {
			t.Errorf("outcome (-want +got):\n%s", diff)
		}
		if pid := n.pidIn(n.place("long", "wd", "pid")); alive(pid) {
			t.Errorf("process %d lives on", pid)
		}
	})

	t.Run("one that took too long while there was no agent is ended by the next", func(t *testing.T) {
		g := n.newGate("absent")
		run := shell(g.reach("started") + "; sleep 600")
		run.MaxWallClockTime = batch.DurationOf(500 * time.Millisecond)
		attempt := n.add("absent", run)
		g.reached()
		n.restart()
		if got := summarize(n.outcome(attempt)); got.Code != batch.FailureWallClock {
			t.Errorf("outcome is %+v", got)
		}
	})

	t.Run("the limit has room for a task that ends in time", func(t *testing.T) {
		run := shell("true")
		run.MaxWallClockTime = batch.DurationOf(time.Minute)
		if got := summarize(n.run("short", run)); got != (summary{}) {
			t.Errorf("outcome is %+v", got)
		}
	})
}

func TestQueue(t *testing.T) {
	t.Parallel()

	t.Run("tasks begin in their order, as many as there are slots", func(t *testing.T) {
		t.Parallel()
		n := newNode(t, slots(2))
		order := n.path("shared", "order")
		a, b, upA, upB := n.newGate("a"), n.newGate("b"), n.newGate("upA"), n.newGate("upB")
		n.change(func() {
			n.bind("t1", shell("echo 1 >> "+order+"; "+upA.reach("up")+"; "+a.wait()))
			n.bind("t2", shell("echo 2 >> "+order+"; "+upB.reach("up")+"; "+b.wait()))
			for _, id := range []string{"3", "4", "5"} {
				n.bind("t"+id, shell("echo "+id+" >> "+order))
			}
		})
		upA.reached()
		upB.reached()
		n.phase("t3", batch.PhaseHeld)
		n.phase("t5", batch.PhaseHeld)
		b.open()
		n.result(5)
		a.open()
		n.result(1)
		got := strings.Fields(n.text(order))
		slices.Sort(got[:2]) // the first two begin at once
		if diff := cmp.Diff([]string{"1", "2", "3", "4", "5"}, got); diff != "" {
			t.Errorf("order (-want +got):\n%s", diff)
		}
	})

	t.Run("a task of two slots waits for both and is not passed by", func(t *testing.T) {
		t.Parallel()
		n := newNode(t, slots(2))
		a := n.newGate("a")
		wide := shell("true")
		wide.RequiredSlots = 2
		n.change(func() {
			n.bind("one", shell(a.wait()))
			n.bind("wide", wide)
			n.bind("behind", shell("true"))
		})
		n.phase("one", batch.PhaseRunning)
		n.phase("wide", batch.PhaseHeld)
		n.phase("behind", batch.PhaseHeld)
		a.open()
		n.result(3)
		if wide, behind := n.result(2), n.result(3); behind.Start.Before(wide.Start.Time) {
			t.Errorf("the narrow task began at %v, before the wide one at %v", behind.Start, wide.Start)
		}
	})

	t.Run("two attempts of one task do not meet in its directory", func(t *testing.T) {
		t.Parallel()
		n := newNode(t, slots(2))
		g := n.newGate("g")
		n.add("t", shell(g.reach("up")+"; sleep 600"))
		g.reached()
		second := 0
		n.change(func() {
			n.unbind("t")
			second = n.bind("t", shell("ls"))
		})
		if got := summarize(n.outcome(second)); got != (summary{}) {
			t.Errorf("outcome is %+v", got)
		}
		if got := n.text(n.place("t", "stdout.txt")); got != "" {
			t.Errorf("the second attempt found %q", got)
		}
	})
}

func TestRelease(t *testing.T) {
	t.Parallel()

	t.Run("what has not begun is given back", func(t *testing.T) {
		t.Parallel()
		n := newNode(t, slots(1))
		g := n.newGate("g")
		first := n.add("runs", shell(g.wait()))
		second := n.add("waits", shell("true"))
		n.phase("runs", batch.PhaseRunning)
		n.phase("waits", batch.PhaseHeld)
		n.change(func() {
			n.orders.Tasks[0].Release, n.orders.Tasks[1].Release = batch.ReleaseUnstarted, batch.ReleaseUnstarted
		})
		if got := n.result(second); got.Phase != batch.PhaseReleased || got.Start != nil {
			t.Errorf("reported as %+v", got)
		}
		g.open()
		if got := summarize(n.outcome(first)); got != (summary{}) {
			t.Errorf("the task that had begun: %+v", got)
		}
		if exists(n.place("waits")) {
			t.Error("a task that never began has a directory")
		}
	})

	t.Run("what has begun is given back dead", func(t *testing.T) {
		t.Parallel()
		n := newNode(t, slots(1))
		g := n.newGate("g")
		attempt := n.add("t", shell("echo $$ > pid; "+g.reach("up")+"; sleep 600"))
		g.reached()
		n.release("t", batch.ReleaseAlways)
		if got := n.result(attempt); got.Phase != batch.PhaseReleased || got.Outcome != nil {
			t.Errorf("reported as %+v", got)
		}
		if pid := n.pidIn(n.place("t", "wd", "pid")); alive(pid) {
			t.Errorf("process %d lives on", pid)
		}
		if got := summarize(n.run("next", shell("true"))); got != (summary{}) {
			t.Errorf("the slot is not free again: %+v", got)
		}
	})

	t.Run("what comes with the wish never begins", func(t *testing.T) {
		t.Parallel()
		n := newNode(t)
		attempt := 0
		n.change(func() {
			attempt = n.bind("t", shell("true"))
			n.orders.Tasks[0].Release = batch.ReleaseAlways
		})
		if got := n.result(attempt); got.Phase != batch.PhaseReleased {
			t.Errorf("reported as %+v", got)
		}
	})
}

func TestOrders(t *testing.T) {
	t.Parallel()

	t.Run("a task that is no longer named is killed and forgotten", func(t *testing.T) {
		t.Parallel()
		n := newNode(t, slots(1))
		g := n.newGate("g")
		n.add("t", shell("echo $$ > pid; "+g.reach("up")+"; sleep 600"))
		g.reached()
		queued := n.add("queued", shell("true"))
		n.phase("queued", batch.PhaseHeld)
		n.change(func() { n.unbind("t") })
		n.forgotten("t")
		if pid := n.pidIn(n.place("t", "wd", "pid")); alive(pid) {
			t.Errorf("process %d lives on", pid)
		}
		if got := summarize(n.outcome(queued)); got != (summary{}) {
			t.Errorf("the next task: %+v", got)
		}
	})

	t.Run("one that waits is forgotten without ever beginning", func(t *testing.T) {
		t.Parallel()
		n := newNode(t, slots(1))
		g := n.newGate("g")
		n.add("t", shell(g.wait()))
		n.add("queued", shell("true"))
		n.phase("queued", batch.PhaseHeld)
		n.change(func() { n.unbind("queued") })
		n.forgotten("queued")
		g.open()
		n.result(1)
		if exists(n.place("queued")) {
			t.Error("it has a directory")
		}
	})

	t.Run("results are repeated until they are taken", func(t *testing.T) {
		t.Parallel()
		n := newNode(t)
		g := n.newGate("g")
		attempt := n.add("t", shell(g.wait()+"; exit 5"))
		n.phase("t", batch.PhaseRunning)
		n.change(func() { n.down = errDown })
		g.open()
		n.until("a few calls in vain", func() bool { return n.failed >= 3 })
		n.change(func() { n.down, n.lose = nil, 2 })
		if got := summarize(n.outcome(attempt)); got.Exit != 5 {
			t.Errorf("outcome is %+v", got)
		}
		n.forgotten("t")
		if got := summarize(n.run("after", shell("true"))); got != (summary{}) {
			t.Errorf("a task after it: %+v", got)
		}
	})

	t.Run("an attempt that has begun and is not here is given back", func(t *testing.T) {
		t.Parallel()
		n := newNode(t)
		attempt := 0
		n.change(func() {
			attempt = n.bind("t", shell("true"))
			n.orders.Tasks[0].Started = true
		})
		if got := n.result(attempt); got.Phase != batch.PhaseReleased {
			t.Errorf("reported as %+v", got)
		}
	})

	t.Run("a node without work makes no calls but those that wait", func(t *testing.T) {
		t.Parallel()
		n := newNode(t)
		n.booted(1)
		calls := 0
		n.until("a call that waits", func() bool { calls = n.calls; return n.waiting > 0 })
		if calls > 6 {
			t.Errorf("%d calls to come up", calls)
		}
	})
}

// lateServer delivers one answer late: as it was when the call came.
type lateServer struct {
	*server
	held, let chan struct{}

	armed, waiting bool
	later          int // calls that came after the answer was delivered
}

// arm makes the next call that waits the one.
func (l *lateServer) arm() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.armed = true
}

// after is how many calls came later. The caller holds the lock.
func (l *lateServer) after() int { return l.later }

func (l *lateServer) Sync(ctx context.Context, report batch.NodeReport) (batch.NodeOrders, error) {
	l.mu.Lock()
	mine := l.armed && !report.NoWait
	if mine {
		l.armed = false
		orders := l.answer(report)
		l.mu.Unlock()
		close(l.held)
		<-l.let
		l.mu.Lock()
		l.waiting = true
		l.mu.Unlock()
		return orders, nil
	}
	if l.waiting {
		l.later++
	}
	l.mu.Unlock()
	return l.server.Sync(ctx, report)
}

func TestLateAnswer(t *testing.T) {
	t.Parallel()
	n := makeNode(t)
	slow := &lateServer{server: n.server, held: make(chan struct{}), let: make(chan struct{})}
	n.options.Server = slow
	n.start()
	x, y := n.newGate("x"), n.newGate("y")
	n.add("x", shell(x.reach("up")+";"+x.wait()))
	x.reached()
	n.phase("x", batch.PhaseRunning)
	slow.arm()
	n.change(func() { n.settings.Version++ }) // makes the call that waits return
	<-slow.held                               // the next one has its answer: x and nothing else
	second := n.add("y", shell(y.reach("up")+";"+y.wait()))
	x.open() // its end makes the node report, and learn of y
	y.reached()
	n.phase("y", batch.PhaseRunning)
	close(slow.let)
	n.until("the answer was taken", func() bool { return slow.after() > 0 })
	y.open()
	if got := summarize(n.outcome(second)); got != (summary{}) {
		t.Errorf("an answer that came late ended a task: %+v", got)
	}
	if _, err := os.Stat(n.place("x", "stdout.txt")); err != nil {
		t.Error(err)
	}
}
