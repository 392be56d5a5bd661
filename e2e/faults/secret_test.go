package faults_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/batchyard/batchyard/batch"
)

// probe is a script that says what it can reach. FILES and PROCESSES are lists.
const probe = `
	for file in $FILES; do
		head -c 1 "$file" >/dev/null 2>&1 && echo "read $file"
		ls "$file/" >/dev/null 2>&1 && echo "list $file"
		(: >>"$file") 2>/dev/null && echo "write $file"
	done
	for process in $PROCESSES; do
		kill -0 "$process" 2>/dev/null && echo "signal $process"
		head -c 1 "/proc/$process/environ" >/dev/null 2>&1 && echo "read environment of $process"
		head -c 1 "/proc/$process/mem" >/dev/null 2>&1 && echo "read memory of $process"
		ls "/proc/$process/fd/" >/dev/null 2>&1 && echo "list descriptors of $process"
	done
	echo searched`

// TestTasksSeeNothingOfOthers looks around from inside tasks, where tasks have users of their own.
func TestTasksSeeNothingOfOthers(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("tasks have users of their own only if the server is root")
	}
	s := newServer(t, options{})
	node := s.addPool(t, "open", 1, map[string]any{"taskSlotsPerNode": 4})[0]
	s.addJob(t, "look", "open")
	state := filepath.Join(s.nodeFolder(node), "state")

	t.Run("not the server, the agent and their secrets", func(t *testing.T) {
		t.Parallel()
		files := []string{
			s.configFile(), s.logFile(), s.folder, s.data,
			filepath.Join(s.data, "batchyard.db"), filepath.Join(s.data, "batchyard.db-wal"), filepath.Join(s.data, "blobs"),
			filepath.Join(s.data, "tls", "ca.key"), filepath.Join(s.data, "nodes"), s.nodeFolder(node),
			state, filepath.Join(state, "node.json"), filepath.Join(state, "agent.lock"), filepath.Join(state, "agent.log"),
			filepath.Join(state, "keeper"), filepath.Join(state, "keeper", "keeper.sock"),
		}
		for _, file := range files[:len(files)-1] {
			if _, err := os.Stat(file); err != nil {
				t.Errorf("the test looks for what is not there: %v", err)
			}
		}
		processes := []string{fmt.Sprint(s.command.Process.Pid), fmt.Sprint(s.agent(node)), fmt.Sprint(s.keeper(node))}
		s.addTasks(t, "look", shell("server", "look", probe, "FILES="+strings.Join(files, " "), "PROCESSES="+strings.Join(processes, " ")))
		s.checkNothingFound(t, "server")
	})
	t.Run("not the tasks of other users", func(t *testing.T) {
		t.Parallel()
		y := newYard(t)
		s.addTasks(t, "look", ownUser(shell("vault", "look", `echo secret >secret; chmod 666 secret; echo locked; `+pass+`; exit 0`, y.settings()...)))
		s.awaitStdout(t, "look", "vault", "locked")
		folder := filepath.Join(s.nodeFolder(node), "root", "workitems", "look", "job-1", "vault")
		found := []string{folder, filepath.Join(folder, "wd"), filepath.Join(folder, "wd", "secret"), filepath.Join(folder, "stdout.txt")}
		if _, err := os.Stat(found[2]); err != nil {
			t.Fatal(err)
		}
		s.addTasks(t, "look",
			ownUser(shell("thief", "look", probe, "FILES="+strings.Join(found, " "))),
			shell("pool-thief", "look", probe, "FILES="+strings.Join(found, " ")))
		s.checkNothingFound(t, "thief")
		s.checkNothingFound(t, "pool-thief")
		y.open(t)
		ending{}.check(t, s.awaitTask(t, "look", "vault"))
		// Users of tasks are few, so they serve one task after another.
		for i := range 4 {
			id := fmt.Sprintf("late-thief-%d", i)
			s.addTasks(t, "look", ownUser(shell(id, "look", probe, "FILES="+strings.Join(found, " "))))
			s.checkNothingFound(t, batch.TaskID(id))
		}
	})
	t.Run("but themselves", func(t *testing.T) {
		t.Parallel()
		s.addTasks(t, "look", shell("mirror", "look", `touch mine; FILES="$PWD/mine"; PROCESSES=$$;`+probe))
		s.awaitTask(t, "look", "mirror")
		if text := s.stdout(t, "look", "mirror"); !strings.HasPrefix(text, "read ") || strings.Count(text, "\n") < 5 {
			t.Errorf("the probe finds of its own task only:\n%s", text)
		}
	})
	t.Run("and have neither powers nor what the agent was given", func(t *testing.T) {
		t.Parallel()
		s.addTasks(t, "look",
			map[string]any{"id": "environment", "commandLine": "/usr/bin/env", "environmentSettings": []map[string]any{{"name": "OWN", "value": "mine"}}},
			shell("powers", "look", `grep -E "^(Uid|Gid|Groups|CapEff|CapPrm|NoNewPrivs)" /proc/self/status; ls /proc/self/fd`))
		s.checkEnvironment(t, "environment")
		s.awaitTask(t, "look", "powers")
		s.checkPowers(t, s.stdout(t, "look", "powers"))
	})
}

// ownUser makes a task run as a user of its own.
func ownUser(task map[string]any) map[string]any {
	task["userIdentity"] = map[string]any{"autoUser": map[string]any{"scope": "task", "elevationLevel": "nonadmin"}}
	return task
}

// checkNothingFound waits for a probe and wants it to have found nothing.
func (s *server) checkNothingFound(t *testing.T, id batch.TaskID) {
	t.Helper()
	ending{}.check(t, s.awaitTask(t, "look", id))
	if text := s.stdout(t, "look", id); text != "searched\n" {
		t.Errorf("task %s could:\n%s", id, text)
	}
}

// checkEnvironment wants what the protocol gives, what the task asked for, and nothing else.
func (s *server) checkEnvironment(t *testing.T, id batch.TaskID) {
	t.Helper()
	ending{}.check(t, s.awaitTask(t, "look", id))
	text := s.stdout(t, "look", id)
	usual := []string{
		"PATH", "HOME", "USER", "LOGNAME", "LANG", "OWN", "BATCHYARD_TASK_ATTEMPT",
		// How to reach others, as the operator gave it to the server: docs/configuration.md.
		"SSL_CERT_FILE", "SSL_CERT_DIR", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
	}
	for _, setting := range strings.Split(strings.TrimSpace(text), "\n") {
		name, _, _ := strings.Cut(setting, "=")
		if !strings.HasPrefix(name, "AZ_BATCH_") && !slices.Contains(usual, name) {
			t.Errorf("the environment has %s", setting)
		}
	}
	if strings.Contains(text, canary) || !strings.Contains(text, "OWN=mine\n") {
		t.Errorf("the environment is:\n%s", text)
	}
}

// checkPowers wants no user of the machine, no capability, no way to new ones, and no open file
// but the three and the one by which ls reads the list.
func (s *server) checkPowers(t *testing.T, text string) {
	t.Helper()
	for _, want := range []string{"CapPrm:\t0000000000000000\n", "CapEff:\t0000000000000000\n", "NoNewPrivs:\t1\n", "\n0\n1\n2\n3\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in what the task says of itself:\n%s", want, text)
		}
	}
	if !strings.HasSuffix(text, "\n3\n") || strings.Contains(text, "Uid:\t0") || strings.Contains(text, "Gid:\t0") {
		t.Errorf("the task says of itself:\n%s", text)
	}
}
