package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/batchyard/batchyard/batch"
)

// boots brings the node up: it runs the start task once a boot and says when
// tasks may begin. A boot on machines of one's own is not a boot of the
// machine: all tasks of the node end and its start task runs again; for a new
// image its directory is emptied first.
type boots struct {
	agent *Agent

	mu     sync.Mutex // guards all below
	state  bootState
	wanted int  // the newest boot that was asked for
	open   bool // tasks may begin
	busy   bool // a boot is under way
	cancel context.CancelFunc
	done   chan struct{} // closed when the boot begun last is over
}

// startPrefix begins the names of start tasks at the keeper; no job can be
// named so, since an id has no blank.
const startPrefix = "start task/"

// bootState is what an agent remembers over its own restart.
type bootState struct {
	// Boot and Image are the newest for which the node was cleared: what ran
	// before has ended, and for a new image the directory is empty.
	Boot  int `json:"boot"`
	Image int `json:"image"`
	// Done is the newest boot after which tasks could begin, or could not
	// because the start task had failed.
	Done int `json:"done"`
	// StartTask is the newest run of this boot.
	StartTask *batch.StartTaskInfo `json:"startTask,omitempty"`
}

func openBoots(a *Agent) (*boots, error) {
	b := &boots{agent: a, cancel: func() {}, done: make(chan struct{})}
	close(b.done)
	text, err := os.ReadFile(b.file())
	if errors.Is(err, fs.ErrNotExist) {
		return b, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read last boot: %w", err)
	}
	if err := json.Unmarshal(text, &b.state); err != nil {
		// A power cut leaves the file empty, or half of it: the node boots
		// again, as a new one does.
		a.Log.Warn("last boot cannot be read, booting again", "err", err)
		b.state = bootState{}
	}
	return b, nil
}

func (b *boots) file() string { return filepath.Join(b.agent.State, "boot.json") }

// save writes the state, of which a kill or a power cut leaves the old one or
// the new one. The caller holds the lock.
func (b *boots) save() {
	err := writeDurably(b.file(), b.state)
	if err != nil {
		b.agent.Log.Error("boot not remembered", "err", err)
	}
}

// report adds how far the node is. While a boot clears the node, its start task
// has not run yet.
func (b *boots) report(report *batch.NodeReport) {
	b.mu.Lock()
	defer b.mu.Unlock()
	report.Boot, report.Booting = b.state.Done, b.busy
	if b.state.Boot >= b.wanted {
		report.StartTask = b.state.StartTask
	}
}

// ready tells whether tasks may begin.
func (b *boots) ready() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.open
}

// waits tells whether tasks wait for a start task to succeed.
func waits(task *batch.StartTask) bool {
	return task != nil && (task.WaitForSuccess == nil || *task.WaitForSuccess)
}

// take shuts the node for the boot that is asked for, and returns a function
// that begins it. One that is under way is given up: what it waits for may
// never come, and the new one begins at the beginning. The first orders of an
// agent make it look where the last boot stands.
func (b *boots) take(orders batch.NodeOrders) (begin func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if orders.Leave {
		b.cancel()
		b.open = false
	}
	if orders.Leave || orders.Boot <= b.wanted {
		return func() {}
	}
	b.cancel()
	before := b.done
	ctx, cancel := context.WithCancel(b.agent.working)
	b.wanted, b.cancel, b.done, b.busy = orders.Boot, cancel, make(chan struct{}), true
	b.open = b.state.Done == orders.Boot && !b.failed()
	done := b.done
	return func() {
		b.agent.work.Go(func() {
			defer cancel()
			<-before
			defer b.over(done)
			_ = b.agent.guard("boot", func() error { b.boot(ctx, orders.Boot, orders.Image); return nil }) // it has been told
		})
	}
}

// over notes that a boot is over, whether or not it came to its end.
func (b *boots) over(done chan struct{}) {
	b.mu.Lock()
	if b.done == done {
		b.busy = false
	}
	close(done)
	b.mu.Unlock()
	b.agent.note(atOnce)
}

// failed tells whether tasks may not begin because the start task failed. The
// caller holds the lock.
func (b *boots) failed() bool {
	info := b.state.StartTask
	return waits(b.agent.settings.Load().StartTask) && info != nil && info.Result != batch.ResultSuccess
}

// boot does what is left to do of a boot: all of it, or the rest of what an
// earlier agent had begun.
func (b *boots) boot(ctx context.Context, number, image int) {
	b.mu.Lock()
	cleared, finished := b.state.Boot == number, b.state.Done == number
	running := b.state.StartTask != nil && b.state.StartTask.State == batch.StartTaskRunning
	b.mu.Unlock()
	if !cleared && !b.clear(ctx, number, image) {
		return
	}
	task := b.agent.settings.Load().StartTask
	if !finished && !waits(task) {
		b.finish(number)
	}
	if task != nil && (!finished || running) && !b.startTask(ctx, task, number) {
		return
	}
	if !finished {
		b.finish(number)
	}
}

// clear ends all that runs, and for a new image empties the node.
func (b *boots) clear(ctx context.Context, number, image int) bool {
	a := b.agent
	a.desk.endAll(ctx)
	for _, held := range a.keeper.Held() {
		if strings.HasPrefix(held.ID, startPrefix) {
			a.endProcess(held.ID)
		}
	}
	if err := a.keeper.Clear(ctx); err != nil && ctx.Err() == nil {
		a.Log.Error("what tasks left on the node's machine is not all removed", "err", err)
	}
	b.mu.Lock()
	wipe := image > b.state.Image
	b.mu.Unlock()
	if wipe && !a.wipe(ctx) {
		return false
	}
	if ctx.Err() != nil {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.state.Boot, b.state.Image, b.state.StartTask = number, image, nil
	b.save()
	return true
}

// wipe empties the node's directory, again and again until it is empty.
func (a *Agent) wipe(ctx context.Context) bool {
	delays := retryDelays()
	for {
		err := errors.Join(a.tree.wipe(), a.tree.prepare())
		if err == nil || ctx.Err() != nil {
			return err == nil
		}
		a.Log.Error("node not wiped", "err", err)
		if !pause(ctx, delays.NextBackOff()) {
			return false
		}
	}
}

// finish opens the node for tasks, unless its start task failed.
func (b *boots) finish(number int) {
	b.mu.Lock()
	if b.state.Done != number {
		b.state.Done = number
		b.save()
	}
	b.open = b.wanted == number && !b.failed()
	b.mu.Unlock()
	b.agent.desk.schedule()
	b.agent.note(atOnce)
}

// startTask runs the start task until it succeeds or its retries are used up;
// it goes on where an earlier agent had come to. False: ctx has ended.
func (b *boots) startTask(ctx context.Context, task *batch.StartTask, number int) bool {
	delays := retryDelays()
	for tries := 0; ; tries++ {
		retry, more := b.nextTry(task)
		if !more {
			return true
		}
		if tries > 0 && !pause(ctx, delays.NextBackOff()) {
			return false
		}
		id := fmt.Sprintf(startPrefix+"%d/%d", number, retry)
		outcome := b.try(ctx, task, id, retry)
		if ctx.Err() != nil {
			return false
		}
		if outcome != nil {
			b.ended(outcome)
		}
		// Without an outcome keeper or lease were lost, which is not the
		// task's fault: the same try is made again.
		b.agent.keeper.Forget(id)
	}
}

// nextTry is the number of the next retry, if there is to be one.
func (b *boots) nextTry(task *batch.StartTask) (retry int, more bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	info := b.state.StartTask
	switch {
	case info == nil:
		return 0, true
	case info.State == batch.StartTaskRunning:
		return info.RetryCount, true
	case info.Result == batch.ResultSuccess:
		return 0, false
	}
	return info.RetryCount + 1, task.MaxTaskRetryCount < 0 || info.RetryCount < task.MaxTaskRetryCount
}

func (b *boots) try(ctx context.Context, task *batch.StartTask, id string, retry int) *batch.Outcome {
	began, adopted := b.held(id)
	if !adopted {
		began = b.agent.moment()
	}
	start := batch.At(began.date)
	info := &batch.StartTaskInfo{State: batch.StartTaskRunning, StartTime: start, RetryCount: retry}
	if retry > 0 {
		info.LastRetryTime = &start
	}
	b.mu.Lock()
	b.state.StartTask = info
	b.save()
	b.mu.Unlock()
	b.agent.note(atOnce)
	c := &command{
		agent: b.agent, id: id, adopted: adopted, place: startupName, line: task.CommandLine, began: began,
		files: task.ResourceFiles, user: task.UserIdentity, own: settingsOf(task.EnvironmentSettings), keep: true,
	}
	b.mu.Lock()
	c.mark = bootMark(b.state.Boot)
	c.after = c.mark
	b.mu.Unlock()
	outcome := c.perform(ctx)
	if outcome != nil {
		c.failed(outcome)
	}
	return outcome
}

// held is when the keeper's process of that name began, if it has one.
func (b *boots) held(id string) (moment, bool) {
	for _, held := range b.agent.keeper.Held() {
		if held.ID == id {
			return b.agent.began(held.Started), true
		}
	}
	return moment{}, false
}

func (b *boots) ended(outcome *batch.Outcome) {
	b.mu.Lock()
	info := *b.state.StartTask
	info.State, info.EndTime, info.ExitCode = batch.StartTaskCompleted, &outcome.End, outcome.ExitCode
	info.FailureInfo, info.Result = outcome.Failure, batch.ResultSuccess
	if outcome.Failure != nil {
		info.Result = batch.ResultFailure
	}
	b.state.StartTask = &info
	b.save()
	b.mu.Unlock()
	b.agent.note(atOnce)
}
