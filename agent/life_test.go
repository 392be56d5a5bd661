package agent_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/batchyard/batchyard/agent"
	"github.com/batchyard/batchyard/batch"
)

// hangingOnce is a server of a file that does not answer the first request. The
// function waits for that: without it, an agent that is stopped may leave the
// request to the next one.
func hangingOnce(t *testing.T) (*httptest.Server, func()) {
	var asked atomic.Int32
	first := make(chan struct{})
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1) == 1 {
			close(first)
			<-r.Context().Done()
			return
		}
		fmt.Fprint(w, "content")
	}))
	t.Cleanup(web.Close)
	return web, func() {
		t.Helper()
		select {
		case <-first:
		case <-time.After(testTime):
			t.Fatal("the file is not asked for")
		}
	}
}

func TestRestart(t *testing.T) {
	t.Parallel()

	t.Run("a running task goes on and is reported by the next agent", func(t *testing.T) {
		t.Parallel()
		n := newNode(t, slots(1))
		up, g := n.newGate("up"), n.newGate("g")
		attempt := n.add("t", shell("echo begun; "+up.reach("up")+"; "+g.wait()+"; exit 4"))
		queued := n.add("queued", shell("true"))
		up.reached()
		n.phase("queued", batch.PhaseHeld)
		n.restart()
		n.phase("t", batch.PhaseRunning)
		g.open()
		if got := summarize(n.outcome(attempt)); got.Exit != 4 {
			t.Errorf("outcome is %+v", got)
		}
		if got := n.text(n.place("t", "stdout.txt")); got != "begun\n" {
			t.Errorf("output is %q: it did not run once", got)
		}
		if got := summarize(n.outcome(queued)); got != (summary{}) {
			t.Errorf("the task that waited: %+v", got)
		}
	})

	t.Run("a task that ended while there was no agent keeps its exit code", func(t *testing.T) {
		t.Parallel()
		n := newNode(t)
		up, g := n.newGate("up"), n.newGate("g")
		attempt := n.add("t", shell("echo $$ > pid; "+up.reach("up")+"; "+g.wait()+"; exit 6"))
		up.reached()
		n.phase("t", batch.PhaseRunning)
		n.halt()
		if got := n.results; len(got) != 0 {
			t.Fatalf("the agent reported %+v as it stopped", got)
		}
		g.open()
		n.start()
		r := n.result(attempt)
		if got := summarize(n.outcome(attempt)); got.Exit != 6 || r.Start == nil {
			t.Errorf("reported as %+v, %+v", r, got)
		}
	})

	t.Run("a task of which only files have been fetched is begun by the next agent", func(t *testing.T) {
		t.Parallel()
		web, first := hangingOnce(t)
		n := newNode(t, allow(host(web)))
		attempt := n.add("t", fetching(batch.ResourceFile{HTTPURL: web.URL + "/input", FilePath: "input"}))
		n.phase("t", batch.PhaseRunning)
		first()
		n.restart()
		if got := summarize(n.outcome(attempt)); got != (summary{}) {
			t.Errorf("outcome is %+v", got)
		}
		if got := n.text(n.place("t", "stdout.txt")); !strings.Contains(got, "content") {
			t.Errorf("output is %q", got)
		}
	})

	t.Run("so it is when an agent between them had no slot for it", func(t *testing.T) {
		t.Parallel()
		web, first := hangingOnce(t)
		n := newNode(t, allow(host(web)))
		up, g := n.newGate("up"), n.newGate("g")
		n.add("long", shell(up.reach("up")+"; "+g.wait()))
		up.reached()
		n.phase("long", batch.PhaseRunning)
		attempt := n.add("t", fetching(batch.ResourceFile{HTTPURL: web.URL + "/input", FilePath: "input"}))
		n.phase("t", batch.PhaseRunning)
		first()
		n.halt()
		n.change(func() { n.settings.TaskSlots = 1 })
		n.start()
		n.phase("t", batch.PhaseHeld)
		n.restart()
		n.phase("long", batch.PhaseRunning)
		g.open()
		if got := summarize(n.outcome(attempt)); got != (summary{}) {
			t.Errorf("outcome is %+v", got)
		}
	})

	for name, set := range map[string]time.Duration{"on": 24 * time.Hour, "back": -24 * time.Hour} {
		setDate := func(n *node) {
			n.halt()
			n.options.Now = func() time.Time { return time.Now().Add(set) }
			n.start()
		}
		t.Run("a task has the time it has when the date is set "+name+" while there is no agent", func(t *testing.T) {
			t.Parallel()
			n := newNode(t)
			up, g := n.newGate("up"), n.newGate("g")
			run := shell(up.reach("up") + "; " + g.wait() + "; exit 6")
			run.MaxWallClockTime = batch.Hour
			attempt := n.add("t", run)
			up.reached()
			n.phase("t", batch.PhaseRunning)
			setDate(n)
			n.phase("t", batch.PhaseRunning)
			g.open()
			if got := summarize(n.outcome(attempt)); got.Exit != 6 {
				t.Errorf("outcome is %+v", got)
			}
			if r := n.result(attempt); r.Outcome.End.Before(r.Start.Time) {
				t.Errorf("it began at %v and ended at %v", r.Start, r.Outcome.End)
			}
		})
		t.Run("and no more, set "+name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t)
			up := n.newGate("up")
			run := shell(up.reach("up") + "; exec sleep 600")
			run.MaxWallClockTime = batch.DurationOf(3 * time.Second)
			attempt := n.add("t", run)
			up.reached()
			n.phase("t", batch.PhaseRunning)
			setDate(n)
			if got := summarize(n.outcome(attempt)); got.Code != batch.FailureWallClock {
				t.Errorf("outcome is %+v", got)
			}
			if took := time.Since(n.result(attempt).Start.Time); took > testTime {
				t.Errorf("it was ended after %v", took)
			}
		})
	}

	t.Run("an agent that is killed changes nothing", func(t *testing.T) {
		t.Parallel()
		n := newNode(t)
		up, g := n.newGate("up"), n.newGate("g")
		attempt := n.add("t", shell(up.reach("up")+"; "+g.wait()+"; exit 6"))
		up.reached()
		n.change(func() { n.down = errDown }) // it can say no more
		n.halt()
		n.change(func() { n.down = nil })
		n.start()
		g.open()
		if got := summarize(n.outcome(attempt)); got.Exit != 6 {
			t.Errorf("outcome is %+v", got)
		}
	})

	t.Run("a task that nobody wants any more is ended before its directory is used again", func(t *testing.T) {
		t.Parallel()
		n := newNode(t)
		up := n.newGate("up")
		n.add("t", shell("echo $$ > "+n.path("shared", "pid")+"; "+up.reach("up")+"; sleep 600"))
		up.reached()
		n.halt()
		second := 0
		n.change(func() {
			n.unbind("t")
			n.orders.Removals = []batch.Removal{{ID: 1, Job: "j", Task: "t"}}
			second = n.bind("t", shell("kill -0 $(cat "+n.path("shared", "pid")+") 2>/dev/null"))
		})
		n.start()
		if got := summarize(n.outcome(second)); got.Exit == 0 {
			t.Error("the first attempt ran beside the second")
		}
	})

	t.Run("tasks end with an agent that says so", func(t *testing.T) {
		t.Parallel()
		n := newNode(t, func(n *node) { n.options.KillTasksOnStop = true })
		up := n.newGate("up")
		attempt := n.add("t", shell("echo $$ > pid; "+up.reach("up")+"; sleep 600"))
		up.reached()
		n.phase("t", batch.PhaseRunning)
		n.halt()
		if pid := n.pidIn(n.place("t", "wd", "pid")); alive(pid) || !n.keeperGone() {
			t.Error("something lives on")
		}
		n.start()
		if got := n.result(attempt); got.Phase != batch.PhaseReleased {
			t.Errorf("the next agent reported %+v", got)
		}
	})

	t.Run("two agents do not work in one folder", func(t *testing.T) {
		t.Parallel()
		n := newNode(t)
		n.booted(1)
		err := agent.New(n.options).Run(t.Context())
		if err == nil || !strings.Contains(err.Error(), "another agent works in") {
			t.Errorf("the second agent: %v", err)
		}
	})
}

// deafServer never answers a call that waits.
type deafServer struct{ *server }

func (d *deafServer) Sync(ctx context.Context, report batch.NodeReport) (batch.NodeOrders, error) {
	if !report.NoWait {
		<-ctx.Done()
		return batch.NodeOrders{}, ctx.Err()
	}
	return d.server.Sync(ctx, report)
}

// awaitEnd waits for the end of a process that is not the test's child.
func awaitEnd(t *testing.T, pid int) {
	t.Helper()
	process, err := os.FindProcess(pid)
	if err != nil {
		t.Fatal(err)
	}
	var ended bool
	err = process.WithHandle(func(handle uintptr) { ended = awaitHandle(t, handle) })
	if err != nil || !ended {
		t.Fatalf("process %d lives on (%v)", pid, err)
	}
}

func TestBoot(t *testing.T) {
	t.Parallel()

	for name, text := range map[string]string{"an empty": "", "half a": `{"boot":1,"im`} {
		t.Run("a node boots again after a power cut left "+name+" file", func(t *testing.T) {
			t.Parallel()
			n := makeNode(t)
			if err := os.MkdirAll(n.options.State, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(n.options.State, "boot.json"), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			n.start()
			n.booted(1)
		})
	}

	t.Run("a node without a start task is ready at once", func(t *testing.T) {
		t.Parallel()
		n := newNode(t)
		if got := n.booted(1); got.StartTask != nil {
			t.Errorf("start task is %+v", got.StartTask)
		}
		for _, folder := range []string{"shared", "volatile", "applications", "fsmounts", "workitems"} {
			if !exists(n.path(folder)) {
				t.Errorf("%s is missing", folder)
			}
		}
	})

	t.Run("tasks wait for the start task", func(t *testing.T) {
		t.Parallel()
		n := makeNode(t)
		g := n.newGate("g")
		n.settings.StartTask = &batch.StartTask{CommandLine: shell("echo $V > $AZ_BATCH_NODE_SHARED_DIR/made; pwd; " + g.wait()).CommandLine}
		n.settings.StartTask.EnvironmentSettings = []batch.EnvironmentSetting{{Name: "V", Value: "value"}}
		n.start()
		attempt := n.add("t", shell("cat $AZ_BATCH_NODE_SHARED_DIR/made"))
		n.until("the start task runs", func() bool {
			return n.report.StartTask != nil && n.report.StartTask.State == batch.StartTaskRunning && n.report.Booting && n.report.Boot == 0
		})
		n.phase("t", batch.PhaseHeld)
		g.open()
		info := n.booted(1).StartTask
		if info.Result != batch.ResultSuccess || info.ExitCode == nil || *info.ExitCode != 0 || info.EndTime == nil || info.RetryCount != 0 {
			t.Errorf("start task is %+v", info)
		}
		n.outcome(attempt)
		if got := n.text(n.place("t", "stdout.txt")); got != "value\n" {
			t.Errorf("the task read %q", got)
		}
		if got := n.text(n.path("startup", "stdout.txt")); got != n.path("startup", "wd")+"\n" {
			t.Errorf("the start task ran in %q", got)
		}
	})

	t.Run("tasks do not begin where it failed, after its retries", func(t *testing.T) {
		t.Parallel()
		n := newNode(t, startTask(batch.StartTask{CommandLine: shell("echo once; exit 3").CommandLine, MaxTaskRetryCount: 2}))
		attempt := n.add("t", shell("true"))
		info := n.booted(1).StartTask
		if info.Result != batch.ResultFailure || *info.ExitCode != 3 || info.RetryCount != 2 || info.LastRetryTime == nil ||
			info.FailureInfo.Code != batch.FailureExitCode {
			t.Errorf("start task is %+v", info)
		}
		if got := n.text(n.path("startup", "stdout.txt")); got != "once\nonce\nonce\n" {
			t.Errorf("output is %q", got)
		}
		n.phase("t", batch.PhaseHeld)
		n.restart() // the next agent knows it too
		if info := n.booted(1).StartTask; info == nil || info.Result != batch.ResultFailure {
			t.Errorf("after a restart: %+v", info)
		}
		n.phase("t", batch.PhaseHeld)
		n.release("t", batch.ReleaseUnstarted)
		if got := n.result(attempt); got.Phase != batch.PhaseReleased {
			t.Errorf("the task was reported as %+v", got)
		}
	})

	t.Run("retries end with success", func(t *testing.T) {
		t.Parallel()
		n := newNode(t, startTask(batch.StartTask{
			CommandLine: shell("test -e tried || { touch tried; exit 1; }").CommandLine, MaxTaskRetryCount: 5,
		}))
		if info := n.booted(1).StartTask; info.Result != batch.ResultSuccess || info.RetryCount != 1 || info.FailureInfo != nil {
			t.Errorf("start task is %+v", info)
		}
		if got := summarize(n.run("t", shell("true"))); got != (summary{}) {
			t.Errorf("outcome is %+v", got)
		}
	})

	t.Run("tasks need not wait for it", func(t *testing.T) {
		t.Parallel()
		n := makeNode(t)
		g, wait := n.newGate("g"), false
		n.settings.StartTask = &batch.StartTask{CommandLine: shell(g.wait() + "; exit 1").CommandLine, WaitForSuccess: &wait}
		n.start()
		if got := summarize(n.run("t", shell("true"))); got != (summary{}) {
			t.Errorf("outcome is %+v", got)
		}
		n.restart() // which changes nothing for either
		n.until("the start task runs on", func() bool { return n.report.Booting && n.report.Boot == 1 && n.report.Revision > 0 })
		g.open()
		if info := n.booted(1).StartTask; info.Result != batch.ResultFailure || *info.ExitCode != 1 {
			t.Errorf("start task is %+v", info)
		}
		if got := summarize(n.run("after", shell("true"))); got != (summary{}) {
			t.Errorf("outcome after its failure is %+v", got)
		}
	})

	t.Run("it goes on when the agent is replaced", func(t *testing.T) {
		t.Parallel()
		n := makeNode(t)
		g, up := n.newGate("g"), n.newGate("up")
		n.settings.StartTask = &batch.StartTask{CommandLine: shell("echo once; " + up.reach("up") + "; " + g.wait()).CommandLine}
		n.start()
		up.reached()
		n.restart()
		n.until("the next agent has it", func() bool { return n.report.StartTask != nil && n.report.Booting && n.report.Revision > 0 })
		g.open()
		if info := n.booted(1).StartTask; info.Result != batch.ResultSuccess || info.RetryCount != 0 {
			t.Errorf("start task is %+v", info)
		}
		if got := n.text(n.path("startup", "stdout.txt")); got != "once\n" {
			t.Errorf("output is %q: it did not run once", got)
		}
	})

	t.Run("a reboot ends tasks, keeps files and runs the start task again", func(t *testing.T) {
		t.Parallel()
		n := newNode(t, startTask(batch.StartTask{CommandLine: shell("echo boot").CommandLine}))
		up := n.newGate("up")
		attempt := n.add("t", shell("echo $$ > pid; "+up.reach("up")+"; sleep 600"))
		up.reached()
		n.change(func() { n.orders.Boot = 2 })
		if got := n.result(attempt); got.Phase != batch.PhaseReleased {
			t.Errorf("the task was reported as %+v", got)
		}
		if info := n.booted(2).StartTask; info == nil || info.Result != batch.ResultSuccess {
			t.Errorf("start task is %+v", info)
		}
		if pid := n.pidIn(n.place("t", "wd", "pid")); alive(pid) {
			t.Errorf("process %d lives on", pid)
		}
		if got := n.text(n.path("startup", "stdout.txt")); got != "boot\nboot\n" {
			t.Errorf("output of start tasks is %q", got)
		}
		if got := summarize(n.run("after", shell("true"))); got != (summary{}) {
			t.Errorf("outcome after the boot is %+v", got)
		}
	})

	t.Run("a new image wipes the node", func(t *testing.T) {
		t.Parallel()
		n := newNode(t)
		n.run("t", shell("touch $AZ_BATCH_NODE_SHARED_DIR/kept; mkdir -p a/b; chmod 0 a"))
		n.change(func() { n.orders.Boot, n.orders.Image = 2, 1 })
		n.booted(2)
		if exists(n.path("shared", "kept")) || exists(n.path("workitems", "j")) || !exists(n.path("shared")) {
			t.Error("something is left")
		}
		if got := summarize(n.run("t", shell("true"))); got != (summary{}) {
			t.Errorf("outcome after the boot is %+v", got)
		}
	})

	t.Run("a start task that hangs is ended by a reboot", func(t *testing.T) {
		t.Parallel()
		n := makeNode(t)
		up := n.newGate("up")
		n.settings.StartTask = &batch.StartTask{CommandLine: shell("echo $$ > pid; " + up.reach("up") + "; sleep 600").CommandLine}
		n.start()
		up.reached()
		pid := n.pidIn(n.path("startup", "wd", "pid"))
		n.change(func() {
			n.settings.Version++
			n.settings.StartTask = &batch.StartTask{CommandLine: "/bin/true"}
			n.orders.Boot = 2
		})
		if info := n.booted(2).StartTask; info == nil || info.Result != batch.ResultSuccess {
			t.Errorf("start task is %+v", info)
		}
		if alive(pid) {
			t.Errorf("process %d lives on", pid)
		}
	})

	t.Run("a boot that was ordered while there was no agent ends what ran", func(t *testing.T) {
		t.Parallel()
		n := newNode(t)
		up := n.newGate("up")
		attempt := n.add("t", shell("echo $$ > "+n.folder+"/root/shared/pid; "+up.reach("up")+"; sleep 600"))
		up.reached()
		pid := n.pidIn(n.path("shared", "pid"))
		n.halt()
		n.change(func() { n.orders.Boot, n.orders.Image = 2, 1 })
		n.start()
		if got := n.result(attempt); got.Phase != batch.PhaseReleased {
			t.Errorf("the task was reported as %+v", got)
		}
		n.booted(2)
		if alive(pid) || exists(n.path("shared", "pid")) {
			t.Error("something is left of the time before")
		}
	})
}

func TestLeave(t *testing.T) {
	t.Parallel()

	t.Run("a node that leaves gives everything back and leaves nothing running", func(t *testing.T) {
		t.Parallel()
		n := newNode(t, slots(1))
		up := n.newGate("up")
		first := n.add("t", shell("echo $$ > pid; setsid sleep 600 & "+up.reach("up")+"; sleep 600"))
		second := n.add("queued", shell("true"))
		up.reached()
		n.change(func() { n.orders.Leave = true })
		for _, attempt := range []int{first, second} {
			if got := n.result(attempt); got.Phase != batch.PhaseReleased {
				t.Errorf("reported as %+v", got)
			}
		}
		if err := n.exit(); !errors.Is(err, agent.ErrLeft) {
			t.Errorf("agent ended with %v", err)
		}
		if !n.left || !n.keeperGone() || alive(n.pidIn(n.place("t", "wd", "pid"))) {
			t.Errorf("left %v, keeper gone %v", n.left, n.keeperGone())
		}
	})

	t.Run("a start task ends too", func(t *testing.T) {
		t.Parallel()
		n := makeNode(t)
		up := n.newGate("up")
		n.settings.StartTask = &batch.StartTask{CommandLine: shell("echo $$ > pid; " + up.reach("up") + "; sleep 600").CommandLine}
		n.start()
		up.reached()
		pid := n.pidIn(n.path("startup", "wd", "pid"))
		n.change(func() { n.orders.Leave = true })
		if err := n.exit(); !errors.Is(err, agent.ErrLeft) || alive(pid) {
			t.Errorf("agent ended with %v, start task lives %v", err, alive(pid))
		}
	})

	t.Run("a node that the server does not know ends its tasks", func(t *testing.T) {
		t.Parallel()
		n := newNode(t)
		up := n.newGate("up")
		n.add("t", shell("echo $$ > pid; "+up.reach("up")+"; sleep 600"))
		up.reached()
		n.change(func() { n.down = batch.NotFound("compute node", n.settings.Node) })
		if err := n.exit(); !errors.Is(err, agent.ErrRefused) {
			t.Errorf("agent ended with %v", err)
		}
		if pid := n.pidIn(n.place("t", "wd", "pid")); alive(pid) || !n.keeperGone() {
			t.Error("something lives on")
		}
	})

	t.Run("what an agent left running is ended by one that is refused", func(t *testing.T) {
		t.Parallel()
		n := newNode(t)
		up := n.newGate("up")
		n.add("t", shell("echo $$ > pid; "+up.reach("up")+"; sleep 600"))
		up.reached()
		n.halt()
		n.change(func() { n.down = batch.NotFound("compute node", n.settings.Node) })
		n.start()
		if err := n.exit(); !errors.Is(err, agent.ErrRefused) {
			t.Errorf("agent ended with %v", err)
		}
		if pid := n.pidIn(n.place("t", "wd", "pid")); alive(pid) || !n.keeperGone() {
			t.Error("something lives on")
		}
	})
}

func TestRemoval(t *testing.T) {
	t.Parallel()

	// removed waits for the receipt of all removals.
	removed := func(n *node) {
		n.t.Helper()
		n.until("removals are done", func() bool { return len(n.orders.Removals) == 0 })
	}

	t.Run("the directory of a task goes, those of others stay", func(t *testing.T) {
		t.Parallel()
		n := newNode(t)
		n.run("a", shell("mkdir -p x/y; ln -s / x/root"))
		n.run("b", shell("true"))
		n.change(func() { n.orders.Removals = []batch.Removal{{ID: 1, Job: "j", Task: "a"}} })
		removed(n)
		if exists(n.place("a")) || !exists(n.place("b")) || !exists("/etc") {
			t.Error("the wrong directory is gone")
		}
	})

	t.Run("the directory of a job goes whatever its tasks have made of theirs, and nothing that they point at", func(t *testing.T) {
		t.Parallel()
		n := newNode(t)
		canary := n.path("shared", "stdout.txt")
		n.run("canary", shell("echo mine > "+canary))
		n.run("plain", shell("true"))
		n.run("files", shell("mkdir -p x/y; echo z > x/y/z; echo z > ../more"))
		n.run("links", shell("cd ..; rm stdout.txt stderr.txt; rmdir wd; ln -s "+canary+" stdout.txt; ln -s "+n.path("shared")+" wd; ln -s / stderr.txt"))
		n.run("itself", shell("cd ../..; rm -r itself 2>/dev/null; ln -s "+n.path("shared")+" beside || true"))
		n.run("folder", shell("cd ..; rm stdout.txt; mkdir stdout.txt; echo z > stdout.txt/z"))
		n.change(func() { n.orders.Removals = []batch.Removal{{ID: 1, Job: "j"}} })
		removed(n)
		if exists(n.path("workitems", "j")) || !exists(canary) || !exists("/etc") {
			t.Error("the wrong directory is gone")
		}
	})

	t.Run("the directory of a job goes with all of its tasks, and can be made again", func(t *testing.T) {
		t.Parallel()
		n := newNode(t)
		n.run("a", shell("true"))
		n.change(func() { n.orders.Removals = []batch.Removal{{ID: 1, Job: "j"}} })
		removed(n)
		if exists(n.path("workitems", "j")) {
			t.Error("the directory is there")
		}
		if got := summarize(n.run("a", shell("true"))); got != (summary{}) {
			t.Errorf("a task afterwards: %+v", got)
		}
	})

	t.Run("it comes after the end of the task and before a new task of the same name", func(t *testing.T) {
		t.Parallel()
		n := newNode(t)
		up := n.newGate("up")
		n.add("t", shell("touch old; "+up.reach("up")+"; sleep 600"))
		up.reached()
		second := 0
		n.change(func() {
			n.unbind("t")
			n.orders.Removals = []batch.Removal{{ID: 1, Job: "j", Task: "t"}}
			second = n.bind("t", shell("ls; touch new"))
		})
		n.outcome(second)
		removed(n)
		if got := n.text(n.place("t", "stdout.txt")); got != "" {
			t.Errorf("the new task found %q", got)
		}
		if !exists(n.place("t", "wd", "new")) {
			t.Error("the removal took the files of the new task")
		}
	})

	t.Run("one ahead of its turn comes before a new task of the same name", func(t *testing.T) {
		t.Parallel()
		n := newNode(t)
		n.run("t", shell("touch old"))
		second := 0
		n.change(func() {
			n.orders.Ahead = []batch.Removal{{ID: 9, Job: "j", Task: "t"}}
			second = n.bind("t", shell("ls; touch new"))
		})
		n.outcome(second)
		n.until("the removal is done", func() bool { return len(n.orders.Ahead) == 0 })
		if !exists(n.place("t", "wd", "new")) {
			t.Error("the removal took the files of the new task")
		}
	})

	t.Run("one whose receipt was lost does not take the files of the next", func(t *testing.T) {
		t.Parallel()
		n := newNode(t)
		n.run("t", shell("true"))
		up, g := n.newGate("up"), n.newGate("g")
		second := n.add("t", shell("touch new; "+up.reach("up")+"; "+g.wait()))
		up.reached()
		n.halt()
		n.change(func() { n.orders.Removals = []batch.Removal{{ID: 1, Job: "j", Task: "t"}} })
		n.start()
		removed(n)
		g.open()
		n.outcome(second)
		if !exists(n.place("t", "wd", "new")) {
			t.Error("the files are gone")
		}
	})
}
