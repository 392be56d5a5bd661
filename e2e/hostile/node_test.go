package hostile_test

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/client"
)

// addNode adds a pool of one node and a job on it, both of one name, and waits for the node.
func (s *server) addNode(t *testing.T, name string, changes map[string]any) batch.NodeID {
	t.Helper()
	spec := map[string]any{
		"id": name, "vmSize": "custom_2c_2g_2g", "targetDedicatedNodes": 1, "taskSlotsPerNode": 8,
		"virtualMachineConfiguration": map[string]any{
			"nodeAgentSKUId": "batch.node.ubuntu 22.04",
			"imageReference": map[string]any{"publisher": "canonical", "offer": "0001-com-ubuntu-server-jammy", "sku": "22_04-lts"},
		},
	}
	maps.Copy(spec, changes)
	if err := s.AddPool(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	s.pools = append(s.pools, batch.PoolID(name))
	if err := s.AddJob(t.Context(), batch.JobID(name), batch.PoolID(name)); err != nil {
		t.Fatal(err)
	}
	var id batch.NodeID
	s.await(t, "the node is idle", func(ctx context.Context) (bool, error) {
		nodes, err := s.Nodes(ctx, batch.PoolID(name))
		if err != nil || len(nodes) != 1 {
			return false, err
		}
		id = nodes[0].ID
		return nodes[0].State == batch.NodeIdle, nil
	})
	return id
}

func (s *server) nodeFolder(node batch.NodeID) string {
	return filepath.Join(s.data, "nodes", string(node))
}

// folderOf is a task's directory on a node.
func (s *server) folderOf(node batch.NodeID, job, task string) string {
	return filepath.Join(s.nodeFolder(node), "root", "workitems", job, "job-1", task)
}

// role is a task that runs the test program in a role; settings are KEY=VALUE.
func role(id, program, role string, settings ...string) map[string]any {
	return command(id, program, append(settings, roleVariable+"="+role)...)
}

func command(id, line string, settings ...string) map[string]any {
	environment := []map[string]any{}
	for _, setting := range settings {
		name, value, _ := strings.Cut(setting, "=")
		environment = append(environment, map[string]any{"name": name, "value": value})
	}
	return map[string]any{"id": id, "commandLine": line, "environmentSettings": environment}
}

func shell(id, script string, settings ...string) map[string]any {
	return command(id, "/bin/sh -c '"+strings.ReplaceAll(script, "'", `'\''`)+"'", settings...)
}

// as makes a task run as an auto user.
func as(task map[string]any, scope, level string) map[string]any {
	task["userIdentity"] = map[string]any{"autoUser": map[string]any{"scope": scope, "elevationLevel": level}}
	return task
}

func (s *server) addTask(t *testing.T, job string, task map[string]any) {
	t.Helper()
	if err := s.AddTask(t.Context(), batch.JobID(job), task); err != nil {
		t.Fatal(err)
	}
}

// awaitTask waits until a task is completed.
func (s *server) awaitTask(t *testing.T, job, id string) client.Task {
	t.Helper()
	var task client.Task
	s.await(t, fmt.Sprintf("task %s is completed", id), func(ctx context.Context) (done bool, err error) {
		task, err = s.Task(ctx, batch.JobID(job), batch.TaskID(id))
		return task.State == batch.TaskCompleted, err
	})
	return task
}

// perform adds a task, waits for its success and gives its output.
func (s *server) perform(t *testing.T, job string, task map[string]any) string {
	t.Helper()
	id := task["id"].(string)
	s.addTask(t, job, task)
	if info := s.awaitTask(t, job, id).ExecutionInfo; info.Result != batch.ResultSuccess {
		text, _ := s.TaskFile(t.Context(), batch.JobID(job), batch.TaskID(id), "stderr.txt")
		t.Fatalf("task %s failed: %+v: %s", id, info.FailureInfo, text)
	}
	return s.stdout(t, job, id)
}

func (s *server) stdout(t *testing.T, job, task string) string {
	t.Helper()
	text, err := s.TaskFile(t.Context(), batch.JobID(job), batch.TaskID(task), "stdout.txt")
	if err != nil && batch.CodeOf(err) == "" {
		t.Fatalf("read stdout of %s: %v", task, err)
	}
	return string(text)
}

// awaitStdout waits until a running task has written a text.
func (s *server) awaitStdout(t *testing.T, job, task, text string) {
	t.Helper()
	s.await(t, fmt.Sprintf("task %s writes %q", task, text), func(context.Context) (bool, error) {
		return strings.Contains(s.stdout(t, job, task), text), nil
	})
}

// listed are the names of all pages of a list of files; the path has a query.
func (s *server) listed(t *testing.T, path string) []string {
	t.Helper()
	var names []string
	for pages := 0; path != ""; pages++ {
		a := s.send(t, s.request(t, "GET", path, ""))
		accepted(200).check(t, a, faultOfBatch)
		var page struct {
			Value []struct{ Name string }
			Next  string `json:"odata.nextLink"`
		}
		decode(t, a.body, &page)
		for _, file := range page.Value {
			names = append(names, file.Name)
		}
		if path = strings.TrimPrefix(page.Next, s.Endpoint); t.Failed() || pages > 300 {
			t.Fatalf("no end of the list after %d names", len(names))
		}
	}
	if again := slices.Compact(slices.Sorted(slices.Values(names))); len(again) != len(names) {
		t.Errorf("of %d names %d are different ones", len(names), len(again))
	}
	return names
}
