package agent_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/batchyard/batchyard/batch"
	"github.com/google/go-cmp/cmp"
)

// owner is the user number of a file.
func owner(t *testing.T, path string) uint32 {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t).Uid
}

// as is a task of a user.
func as(user batch.UserIdentity, script string) *batch.TaskRun {
	run := shell(script)
	run.UserIdentity = &user
	return run
}

func autoUser(scope batch.AutoUserScope, level batch.ElevationLevel) batch.UserIdentity {
	return batch.UserIdentity{AutoUser: &batch.AutoUser{Scope: scope, ElevationLevel: level}}
}

func TestUsers(t *testing.T) {
	t.Parallel()
	if !isRoot() {
		t.Skip("SKIPPED: only root runs tasks as users of their own")
	}
	accounts := []batch.UserAccount{{Name: "alice"}, {Name: "Boss", ElevationLevel: batch.ElevationAdmin}}
	n := newNode(t, slots(2), func(n *node) { n.settings.UserAccounts = accounts })
	base := n.options.UIDBase
	n.booted(1)
	if len(n.agent.Unenforced) > 0 && strings.Contains(fmt.Sprint(n.agent.Unenforced), "agent's user") {
		t.Fatalf("tasks have no users of their own: %v", n.agent.Unenforced)
	}

	const who = "id -u; id -g; id -G; echo $USER $AZ_BATCH_TASK_USER_IDENTITY"
	for _, c := range []struct {
		name, task string
		user       *batch.UserIdentity
		want       string
	}{
		{"without an identity the user of the pool", "default", nil, ids(base) + "_azbatch PoolNonAdmin\n"},
		{"the auto user of the pool", "pool", new(autoUser(batch.ScopePool, batch.ElevationNonAdmin)), ids(base) + "_azbatch PoolNonAdmin\n"},
		{"a user of the task", "task", new(autoUser(batch.ScopeTask, batch.ElevationNonAdmin)), ids(base+64) + "_azbatchtask_0 TaskNonAdmin\n"},
		{"an administrator", "admin", new(autoUser(batch.ScopePool, batch.ElevationAdmin)), ids(0) + "_azbatch PoolAdmin\n"},
		{"a named user", "named", &batch.UserIdentity{Username: "Alice"}, ids(base+1) + "alice Alice\n"},
		{"a named administrator", "boss", &batch.UserIdentity{Username: "boss"}, ids(0) + "Boss boss\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			run := shell(who)
			run.UserIdentity = c.user
			n.run(c.task, run)
			if diff := cmp.Diff(c.want, n.text(n.place(c.task, "stdout.txt"))); diff != "" {
				t.Error(diff)
			}
		})
	}

	t.Run("a user that the pool does not have", func(t *testing.T) {
		got := summarize(n.run("nobody", as(batch.UserIdentity{Username: "nobody"}, "true")))
		want := summary{-1, batch.UserError, batch.FailureUserNotFound, `The pool has no user account "nobody"`}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})

	t.Run("the files of a task belong to its user", func(t *testing.T) {
		n.run("owned", shell("touch mine"))
		for _, name := range []string{"", "wd", "wd/mine", "stdout.txt", "stderr.txt"} {
			if got := owner(t, n.place("owned", name)); got != base {
				t.Errorf("%q belongs to %d, not to %d", name, got, base)
			}
		}
		if got := owner(t, filepath.Dir(n.place("owned"))); got != 0 {
			t.Errorf("the job's directory belongs to %d", got)
		}
	})

	t.Run("what a task cannot reach", func(t *testing.T) {
		n.run("private", as(autoUser(batch.ScopeTask, batch.ElevationNonAdmin), "echo secret > f; chmod 644 f"))
		for _, script := range []string{
			"ls " + n.options.State,
			"cat " + filepath.Join(n.options.State, "boot.json"),
			"cat " + n.place("private", "wd", "f"),
			"ls " + n.path("workitems", "j", "job-1"),
			"ls " + n.path("workitems"),
			"rm -rf " + n.place("private") + " && ls " + n.place("private"),
			"echo x > " + n.path("shared") + "/../planted",
			"echo x > " + n.path("workitems", "j", "planted"),
			"kill -0 $PPID",
			"cat /proc/$PPID/environ",
			"test -S " + filepath.Join(n.options.State, "keeper", "keeper.sock"),
		} {
			for _, user := range []batch.UserIdentity{
				autoUser(batch.ScopePool, batch.ElevationNonAdmin), autoUser(batch.ScopeTask, batch.ElevationNonAdmin),
			} {
				if got := summarize(n.run("intruder", as(user, script))); got.Exit == 0 {
					t.Errorf("%s could %q: %s", user.AutoUser.Scope, script, n.text(n.place("intruder", "stdout.txt")))
				}
			}
		}
		if got := n.text(n.place("private", "wd", "f")); got != "secret\n" {
			t.Errorf("the file has %q", got)
		}
	})

	t.Run("all users share one folder, and cannot remove what others put there", func(t *testing.T) {
		task := autoUser(batch.ScopeTask, batch.ElevationNonAdmin)
		n.run("giver", shell("echo gift > $AZ_BATCH_NODE_SHARED_DIR/gift"))
		got := summarize(n.run("taker", as(task, "cat $AZ_BATCH_NODE_SHARED_DIR/gift && ! rm $AZ_BATCH_NODE_SHARED_DIR/gift")))
		if got != (summary{}) {
			t.Errorf("outcome is %+v", got)
		}
	})

	t.Run("tasks with users of their own that run together do not share one, even over a restart", func(t *testing.T) {
		n := newNode(t, slots(2))
		user := autoUser(batch.ScopeTask, batch.ElevationNonAdmin)
		upA, upB, g := n.newGate("a"), n.newGate("b"), n.newGate("g")
		first := n.add("first", as(user, upA.reach("up")+";"+g.wait()))
		upA.reached()
		second := n.add("second", as(user, "echo $$ > pid; "+upB.reach("up")+"; sleep 600"))
		upB.reached()
		n.phase("first", batch.PhaseRunning)
		n.phase("second", batch.PhaseRunning)
		n.restart()
		n.phase("second", batch.PhaseRunning)
		g.open() // the user of the first is free, that of the second is not
		if got := summarize(n.outcome(first)); got != (summary{}) {
			t.Errorf("first: %+v", got)
		}
		third := n.add("third", as(user, "id -u; ! kill -0 "+strings.TrimSpace(n.text(n.place("second", "wd", "pid")))))
		if got := summarize(n.outcome(third)); got != (summary{}) {
			t.Errorf("a task could signal another's process: %+v", got)
		}
		n.release("second", batch.ReleaseAlways)
		n.result(second)
	})

	t.Run("resource files belong to the user", func(t *testing.T) {
		web := newStorage(t)
		web.put("dir/f", "text")
		n := newNode(t, allow(host(web.server)))
		run := shell("stat -c '%u %a' in in/dir in/dir/f; echo more >> in/dir/f")
		run.ResourceFiles = []batch.ResourceFile{{StorageContainerURL: web.url(readAndList()), FilePath: "in"}}
		if got := n.run("t", run); got.Failure != nil {
			t.Fatalf("outcome is %+v", got.Failure)
		}
		uid := n.options.UIDBase
		want := fmt.Sprintf("%d 750\n%d 750\n%d 770\n", uid, uid, uid)
		if diff := cmp.Diff(want, n.text(n.place("t", "stdout.txt"))); diff != "" {
			t.Error(diff)
		}
	})
}

func ids(uid uint32) string { return fmt.Sprintf("%d\n%d\n%d\n", uid, uid, uid) }

func TestClosedFolder(t *testing.T) {
	t.Parallel()
	if !isRoot() {
		t.Skip("SKIPPED: only root runs tasks as users of their own")
	}
	n := makeNode(t)
	if err := os.Chmod(n.folder, 0o700); err != nil {
		t.Fatal(err)
	}
	n.start()
	attempt := n.add("t", shell("id -u"))
	if got := n.result(attempt); got.Phase != batch.PhaseReleased {
		t.Fatalf("the task is %+v", got)
	}
	if report := n.troubled(true); len(report.Errors) != 1 || report.Errors[0].Code != "NoTaskUsers" || !strings.Contains(report.Errors[0].Message, "chmod o+x "+n.folder) {
		t.Errorf("errors are %+v", report.Errors)
	}
	if err := os.Chmod(n.folder, 0o711); err != nil {
		t.Fatal(err)
	}
	if report := n.troubled(false); len(report.Errors) > 0 {
		t.Errorf("errors stay: %+v", report.Errors)
	}
	n.run("again", shell("id -u"))
	if got := n.text(n.place("again", "stdout.txt")); got != fmt.Sprintln(n.options.UIDBase) {
		t.Errorf("the task ran as %s", got)
	}
}

func TestNoNumbers(t *testing.T) {
	t.Parallel()
	if !isRoot() {
		t.Skip("SKIPPED: only root runs tasks as users of their own")
	}
	n := newNode(t, func(n *node) { n.options.UIDBase = 0 })
	attempt := n.add("t", shell("id -u"))
	if got := n.result(attempt); got.Phase != batch.PhaseReleased {
		t.Fatalf("the task is %+v", got)
	}
	if report := n.troubled(true); len(report.Errors) != 1 || !strings.Contains(report.Errors[0].Message, "not run as root") {
		t.Errorf("errors are %+v", report.Errors)
	}
}

// TestElevation is for agents that are not root, see TestUnprivileged.
func TestElevation(t *testing.T) {
	t.Parallel()
	if isRoot() {
		t.Skip("SKIPPED: run by TestUnprivileged")
	}
	n := newNode(t, func(n *node) {
		n.settings.UserAccounts = []batch.UserAccount{{Name: "boss", ElevationLevel: batch.ElevationAdmin}}
	})
	for name, user := range map[string]batch.UserIdentity{
		"pool": autoUser(batch.ScopePool, batch.ElevationAdmin), "task": autoUser(batch.ScopeTask, batch.ElevationAdmin), "boss": {Username: "boss"},
	} {
		got := n.run(name, as(user, "touch ran"))
		if got.Failure == nil || got.Failure.Code != batch.FailureElevation || got.Failure.Category != batch.UserError {
			t.Errorf("%s: %+v", name, got.Failure)
		}
		if exists(n.place(name, "wd", "ran")) {
			t.Errorf("%s ran", name)
		}
	}
}

func TestUsersOfTasks(t *testing.T) {
	t.Parallel()
	if !isRoot() {
		t.Skip("SKIPPED: only root runs tasks as users of their own")
	}
	var blocks atomic.Uint32
	n := newNode(t, slots(1), func(n *node) {
		n.options.MoreUIDs = func() (uint32, error) { return n.options.UIDBase + blocks.Add(1)*10_000, nil }
	})
	base := n.options.UIDBase
	user := autoUser(batch.ScopeTask, batch.ElevationNonAdmin)
	for i, want := range []uint32{base + 10_000, base + 10_001, base + 10_002} {
		name := fmt.Sprint("t", i)
		n.run(name, as(user, "id -u"))
		if got := n.text(n.place(name, "stdout.txt")); got != fmt.Sprintln(want) {
			t.Errorf("task %d ran as %s, not %d", i, got, want)
		}
	}
	n.restart()
	n.run("later", as(user, "id -u"))
	if got := n.text(n.place("later", "stdout.txt")); got != fmt.Sprintln(base+20_000) {
		t.Errorf("after a restart a task ran as %s", got)
	}
}

// TestPrivateTasks leaves things behind with a user of the task, and looks for
// them with the next.
func TestPrivateTasks(t *testing.T) {
	t.Parallel()
	n := newNode(t, slots(1))
	user := autoUser(batch.ScopeTask, batch.ElevationNonAdmin)
	n.run("first", as(user, "for d in /tmp /var/tmp /dev/shm; do echo secret > $d/left; done; ipcmk -M 64"))
	for _, info := range n.agent.Unenforced {
		if strings.Contains(info, "no namespaces") {
			t.Skipf("SKIPPED: %s", info)
		}
	}
	got := n.run("second", as(user, "! cat /tmp/left /var/tmp/left /dev/shm/left && test $(ipcs -m | grep -c 0x) = 0"))
	if got.Failure != nil {
		t.Errorf("the next task found something: %+v: %s", got.Failure, n.text(n.place("second", "stdout.txt")))
	}
	n.run("third", shell("echo x > /tmp/of-node"))
	n.change(func() { n.orders.Boot = 2 })
	n.booted(2)
	if got := n.run("fourth", shell("test ! -e /tmp/of-node")); got.Failure != nil {
		t.Errorf("after a boot the files are still there: %+v", got.Failure)
	}
}

func TestTemporaryFilesCount(t *testing.T) {
	t.Parallel()
	n := newNode(t, func(n *node) { n.settings.Size.Disk = 8 << 20 })
	n.run("probe", shell("true"))
	for _, info := range n.agent.Unenforced {
		if strings.Contains(info, "no namespaces") {
			t.Skipf("SKIPPED: %s", info)
		}
	}
	g := n.newGate("g")
	attempt := n.add("t", shell("for i in 1 2 3; do head -c 4000000 /dev/zero > /tmp/$i; done; "+g.wait()))
	if report := n.troubled(true); report.Errors[0].Code != "DiskFull" {
		t.Errorf("errors are %+v", report.Errors)
	}
	g.open()
	n.outcome(attempt)
	n.troubled(false)
	if got := n.run("next", shell("ls -A /tmp | grep -v ^agent | wc -l")); got.Failure != nil || n.text(n.place("next", "stdout.txt")) != "0\n" {
		t.Errorf("the next task: %+v, finds %s files", got.Failure, n.text(n.place("next", "stdout.txt")))
	}
}
