package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

// work is what was done for a run beside the processor time: by the server's own
// counters, and by the machine's for the time that its processors had nothing to
// do.
type work struct {
	commits, statements, calls, reported, ordered float64
	idle                                          time.Duration // of all processors together
}

// counters are the names of the server's metrics and where they go.
func (w *work) counters() map[string]*float64 {
	return map[string]*float64{
		"batchyard_store_commits_total":                       &w.commits,
		"batchyard_store_statements_total":                    &w.statements,
		"batchyard_control_sync_seconds_count":                &w.calls,
		`batchyard_control_tasks_carried_total{in="reports"}`: &w.reported,
		`batchyard_control_tasks_carried_total{in="orders"}`:  &w.ordered,
	}
}

func (w work) minus(v work) work {
	return work{
		w.commits - v.commits, w.statements - v.statements, w.calls - v.calls, w.reported - v.reported, w.ordered - v.ordered,
		w.idle - v.idle,
	}
}

// split tells of a run of so many tasks how well they shared what they cost.
func (w work) split(tasks int) string {
	n := float64(tasks)
	return fmt.Sprintf("%.0f tasks a commit and %.0f a call of the node, %.2f reports and %.2f orders carried and %.2f statements a task, processors idle %.0f µs a task",
		n/max(1, w.commits), n/max(1, w.calls), w.reported/n, w.ordered/n, w.statements/n, each(w.idle, tasks))
}

// worked reads the counters of the server and of the machine.
func (s *server) worked(ctx context.Context) (w work, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.debug+"/metrics", nil)
	if err != nil {
		return w, err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return w, err
	}
	defer func() { _ = answer.Body.Close() }()
	counters := w.counters()
	lines := bufio.NewScanner(answer.Body)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), " ")
		if to := counters[name]; to != nil {
			if *to, err = strconv.ParseFloat(value, 64); err != nil {
				return w, fmt.Errorf("read %s: %w", name, err)
			}
		}
	}
	idle, err := idleTime()
	w.idle = idle
	return w, errors.Join(lines.Err(), err)
}

// idleTime is for how long the processors of the machine have had nothing to do.
func idleTime() (time.Duration, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	line, _, _ := strings.Cut(string(text), "\n")
	fields := strings.Fields(line)
	if len(fields) < 6 || fields[0] != "cpu" {
		return 0, errors.New("read /proc/stat: no line of all processors")
	}
	var ticks int
	for _, field := range fields[4:6] { // idle, waiting for the disk
		n, err := strconv.Atoi(field)
		if err != nil {
			return 0, fmt.Errorf("read /proc/stat: %w", err)
		}
		ticks += n
	}
	return time.Duration(ticks) * clockTick, nil
}
