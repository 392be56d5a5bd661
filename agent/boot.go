package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/batchyard/batchyard/batch"
)

// boots brings the node up: it runs the start task once a boot and says when
// tasks may begin. A boot on machines of one's own is not a boot of the
// machine: all tasks of the node end and its start task runs again; for a new
// image its directory is emptied first.
type boots struct {
	agent *Agent

	mu      sync.Mutex // guards all below
	state   bootState
	booting bool
	open    bool
}

// startPrefix begins the names of start tasks at the keeper; no job can be
// named so, since an id has no blank.
const startPrefix = "start task/"

// bootState is what an agent remembers over its own restart.
type bootState struct {
	// Boot and Image are the newest that this node has begun; Done is the
	// newest boot whose start task is over.
	Boot  int `json:"boot"`
	Image int `json:"image"`
	Done  int `json:"done"`
	// StartTask is the newest run.
	StartTask *batch.StartTaskInfo `json:"startTask,omitempty"`
}

func openBoots(a *Agent) (*boots, error) {
	b := &boots{agent: a}
	text, err := os.ReadFile(b.file())
	if errors.Is(err, fs.ErrNotExist) {
		return b, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &b.state)
	}
	if err != nil {
		return nil, fmt.Errorf("read last boot: %w", err)
	}
	b.open = b.state.Done == b.state.Boot && b.state.Boot > 0 && !b.failed()
	return b, nil
}

func (b *boots) file() string { return filepath.Join(b.agent.State, "boot.json") }

// save writes the state so that a kill leaves the old one or the new one. A
// power cut may take it: then the node boots again.
func (b *boots) save() {
	text, err := json.Marshal(b.state)
	if err == nil {
		err = os.WriteFile(b.file()+".new", text, 0o600)
	}
	if err == nil {
		err = os.Rename(b.file()+".new", b.file())
	}
	if err != nil {
		b.agent.Log.Error("boot not remembered", "err", err)
	}
}

func (b *boots) report(report *batch.NodeReport) {
	b.mu.Lock()
	defer b.mu.Unlock()
	report.Boot, report.Booting, report.StartTask = b.state.Done, b.booting, b.state.StartTask
}

// ready tells whether tasks may begin.
func (b *boots) ready() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.open
}

// failed tells whether the start task failed and tasks must wait for success.
func (b *boots) failed() bool {
	task, info := b.agent.settings.StartTask, b.state.StartTask
	return task != nil && *task.WaitForSuccess && info != nil && info.Result != batch.ResultSuccess
}

// take starts the boot that is asked for, unless one is under way: then the
// next orders find it done and ask again.
func (b *boots) take(orders batch.NodeOrders) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.booting || orders.Leave || orders.Boot <= b.state.Done {
		return
	}
	again := b.state.Boot == orders.Boot // an earlier agent began this boot
	wipe := orders.Image > b.state.Image
	b.state.Boot, b.state.Image = orders.Boot, orders.Image
	b.booting, b.open = true, false
	if !again {
		b.state.StartTask = nil
	}
	b.save()
	b.agent.work.Go(func() { b.boot(b.agent.desk.context(), orders.Boot, wipe, again) })
}

func (b *boots) boot(ctx context.Context, number int, wipe, again bool) {
	a := b.agent
	if !again {
		a.desk.endAll(ctx)
	}
	if wipe {
		if err := errors.Join(a.tree.wipe(), a.tree.prepare(a.users)); err != nil {
			a.Log.Error("node not wiped", "err", err)
		}
	}
	task := a.settings.StartTask
	if task != nil && !*task.WaitForSuccess {
		b.finished(number, true)
	}
	if task != nil {
		b.startTask(ctx, task, number)
	}
	if ctx.Err() != nil {
		return
	}
	b.finished(number, false)
}

// finished opens the node for tasks, unless its start task failed. Early tells
// that the start task still runs and nobody waits for it.
func (b *boots) finished(number int, early bool) {
	b.mu.Lock()
	b.state.Done = number
	b.booting = early
	b.open = !b.failed() || early
	b.save()
	b.mu.Unlock()
	b.agent.desk.schedule()
	b.agent.note(soon)
}

// startTask runs the start task until it succeeds or its retries are used up.
func (b *boots) startTask(ctx context.Context, task *batch.StartTask, number int) {
	for retry := b.firstTry(); ; retry++ {
		id := fmt.Sprintf(startPrefix+"%d/%d", number, retry)
		outcome := b.try(ctx, task, id, retry)
		if ctx.Err() != nil {
			return
		}
		b.agent.keeper.Forget(id)
		if outcome == nil {
			continue // the keeper was lost, which is not the task's fault
		}
		b.ended(outcome)
		if outcome.Failure == nil || (task.MaxTaskRetryCount >= 0 && retry >= task.MaxTaskRetryCount) {
			return
		}
	}
}

// firstTry is the retry that an earlier agent had come to.
func (b *boots) firstTry() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.state.StartTask == nil {
		return 0
	}
	return b.state.StartTask.RetryCount
}

func (b *boots) try(ctx context.Context, task *batch.StartTask, id string, retry int) *batch.Outcome {
	adopted := b.held(id)
	now := batch.At(time.Now())
	b.mu.Lock()
	info := &batch.StartTaskInfo{State: batch.StartTaskRunning, StartTime: now, RetryCount: retry}
	if !adopted.IsZero() && b.state.StartTask != nil {
		info.StartTime = b.state.StartTask.StartTime
	}
	if retry > 0 {
		info.LastRetryTime = &now
	}
	b.state.StartTask = info
	b.save()
	b.mu.Unlock()
	b.agent.note(soon)
	c := &command{
		agent: b.agent, id: id, started: adopted, place: startupName, line: task.CommandLine,
		files: task.ResourceFiles, user: task.UserIdentity, env: settingsOf(task.EnvironmentSettings), keep: true,
	}
	return c.perform(ctx)
}

// held is when the keeper's process of that name began, or the zero time.
func (b *boots) held(id string) time.Time {
	for _, held := range b.agent.keeper.Held() {
		if held.ID == id {
			return held.Started.At
		}
	}
	return time.Time{}
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
	b.agent.note(soon)
}
