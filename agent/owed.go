package agent

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/batchyard/batchyard/batch"
)

// owedName is the file with what an agent could not hand over before it ended,
// for the next one: results, and which attempts it had called running although
// their processes were still to be started. Those are begun by the next agent;
// it would take them for lost, since the keeper does not have them. Results of
// processes alone are also at the keeper, but an agent that gives up for want of
// a server ends its keeper too.
const owedName = "owed.json"

// readOwed reads what an agent before this one owed, by attempt. What cannot be
// read is not owed: those tasks are given back and run again.
func readOwed(a *Agent) map[attemptID]batch.TaskReport {
	text, err := os.ReadFile(filepath.Join(a.State, owedName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var reports []batch.TaskReport
	if err == nil {
		err = json.Unmarshal(text, &reports)
	}
	if err != nil {
		a.Log.Warn("results of the agent before this one cannot be read", "err", err)
	}
	owed := make(map[attemptID]batch.TaskReport, len(reports))
	for _, r := range reports {
		owed[attemptID{r.Job, r.Task, r.Attempt}] = r
	}
	return owed
}

// forgetOwed removes the file when all that it had is taken: a later task may be
// named as one of these was. The caller holds the lock.
func (d *desk) forgetOwed() {
	if !d.owing || len(d.owed) > 0 || slices.ContainsFunc(d.attempts, func(t *attempt) bool { return t.owed }) {
		return
	}
	err := os.Remove(filepath.Join(d.agent.State, owedName))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		d.agent.Log.Error("results of the agent before this one not forgotten", "err", err)
	}
	d.owing = false
}

// keepOwed writes down the results that the server has not taken and the attempts
// that are to be begun, or removes the file if there are none.
func (d *desk) keepOwed() {
	d.mu.Lock()
	var reports []batch.TaskReport
	for _, t := range d.attempts {
		switch {
		case t.unwanted:
		case t.phase == batch.PhaseEnded:
			reports = append(reports, t.report())
		case t.unbegun && !t.final():
			reports = append(reports, batch.TaskReport{
				Job: t.id.job, Task: t.id.task, Attempt: t.id.attempt, Phase: batch.PhaseHeld,
			})
		}
	}
	for _, r := range d.owed { // by the agent before, and not asked for yet
		reports = append(reports, r)
	}
	d.mu.Unlock()
	path := filepath.Join(d.agent.State, owedName)
	var err error
	if len(reports) == 0 {
		err = os.Remove(path)
	} else {
		err = writeDurably(path, reports)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		d.agent.Log.Error("what is owed not written down for the next agent", "tasks", len(reports), "err", err)
	}
}

// writeDurably leaves the old file or the new one, also after a power cut.
func writeDurably(path string, value any) error {
	text, err := json.Marshal(value)
	if err != nil {
		return err
	}
	file, err := os.OpenFile(path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(text)
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
