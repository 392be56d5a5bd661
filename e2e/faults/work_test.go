package faults_test

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/client"
)

// addPool adds a pool, with changes to what is usual here, and waits for its nodes.
func (s *server) addPool(t *testing.T, id batch.PoolID, nodes int, changes map[string]any) []batch.NodeID {
	t.Helper()
	s.addPoolOnly(t, id, nodes, changes)
	return s.awaitNodes(t, id, nodes, batch.NodeIdle)
}

func (s *server) addPoolOnly(t *testing.T, id batch.PoolID, nodes int, changes map[string]any) {
	t.Helper()
	spec := map[string]any{
		"id": id, "vmSize": "custom_1c_1g", "targetDedicatedNodes": nodes,
		"virtualMachineConfiguration": map[string]any{
			"nodeAgentSKUId": "batch.node.ubuntu 22.04",
			"imageReference": map[string]any{"publisher": "canonical", "offer": "0001-com-ubuntu-server-jammy", "sku": "22_04-lts"},
		},
	}
	maps.Copy(spec, changes)
	if err := s.AddPool(t.Context(), spec); err != nil {
		t.Fatalf("add pool %s: %v", id, err)
	}
	s.pools = append(s.pools, id)
}

// awaitNodes waits until a pool has so many nodes and all are in one of the states.
func (s *server) awaitNodes(t *testing.T, pool batch.PoolID, count int, states ...batch.NodeState) []batch.NodeID {
	t.Helper()
	var ids []batch.NodeID
	await(t, fmt.Sprintf("pool %s has %d nodes in state %v", pool, count, states), func(ctx context.Context) (bool, error) {
		nodes, err := s.Nodes(ctx, pool)
		ids = ids[:0]
		for _, node := range nodes {
			if !slices.Contains(states, node.State) {
				return false, err
			}
			ids = append(ids, node.ID)
		}
		return len(nodes) == count, err
	})
	return ids
}

func (s *server) addJob(t *testing.T, id batch.JobID, pool batch.PoolID) {
	t.Helper()
	if err := s.AddJob(t.Context(), id, pool); err != nil {
		t.Fatalf("add job %s: %v", id, err)
	}
}

// addTasks adds tasks by collections of a hundred.
func (s *server) addTasks(t *testing.T, job batch.JobID, tasks ...map[string]any) {
	t.Helper()
	for some := range slices.Chunk(tasks, 100) {
		results, err := s.AddTasks(t.Context(), job, some)
		if err != nil {
			t.Fatalf("add tasks: %v", err)
		}
		for _, result := range results {
			if result.Error != nil {
				t.Fatalf("task %s is not added: %s, %v", result.TaskID, result.Status, result.Error)
			}
		}
	}
}

// post calls an operation that the client has no method for.
func (s *server) post(t *testing.T, path string, body any) {
	t.Helper()
	if _, err := s.Call(t.Context(), http.MethodPost, path, nil, body, nil); err != nil {
		t.Fatalf("POST %s: %v", path, err)
	}
}

func (s *server) counts(t *testing.T, job batch.JobID) client.Counts {
	t.Helper()
	counts, err := s.TaskCounts(t.Context(), job)
	if err != nil {
		t.Fatalf("count tasks: %v", err)
	}
	return counts
}

// awaitCounts waits until the counts of a job are as wanted.
func (s *server) awaitCounts(t *testing.T, job batch.JobID, what string, wanted func(client.Counts) bool) {
	t.Helper()
	var counts client.Counts
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	err := poll(ctx, func(ctx context.Context) (done bool, err error) {
		counts, err = s.TaskCounts(ctx, job)
		return wanted(counts), err
	})
	if err != nil {
		t.Fatalf("waiting until %s: %v; counts are %+v", what, err, counts)
	}
}

func (s *server) awaitRunning(t *testing.T, job batch.JobID, tasks int) {
	t.Helper()
	s.awaitCounts(t, job, fmt.Sprintf("%d tasks run", tasks), func(c client.Counts) bool { return c.Running == int64(tasks) })
}

func (s *server) awaitCompleted(t *testing.T, job batch.JobID, tasks int) {
	t.Helper()
	s.awaitCounts(t, job, fmt.Sprintf("%d tasks are completed", tasks), func(c client.Counts) bool { return c.Completed >= int64(tasks) })
}

// awaitTask waits until a task is completed.
func (s *server) awaitTask(t *testing.T, job batch.JobID, id batch.TaskID) client.Task {
	t.Helper()
	var task client.Task
	await(t, fmt.Sprintf("task %s is completed", id), func(ctx context.Context) (done bool, err error) {
		task, err = s.Task(ctx, job, id)
		return task.State == batch.TaskCompleted, err
	})
	return task
}

// stdout is what a task has written so far; "" while there is no such file.
func (s *server) stdout(t *testing.T, job batch.JobID, task batch.TaskID) string {
	t.Helper()
	text, err := s.TaskFile(t.Context(), job, task, "stdout.txt")
	if err != nil && batch.CodeOf(err) == "" {
		t.Fatalf("read stdout of %s: %v", task, err)
	}
	return string(text)
}

// awaitStdout waits until a running task has written a text.
func (s *server) awaitStdout(t *testing.T, job batch.JobID, task batch.TaskID, text string) {
	t.Helper()
	await(t, fmt.Sprintf("task %s writes %q", task, text), func(context.Context) (bool, error) {
		return strings.Contains(s.stdout(t, job, task), text), nil
	})
}

// shell is a task that runs a script. The mark and the settings, KEY=VALUE, are in its environment.
func shell(id, mark, script string, settings ...string) map[string]any {
	environment := []map[string]any{{"name": markVariable, "value": mark}}
	for _, setting := range settings {
		name, value, _ := strings.Cut(setting, "=")
		environment = append(environment, map[string]any{"name": name, "value": value})
	}
	return map[string]any{
		"id": id, "commandLine": "/bin/sh -c '" + strings.ReplaceAll(script, "'", `'\''`) + "'",
		"environmentSettings": environment,
	}
}

// yard is a folder that a test shares with its tasks: a log to append to, and a gate that holds
// tasks up until it is opened.
type yard struct {
	folder string
	gate   *os.File
}

func newYard(t *testing.T) *yard {
	t.Helper()
	y := &yard{folder: openFolder(t)}
	t.Cleanup(func() {
		y.gate.Close()
		if err := os.RemoveAll(y.folder); err != nil {
			t.Error(err)
		}
	})
	for _, name := range []string{"log", "gate"} {
		y.share(t, name)
	}
	gate, err := os.Open(filepath.Join(y.folder, "gate"))
	if err == nil {
		err = syscall.Flock(int(gate.Fd()), syscall.LOCK_EX)
	}
	if err != nil {
		t.Fatal(err)
	}
	y.gate = gate
	return y
}

// share makes a file that every user may write.
func (y *yard) share(t *testing.T, name string) string {
	t.Helper()
	file := filepath.Join(y.folder, name)
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(file, 0o666); err != nil {
		t.Fatal(err)
	}
	return file
}

// settings tell a task where the yard is.
func (y *yard) settings() []string {
	return []string{"LOG=" + filepath.Join(y.folder, "log"), "GATE=" + filepath.Join(y.folder, "gate")}
}

// pass is the line of a script that waits at the gate.
const pass = `flock --shared "$GATE" true`

// open lets all tasks pass that are at the gate or come to it later.
func (y *yard) open(t *testing.T) {
	t.Helper()
	if err := syscall.Flock(int(y.gate.Fd()), syscall.LOCK_UN); err != nil {
		t.Fatal(err)
	}
}

// lines are the lines of the log.
func (y *yard) lines(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(y.folder, "log"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.FieldsFunc(string(text), func(c rune) bool { return c == '\n' })
}

// awaitLines waits until so many lines are in the log.
func (y *yard) awaitLines(t *testing.T, lines int) {
	t.Helper()
	await(t, fmt.Sprintf("tasks have logged %d lines", lines), func(context.Context) (bool, error) {
		return len(y.lines(t)) >= lines, nil
	})
}

// tally says how often each line is in the log, of lines without what follows their second word.
func (y *yard) tally(t *testing.T) map[string]int {
	t.Helper()
	times := map[string]int{}
	for _, line := range y.lines(t) {
		words := strings.Fields(line)
		times[strings.Join(words[:min(2, len(words))], " ")]++
	}
	return times
}
