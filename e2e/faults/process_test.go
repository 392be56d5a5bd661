package faults_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/batchyard/batchyard/batch"
)

// markVariable is in the environment of each task. Its value tells a test its own processes.
const markVariable = "FAULTS_MARK"

// processes are all processes of the machine for which is says so.
func processes(is func(proc string) bool) []int {
	entries, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		panic(err) // the pattern is right
	}
	var found []int
	for _, entry := range entries {
		if pid, err := strconv.Atoi(filepath.Base(entry)); err == nil && is(entry) {
			found = append(found, pid)
		}
	}
	return found
}

// marked are the living processes with a mark in their environment.
func marked(mark string) []int {
	setting := []byte(markVariable + "=" + mark + "\x00")
	return processes(func(proc string) bool {
		environment, err := os.ReadFile(filepath.Join(proc, "environ"))
		return err == nil && bytes.Contains(environment, setting)
	})
}

// awaitNone waits until no process with the mark lives.
func awaitNone(t *testing.T, mark string) {
	t.Helper()
	await(t, "no process is left", func(context.Context) (bool, error) { return len(marked(mark)) == 0, nil })
}

func (s *server) nodeFolder(node batch.NodeID) string {
	return filepath.Join(s.data, "nodes", string(node))
}

// agent is the process of a node's agent, 0 if none has begun.
func (s *server) agent(node batch.NodeID) int {
	text, err := os.ReadFile(filepath.Join(s.nodeFolder(node), "state", "agent.lock"))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0
	}
	return pid
}

// keeper is the process that holds a node's tasks, 0 if there is none.
func (s *server) keeper(node batch.NodeID) int {
	log := filepath.Join(s.nodeFolder(node), "state", "keeper", "keeper.log")
	found := processes(func(proc string) bool { return stderrOf(proc) == log })
	if len(found) == 0 {
		return 0
	}
	return found[0]
}

// nodeProcesses are the agents and keepers of this server: each writes to a log in its data.
func (s *server) nodeProcesses() []int {
	folder := filepath.Join(s.data, "nodes") + "/"
	return processes(func(proc string) bool { return strings.HasPrefix(stderrOf(proc), folder) })
}

// stderrOf is the file that a process has for its errors, even if it is removed.
func stderrOf(proc string) string {
	name, err := os.Readlink(filepath.Join(proc, "fd", "2"))
	if err != nil {
		return ""
	}
	name = strings.TrimSuffix(name, " (deleted)")
	if base := filepath.Base(name); base != "agent.log" && base != "keeper.log" {
		return ""
	}
	return name
}

// signalAgents sends a signal to the agents of nodes and waits until other agents run there.
func (s *server) signalAgents(t *testing.T, signal syscall.Signal, nodes ...batch.NodeID) {
	t.Helper()
	before := map[batch.NodeID]int{}
	for _, node := range nodes {
		pid := s.agent(node)
		if pid == 0 || syscall.Kill(pid, signal) != nil {
			t.Errorf("node %s has no agent", node)
		}
		before[node] = pid
	}
	await(t, "other agents run", func(context.Context) (bool, error) {
		return !slices.ContainsFunc(nodes, func(node batch.NodeID) bool {
			now := s.agent(node)
			return now == 0 || now == before[node]
		}), nil
	})
}
