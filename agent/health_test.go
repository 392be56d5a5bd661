package agent_test

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/batchyard/batchyard/agent"
	"github.com/batchyard/batchyard/agent/run"
	"github.com/batchyard/batchyard/batch"
)

// troubled waits until the node says that it is unfit, or fit again, and
// returns the newest report.
func (n *node) troubled(unfit bool) batch.NodeReport {
	n.t.Helper()
	var report batch.NodeReport
	n.until(fmt.Sprintf("unfit is %v", unfit), func() bool {
		report = n.report
		return report.Unfit == unfit && report.Revision > 0
	})
	return report
}

// addTo binds a task of a job to the node and returns its attempt.
func (n *node) addTo(job batch.JobID, task string, run *batch.TaskRun) int {
	var attempt int
	n.change(func() {
		attempt = n.bind(task, run)
		n.orders.Tasks[len(n.orders.Tasks)-1].Job = job
	})
	return attempt
}

func errorCodes(report batch.NodeReport) []string {
	var codes []string
	for _, e := range report.Errors {
		codes = append(codes, e.Code)
	}
	return codes
}

// knownKeeper is a keeper of which a test knows too what it can do.
type knownKeeper struct{ *run.Keeper }

// open has a node have this keeper.
func (k *knownKeeper) open(n *node) {
	n.options.OpenKeeper = func(ctx context.Context, o run.Options) (_ agent.Keeper, err error) {
		k.Keeper, err = run.Open(ctx, o)
		return k, err
	}
}

// Process is the keeper's process of that specification.
func (k *knownKeeper) Process(spec run.Spec) run.Execution { return k.Keeper.Process(spec) }

func TestNoBlackHole(t *testing.T) {
	t.Parallel()
	const mib = 1 << 20

	t.Run("a node whose share is used up takes no tasks until there is room", func(t *testing.T) {
		t.Parallel()
		n := newNode(t, func(n *node) { n.settings.Size.Disk = 8 * mib })
		g := n.newGate("g")
		runs := n.add("runs", shell(g.wait()))
		n.phase("runs", batch.PhaseRunning)
		if got := n.run("filler", shell(`i=0; while [ $i -lt 8 ]; do i=$((i+1)); head -c 1048000 /dev/zero > $AZ_BATCH_NODE_SHARED_DIR/f$i; done`)); got.Failure != nil {
			t.Fatalf("the filler ended with %+v", got.Failure)
		}
		if codes := errorCodes(n.troubled(true)); !slices.Equal(codes, []string{"DiskFull"}) {
			t.Errorf("errors are %v", codes)
		}
		var attempts []int
		for i := range 40 {
			attempts = append(attempts, n.add(fmt.Sprintf("next%d", i), shell("head -c 100000 /dev/zero > f")))
		}
		for _, attempt := range attempts {
			if got := n.result(attempt); got.Phase != batch.PhaseReleased {
				t.Errorf("attempt %d ended as %s %+v", attempt, got.Phase, got.Outcome)
			}
		}
		g.open()
		if got := summarize(n.outcome(runs)); got != (summary{}) {
			t.Errorf("what ran ended as %+v", got)
		}

		if got := n.ask(batch.FileRequest{Op: batch.FileDelete, Path: "shared/f1"}); got.Error != nil {
			t.Fatal(got.Error)
		}
		if report := n.troubled(false); len(report.Errors) != 0 {
			t.Errorf("errors stay: %+v", report.Errors)
		}
		if got := summarize(n.run("after", shell("head -c 100000 /dev/zero > f"))); got != (summary{}) {
			t.Errorf("then a task ends as %+v", got)
		}
	})

	t.Run("a node started again on a full share takes none either", func(t *testing.T) {
		t.Parallel()
		n := makeNode(t, func(n *node) { n.settings.Size.Disk = 4 * mib })
		if err := os.MkdirAll(filepath.Join(n.options.Root, "shared"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(n.options.Root, "shared", "f"), make([]byte, 5*mib), 0o600); err != nil {
			t.Fatal(err)
		}
		n.start()
		n.troubled(true)
		if got := n.result(n.add("t", shell("true"))); got.Phase != batch.PhaseReleased {
			t.Errorf("a task is %s", got.Phase)
		}
	})

	t.Run("a node without memory takes no tasks until there is some", func(t *testing.T) {
		t.Parallel()
		var memory atomic.Int64
		memory.Store(math.MaxInt64)
		n := newNode(t, func(n *node) { n.options.AvailableMemory = memory.Load })
		n.booted(1)
		memory.Store(mib)
		if codes := errorCodes(n.troubled(true)); !slices.Equal(codes, []string{"OutOfMemory"}) {
			t.Errorf("errors are %v", codes)
		}
		if got := n.result(n.add("t", shell("true"))); got.Phase != batch.PhaseReleased {
			t.Errorf("a task is %s", got.Phase)
		}
		memory.Store(1 << 30)
		n.troubled(false)
		if got := summarize(n.run("after", shell("true"))); got != (summary{}) {
			t.Errorf("then a task ends as %+v", got)
		}
	})

	t.Run("a node whose own memory is used up by what tasks left takes none until that is removed", func(t *testing.T) {
		t.Parallel()
		k := &knownKeeper{}
		n := newNode(t, slots(2), k.open, func(n *node) { n.settings.Size.Memory = 128 * mib })
		n.booted(1)
		if able := k.Capabilities(); !able.Memory || !able.Machine {
			t.Skip("SKIPPED: this host does not limit memory, or allows no namespaces")
		}
		g := n.newGate("g")
		runs := n.add("runs", shell(g.wait()))
		n.phase("runs", batch.PhaseRunning)
		if got := summarize(n.run("filler", shell("head -c 60M /dev/zero > /dev/shm/left"))); got != (summary{}) {
			t.Fatalf("the filler ended as %+v", got)
		}
		large := shell("head -c 90M /dev/zero | tail -c 89M > /dev/null")
		if got := n.run("dies", large); got.Failure == nil || got.Failure.Code != batch.FailureOutOfMemory {
			t.Fatalf("a task that has too little memory ended with %+v", got.Failure)
		}
		if codes := errorCodes(n.troubled(true)); !slices.Equal(codes, []string{"OutOfMemory"}) {
			t.Errorf("errors are %v", codes)
		}
		if got := n.result(n.add("next", large)); got.Phase != batch.PhaseReleased {
			t.Errorf("the next is %s %+v", got.Phase, got.Outcome)
		}
		g.open()
		if got := summarize(n.outcome(runs)); got != (summary{}) {
			t.Errorf("what ran ended as %+v", got)
		}
		if report := n.troubled(false); len(report.Errors) != 0 {
			t.Errorf("errors stay: %+v", report.Errors)
		}
		if got := summarize(n.run("after", large)); got != (summary{}) {
			t.Errorf("then the task ends as %+v", got)
		}
	})

	t.Run("a node whose memory is full when nothing runs empties its machine at once", func(t *testing.T) {
		t.Parallel()
		k := &knownKeeper{}
		n := newNode(t, slots(1), k.open, func(n *node) { n.settings.Size.Memory = 64 * mib })
		n.booted(1)
		if able := k.Capabilities(); !able.Memory || !able.Machine || !isRoot() {
			t.Skip("SKIPPED: this host does not limit memory or allows no namespaces, or this is not root")
		}
		fill := shell("mount -o remount,size=64M /dev/shm && head -c 58M /dev/zero > /dev/shm/left")
		fill.UserIdentity = &batch.UserIdentity{AutoUser: &batch.AutoUser{ElevationLevel: batch.ElevationAdmin}}
		if got := summarize(n.run("filler", fill)); got != (summary{}) {
			t.Fatalf("the filler ended as %+v", got)
		}
		n.troubled(true)
		n.troubled(false)
		if got := summarize(n.run("after", shell("test ! -e /dev/shm/left"))); got != (summary{}) {
			t.Errorf("then a task ends as %+v", got)
		}
	})

	t.Run("a node on which tasks of several jobs do not start is set aside for a while", func(t *testing.T) {
		t.Parallel()
		n := newNode(t, slots(1))
		none := &batch.TaskRun{CommandLine: "nosuchprogram", RequiredSlots: 1, MaxWallClockTime: batch.Unlimited}
		for i := range 5 {
			if got := n.outcome(n.addTo(batch.JobID(fmt.Sprint("job", i%3)), fmt.Sprint("t", i), none)); got.Failure == nil || got.Failure.Code != batch.FailureProgramNotFound {
				t.Fatalf("task %d ended with %+v", i, got.Failure)
			}
		}
		report := n.troubled(true)
		if codes := errorCodes(report); !slices.Equal(codes, []string{"TasksDoNotStart"}) {
			t.Fatalf("errors are %v", codes)
		}
		if details := report.Errors[0].ErrorDetails; len(details) != 1 || !strings.Contains(details[0].Value, "nosuchprogram") {
			t.Errorf("the reason is %+v", details)
		}
		if got := n.result(n.add("kept", shell("true"))); got.Phase != batch.PhaseReleased {
			t.Errorf("a task is %s", got.Phase)
		}

		if report := n.troubled(false); len(report.Errors) != 1 {
			t.Errorf("tried again it says %+v", report.Errors)
		}
		n.outcome(n.addTo("job1", "again", none))
		n.troubled(true)
		n.troubled(false)
		if got := summarize(n.run("good", shell("true"))); got != (summary{}) {
			t.Fatalf("a good task ends as %+v", got)
		}
		n.until("no error is left", func() bool { return len(n.report.Errors) == 0 })
	})

	t.Run("one job's wrong command is not the node's fault", func(t *testing.T) {
		t.Parallel()
		n := newNode(t, slots(1))
		for i := range 8 {
			n.run(fmt.Sprint("t", i), &batch.TaskRun{CommandLine: "nosuchprogram", RequiredSlots: 1, MaxWallClockTime: batch.Unlimited})
		}
		if got := summarize(n.run("good", shell("true"))); got != (summary{}) {
			t.Errorf("a good task ends as %+v", got)
		}
	})
}
