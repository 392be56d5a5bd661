package faults_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/client"
)

// newMark is a name that no other test has.
func newMark() string { return strings.ToLower(rand.Text()[:12]) }

// ward is a node with one slot, in a pool of its own, and a task that behaves badly on it.
type ward struct {
	*server
	pool batch.PoolID
	job  batch.JobID
	node batch.NodeID
	mark string
}

const naughty batch.TaskID = "naughty"

// TestNodesKeepTheirWord has tasks do what they should not. Each must end as the protocol says,
// leave no process behind, and its node, with the same agent and keeper, must run the next task.
func TestNodesKeepTheirWord(t *testing.T) {
	t.Parallel()
	s := newServer(t, options{})
	for _, test := range []struct {
		name, size, script string
		root               bool // without it the limit cannot be enforced
		memory             bool // it is about the limit of memory, for which control groups are needed
		constraints        map[string]any
		during             func(t *testing.T, w *ward) // while the task runs
		want               ending
		after              func(t *testing.T, w *ward) // when it is completed
	}{
		{
			name: "daemons end with their task",
			script: `
				setsid sh -c "setsid sleep 1000 & setsid sleep 1000 &" &
				nohup sleep 1000 >/dev/null 2>&1 &
				(trap "" HUP TERM INT; setsid sh -c "trap '' TERM; sleep 1000; sleep 1000") &
				(cd /; exec </dev/null >/dev/null 2>&1; (setsid sleep 1000 &) ) &
				sleep 0.3
				exit 3`,
			want: ending{code: 3, failure: batch.FailureExitCode},
		},
		{
			name:   "a task that ignores signals is terminated",
			script: `trap "" TERM INT HUP QUIT; (trap "" TERM; while :; do sleep 1000; done) & echo deaf; while :; do sleep 1000; done`,
			during: func(t *testing.T, w *ward) {
				w.awaitStdout(t, w.job, naughty, "deaf")
				w.post(t, fmt.Sprintf("/jobs/%s/tasks/%s/terminate", w.job, naughty), nil)
				w.awaitTask(t, w.job, naughty)
				awaitNone(t, w.mark) // who terminates a task does not wait for its node
			},
			want: ending{code: noCode, failure: batch.FailureTaskEnded},
		},
		{
			name:   "a task that fills the memory is ended",
			root:   true,
			memory: true,
			script: `sleep 1000 & head -c 3G /dev/zero | tail >/dev/null`,
			want:   ending{code: 128 + 9, failure: batch.FailureOutOfMemory},
		},
		{
			name: "a task that fills the disk is ended",
			size: "custom_1c_1g_1g",
			script: `
				for i in $(seq 1 12); do head -c 100M /dev/zero >"file-$i"; done
				sleep 1000`,
			want: ending{code: 128 + 9, failure: batch.FailureDiskFull}, // and makes room again
		},
		{
			name:   "a file cannot grow beyond the disk",
			size:   "custom_1c_1g_1g",
			script: `head -c 1500M /dev/zero >file`,
			want:   ending{code: 128 + 25, failure: batch.FailureExitCode},
			after:  deleteTask,
		},
		{
			name:        "a task that takes too long is ended",
			script:      `trap "" TERM; setsid sleep 1000 & while :; do sleep 1000; done`,
			constraints: map[string]any{"maxWallClockTime": "PT1S"},
			want:        ending{code: 128 + 9, failure: batch.FailureWallClock},
		},
		{
			name:   "a gigabyte of output is kept",
			script: `yes "a line of output" | head -c 1G`,
			want:   ending{code: 0},
			after: func(t *testing.T, w *ward) {
				if length := w.outputLength(t); length != 1<<30 {
					t.Errorf("stdout.txt has %d bytes, want %d", length, 1<<30)
				}
				deleteTask(t, w)
			},
		},
		{
			name: "a fork bomb meets a limit",
			root: true,
			size: "custom_1c_8g",
			script: `
				mkfifo never
				while :; do { read line <never; } & done`,
			want: ending{code: 2, failure: batch.FailureExitCode},
			after: func(t *testing.T, w *ward) {
				text, err := w.TaskFile(t.Context(), w.job, naughty, "stderr.txt")
				if err != nil || !strings.Contains(strings.ToLower(string(text)), "cannot fork") {
					t.Errorf("stderr.txt is %q, error %v", text, err)
				}
			},
		},
		{
			name:   "a task deletes its directory",
			script: `rm -rf "$AZ_BATCH_TASK_DIR"/* "$AZ_BATCH_TASK_DIR" 2>/dev/null; echo nobody reads this; exit 5`,
			want:   ending{code: 5, failure: batch.FailureExitCode},
			after:  deleteTask,
		},
		{
			name:   "a task closes its output",
			script: `exec <&- >&- 2>&-; sleep 0.2; exit 4`,
			want:   ending{code: 4, failure: batch.FailureExitCode},
		},
		{
			name:   "a task closes its directory to everybody",
			root:   true,
			script: `echo before; mkdir a; echo x >a/b; chmod -R 000 "$AZ_BATCH_TASK_DIR"; exit 6`,
			want:   ending{code: 6, failure: batch.FailureExitCode},
			after: func(t *testing.T, w *ward) {
				if text := w.stdout(t, w.job, naughty); text != "before\n" {
					t.Errorf("stdout.txt is %q", text)
				}
				deleteTask(t, w)
			},
		},
		{
			name:   "a program that is not there is said to be so",
			script: "", // see below: its command line is another
			want:   ending{code: noCode, failure: batch.FailureProgramNotFound},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if test.root && os.Geteuid() != 0 {
				t.Skip("the server is not root")
			}
			w := s.newWard(t, test.size)
			if test.memory && s.says(t, "memory limits are not enforced") {
				t.Skip("NO LIMIT OF MEMORY: this machine offers no control groups, and the server says so")
			}
			agent, keeper := s.agent(w.node), s.keeper(w.node)
			task := shell(string(naughty), w.mark, test.script)
			if test.script == "" {
				task["commandLine"] = "no-such-program"
			}
			if test.constraints != nil {
				task["constraints"] = test.constraints
			}
			s.addTasks(t, w.job, task)
			if test.during != nil {
				test.during(t, w)
			}
			test.want.check(t, s.awaitTask(t, w.job, naughty))
			if left := marked(w.mark); len(left) > 0 {
				t.Errorf("processes %v are left of a completed task", left)
			}
			if test.after != nil {
				test.after(t, w)
			}
			w.runNext(t)
			if s.agent(w.node) != agent || s.keeper(w.node) != keeper {
				t.Errorf("agent and keeper were processes %d and %d, now they are %d and %d", agent, keeper, s.agent(w.node), s.keeper(w.node))
			}
		})
	}
}

// newWard makes a pool with one node.
func (s *server) newWard(t *testing.T, size string) *ward {
	t.Helper()
	mark := newMark()
	w := &ward{server: s, mark: mark, pool: batch.PoolID(mark), job: batch.JobID(mark)}
	changes := map[string]any{}
	if size != "" {
		changes["vmSize"] = size
	}
	w.node = s.addPool(t, w.pool, 1, changes)[0]
	s.addJob(t, w.job, w.pool)
	return w
}

// runNext runs a task that behaves, long enough for the node to find fault with it.
func (w *ward) runNext(t *testing.T) {
	t.Helper()
	w.addTasks(t, w.job, shell("next", w.mark, `sleep 1.5; echo well`))
	task := w.awaitTask(t, w.job, "next")
	ending{}.check(t, task)
	if task.NodeInfo.Node != w.node {
		t.Errorf("the next task ran on node %s, not %s", task.NodeInfo.Node, w.node)
	}
	if text := w.stdout(t, w.job, "next"); text != "well\n" {
		t.Errorf("the next task wrote %q", text)
	}
}

// deleteTask deletes the task and waits until its files are gone from the node.
func deleteTask(t *testing.T, w *ward) {
	t.Helper()
	path := fmt.Sprintf("/jobs/%s/tasks/%s", w.job, naughty)
	if _, err := w.Call(t.Context(), http.MethodDelete, path, nil, nil, nil); err != nil {
		t.Fatalf("delete task: %v", err)
	}
	files := fmt.Sprintf("/pools/%s/nodes/%s/files", w.pool, w.node)
	folder := fmt.Sprintf("workitems/%s/job-1/%s", w.job, naughty)
	await(t, "the files of the task are gone", func(ctx context.Context) (bool, error) {
		var list struct {
			Value []struct {
				Name string `json:"name"`
			} `json:"value"`
		}
		_, err := w.Call(ctx, http.MethodGet, files, url.Values{"recursive": {"true"}}, nil, &list)
		for _, file := range list.Value {
			if strings.HasPrefix(file.Name, folder) {
				return false, err
			}
		}
		return true, err
	})
}

// outputLength reads all that the task has written.
func (w *ward) outputLength(t *testing.T) int64 {
	t.Helper()
	body, err := w.Stream(t.Context(), fmt.Sprintf("/jobs/%s/tasks/%s/files/stdout.txt", w.job, naughty), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	length, err := io.Copy(io.Discard, body)
	if err != nil {
		t.Error(err)
	}
	return length
}

// ending is how a task should have ended, after one run; the zero value is success.
type ending struct {
	code    int
	failure batch.FailureCode
}

// noCode: the task has no exit code.
const noCode = -1

func (e ending) check(t *testing.T, task client.Task) {
	t.Helper()
	info := task.ExecutionInfo
	var got ending
	got.code = noCode
	if info.ExitCode != nil {
		got.code = *info.ExitCode
	}
	if info.FailureInfo != nil {
		got.failure = info.FailureInfo.Code
	}
	result := batch.ResultSuccess
	if e.failure != "" {
		result = batch.ResultFailure
	}
	if task.State != batch.TaskCompleted || got != e || info.Result != result || info.RetryCount != 0 || info.RequeueCount != 0 {
		t.Errorf("task %s ended as %s, want %+v", task.ID, describe(task), e)
	}
	if f := info.FailureInfo; f != nil && (f.Category != batch.UserError || f.Message == "") {
		t.Errorf("task %s failed by the user's fault, which %+v does not say", task.ID, *f)
	}
}

// describe is what a test prints of a task.
func describe(task client.Task) string {
	info := task.ExecutionInfo
	code, failure := "none", "none"
	if info.ExitCode != nil {
		code = fmt.Sprint(*info.ExitCode)
	}
	if f := info.FailureInfo; f != nil {
		var details []string
		for _, d := range f.Details {
			details = append(details, d.Name+"="+d.Value)
		}
		slices.Sort(details)
		failure = fmt.Sprintf("%s %s (%s; %s)", f.Category, f.Code, f.Message, strings.Join(details, "; "))
	}
	return fmt.Sprintf("state %s, exit code %s, result %s, failure %s, retries %d, requeues %d",
		task.State, code, info.Result, failure, info.RetryCount, info.RequeueCount)
}
