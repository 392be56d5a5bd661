// Package nodelogs keeps the logs of agents and keepers for a test, also of nodes
// that are gone before it ends, and finds panics in them: an agent that panics is
// started again, so that all a test sees may be right.
package nodelogs

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"
)

// Watch follows the logs of the nodes of one server.
type Watch struct {
	nodes string // folder of the nodes
	kept  string // folder with a second name of each log

	stop    chan struct{}
	stopped sync.WaitGroup
	err     error // what went wrong while it watched
}

// Logs of a node, below its folder.
var logs = []string{"state/agent.log", "state/keeper/keeper.log"}

// Begin begins to watch the nodes of a server with this data folder, beside which
// it keeps the logs.
func Begin(data string) (*Watch, error) {
	kept, err := os.MkdirTemp(filepath.Dir(data), "node-logs-")
	if err != nil {
		return nil, err
	}
	w := &Watch{nodes: filepath.Join(data, "nodes"), kept: kept, stop: make(chan struct{})}
	w.stopped.Go(w.run)
	return w, nil
}

// run looks for new logs. A node lives for longer than it takes to look again.
func (w *Watch) run() {
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	for {
		w.look()
		select {
		case <-w.stop:
			w.look()
			return
		case <-again.C:
		}
	}
}

// look gives each log a second name, under which it stays when its node is removed.
func (w *Watch) look() {
	for _, log := range logs {
		files, err := filepath.Glob(filepath.Join(w.nodes, "*", log))
		w.note(err)
		for _, file := range files {
			node, _, _ := strings.Cut(strings.TrimPrefix(file, w.nodes+"/"), "/")
			err := os.Link(file, filepath.Join(w.kept, node+"-"+filepath.Base(log)))
			if !errors.Is(err, fs.ErrExist) && !errors.Is(err, fs.ErrNotExist) {
				w.note(err)
			}
		}
	}
}

func (w *Watch) note(err error) { w.err = errors.Join(w.err, err) }

// panicked is what a line has that tells of a panic, whether it ended the process or
// was caught, or of what the race detector has found.
var panicked = regexp.MustCompile(`(?i)\bpanic|^fatal error:|^unexpected fault|DATA RACE`)

// End ends the watch and returns how many logs there were, and the lines of these and
// of other logs, such as the server's, that tell of panics, each with what follows it.
func (w *Watch) End(others ...string) (seen int, found []string, err error) {
	close(w.stop)
	w.stopped.Wait()
	files, err := filepath.Glob(filepath.Join(w.kept, "*.log"))
	err = errors.Join(w.err, err)
	for _, file := range append(files, others...) {
		lines, failed := In(file)
		found, err = append(found, lines...), errors.Join(err, failed)
	}
	return len(files), found, errors.Join(err, os.RemoveAll(w.kept))
}

// Of a panic these many lines are told, and of a log these many panics.
const (
	context = 30
	most    = 3
)

// In returns the lines of a log that tell of panics.
func In(file string) (found []string, err error) {
	log, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	lines := bufio.NewScanner(log)
	lines.Buffer(nil, 16<<20)
	for left := 0; lines.Scan(); {
		switch {
		case left > 0:
			found[len(found)-1] += "\n\t" + lines.Text()
			left--
		case panicked.MatchString(lines.Text()) && len(found) < most:
			found = append(found, fmt.Sprintf("%s: %s", filepath.Base(file), lines.Text()))
			left = context
		}
	}
	return found, lines.Err()
}
