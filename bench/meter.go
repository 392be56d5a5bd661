package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// usage is processor time used by parts of the service. What the ended children
// of a keeper have used is the tasks' own, the work of starting them included.
type usage struct{ server, agent, keeper, tasks time.Duration }

func (u usage) minus(v usage) usage {
	return usage{u.server - v.server, u.agent - v.agent, u.keeper - v.keeper, u.tasks - v.tasks}
}

func (u usage) total() time.Duration { return u.server + u.agent + u.keeper + u.tasks }

// each is a duration divided among tasks, in microseconds.
func each(d time.Duration, tasks int) float64 { return float64(d.Microseconds()) / float64(tasks) }

// split names the parts of a usage, a task.
func (u usage) split(tasks int) string {
	return fmt.Sprintf("server %.0f, agent %.0f, keeper %.0f, the tasks themselves %.0f µs",
		each(u.server, tasks), each(u.agent, tasks), each(u.keeper, tasks), each(u.tasks, tasks))
}

// used sums what the server and the processes of its nodes have used: agents
// are children of the server, keepers of agents, tasks of keepers.
func (s *server) used() (usage, error) {
	var u usage
	processes, err := listProcesses()
	if err != nil {
		return u, err
	}
	root := s.command.Process.Pid
	u.server = processes[root].own
	for _, p := range processes {
		switch {
		case p.parent == root:
			u.agent += p.own
		case p.parent != 0 && processes[p.parent].parent == root:
			u.keeper += p.own
			u.tasks += p.children
		}
	}
	return u, nil
}

// memory is the resident memory of the server and its highest so far, in MiB.
func (s *server) memory() (now, most float64, err error) {
	return residentOf(s.command.Process.Pid)
}

func residentOf(pid int) (now, most float64, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, ":")
		kilobytes, _ := strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")), 64)
		switch name {
		case "VmRSS":
			now = kilobytes / 1024
		case "VmHWM":
			most = kilobytes / 1024
		}
	}
	return now, most, nil
}

// process is what the kernel says of one.
type process struct {
	parent        int
	own, children time.Duration
}

func listProcesses() (map[int]process, error) {
	names, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	all := make(map[int]process, len(names))
	for _, name := range names {
		pid, err := strconv.Atoi(filepath.Base(name))
		if err != nil {
			continue
		}
		if p, err := readProcess(pid); err == nil { // else it has ended meanwhile
			all[pid] = p
		}
	}
	return all, nil
}

// clockTick is the unit of /proc/PID/stat on Linux.
const clockTick = 10 * time.Millisecond

// readProcess reads who a process belongs to and what it, and its children
// that it has waited for, have used.
func readProcess(pid int) (process, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return process{}, err
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 15 {
		return process{}, errors.New("stat is too short")
	}
	var numbers [15]int
	for _, i := range []int{1, 11, 12, 13, 14} {
		if numbers[i], err = strconv.Atoi(fields[i]); err != nil {
			return process{}, err
		}
	}
	return process{
		parent:   numbers[1],
		own:      time.Duration(numbers[11]+numbers[12]) * clockTick,
		children: time.Duration(numbers[13]+numbers[14]) * clockTick,
	}, nil
}
