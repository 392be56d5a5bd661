package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/batchyard/batchyard/batch"
)

// lives is what an agent knows of those before it on its node: how often they
// were started without having been told to end, and for which attempts they
// were fetching or sending files then. A task that ends one agent after the
// other is told to the server, which sets it aside.
type lives struct {
	agent *Agent
	state livesState

	// By attempt, how many agents in a row died at work for it, and whether that
	// is its doing. Neither changes after begin.
	dead map[string]int
	died map[string]bool
}

// livesState is what is kept. It is a help for people and not needed, so it is
// not synced.
type livesState struct {
	// Starts are when those began that have not ended as told, the newest last.
	Starts []batch.Time `json:"starts,omitempty"`
	// Word is the last word of the newest of them, if it had one.
	Word string `json:"word,omitempty"`
}

const (
	// manyStarts in startsTime is again and again.
	manyStarts = 3
	startsTime = 10 * time.Minute
	// manyDeaths of agents in a row at work for one attempt are its doing, also
	// if none says so.
	manyDeaths = 3
)

func (l *lives) file() string   { return filepath.Join(l.agent.State, "lives.json") }
func (l *lives) folder() string { return filepath.Join(l.agent.State, "work") }

// begin looks at what those before have left, and begins a life. Nothing of it
// is worth not running for.
func (l *lives) begin() {
	a := l.agent
	l.dead, l.died = map[string]int{}, map[string]bool{}
	text, err := os.ReadFile(l.file())
	if err == nil {
		err = json.Unmarshal(text, &l.state)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		l.state = livesState{}
	}
	badly := len(l.state.Starts) > 0
	now := a.now()
	l.state.Starts = slices.DeleteFunc(l.state.Starts, func(at batch.Time) bool {
		return at.After(now) || now.Sub(at.Time) > startsTime
	})
	if a.LastWord != "" {
		l.state.Word = a.LastWord
	}
	suspects := l.look(badly)
	if n := len(l.state.Starts); n >= manyStarts {
		details := []batch.NameValue{detail("Message", firstLine(l.state.Word))}
		for _, id := range suspects {
			details = append(details, detail("Task", id))
		}
		a.health.tell(causeRestart, false, errorRestarts, fmt.Sprintf(
			"The agent of the compute node was started %d times within %v and did not end as it was told to.", n+1, startsTime), details...)
	}
	l.state.Starts = append(l.state.Starts, batch.At(now))
	l.state.Starts = l.state.Starts[max(0, len(l.state.Starts)-100):]
	l.save()
}

// look reads for which attempts the agent before was at work. They are held
// against it if it ended badly, and the more so if it crashed.
func (l *lives) look(badly bool) (suspects []string) {
	entries, err := os.ReadDir(l.folder())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		l.agent.Log.Warn("work of an earlier agent not known", "err", err)
	}
	for _, entry := range entries {
		path := filepath.Join(l.folder(), entry.Name())
		text, _ := os.ReadFile(path) // without a number it is the first time
		deaths, _ := strconv.Atoi(strings.TrimSpace(string(text)))
		id := strings.ReplaceAll(entry.Name(), ".", "/")
		if badly {
			l.dead[id] = deaths + 1
			l.died[id] = l.agent.LastWord != "" || deaths+1 >= manyDeaths
			suspects = append(suspects, id)
		}
		if err := os.Remove(path); err != nil {
			l.agent.Log.Warn("work of an earlier agent not forgotten", "err", err)
		}
	}
	return suspects
}

// lasts forgets, after a while, how often agents were started before.
func (l *lives) lasts() {
	if !pause(l.agent.working, startsTime) {
		return
	}
	l.agent.health.over(causeRestart)
	l.state = livesState{Starts: l.state.Starts[len(l.state.Starts)-1:]}
	l.save()
}

// end ends this life: well, if it was told to, or with an error.
func (l *lives) end(err error) {
	if err == nil || errors.Is(err, ErrLeft) || errors.Is(err, ErrRefused) || errors.Is(err, ErrLost) {
		l.state = livesState{}
	} else {
		l.state.Word = err.Error()
	}
	l.save()
}

func (l *lives) save() {
	text, err := json.Marshal(l.state)
	if err == nil {
		err = os.WriteFile(l.file()+".new", text, 0o600)
	}
	if err == nil {
		err = os.Rename(l.file()+".new", l.file())
	}
	if err != nil {
		l.agent.Log.Warn("start of the agent not remembered", "err", err)
	}
}

// at notes that the agent is at work for an attempt, until the function that it
// returns is called.
func (l *lives) at(id string) func() {
	deaths := l.dead[id]
	path := filepath.Join(l.folder(), strings.ReplaceAll(id, "/", "."))
	err := os.WriteFile(path, []byte(strconv.Itoa(deaths)), 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		if err = os.MkdirAll(l.folder(), 0o700); err == nil {
			err = os.WriteFile(path, []byte(strconv.Itoa(deaths)), 0o600)
		}
	}
	if err != nil {
		l.agent.Log.Debug("work not noted", "id", id, "err", err)
	}
	return func() { _ = os.Remove(path) } // or the next agent does
}

// ended tells whether an attempt has ended agents.
func (l *lives) ended(id attemptID) bool {
	return l.died[id.String()]
}
