package storage_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/batchyard/batchyard/e2e/nodelogs"
)

// insideVariable marks the process of the tests that has mounts of its own.
const insideVariable = "BATCHYARD_TEST_OWN_MOUNTS"

// TestFullDisks gives parts of a server small disks and fills them. The disks are memory, mounted
// where only the test sees it: the tests run once more, in a process with mounts of its own, and
// nothing is left when that ends.
func TestFullDisks(t *testing.T) {
	if os.Getenv(insideVariable) != "" {
		t.Run("under the database", fullDatabase)
		t.Run("under blobs", fullBlobs)
		t.Run("under a node", fullNode)
		return
	}
	t.Parallel()
	again := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestFullDisks$", "-test.v", "-test.timeout=3m")
	again.Env = append(os.Environ(), insideVariable+"=yes")
	again.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	text, err := again.CombinedOutput()
	switch {
	case errors.Is(err, syscall.EPERM):
		t.Skip("NO FULL DISKS: mounting one needs root")
	case errors.Is(err, syscall.EINVAL):
		t.Skip("NO FULL DISKS: the root folder is no mount of its own, as in a chroot")
	}
	t.Logf("%s", text)
	if err != nil {
		t.Error(err)
	}
	if strings.Contains(string(text), "NO FULL DISKS") {
		t.Skip("NO FULL DISKS: mounting one is forbidden here")
	}
}

// small makes a folder a disk of so many megabytes.
func small(t *testing.T, folder string, megabytes int) string {
	t.Helper()
	if err := os.MkdirAll(folder, 0o711); err != nil {
		t.Fatal(err)
	}
	err := syscall.Mount("small", folder, "tmpfs", 0, fmt.Sprintf("size=%dm,mode=711", megabytes))
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EACCES) {
		t.Skipf("NO FULL DISKS: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(folder, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return folder
}

// fill leaves no room on a disk, until the function that it gives is called.
func fill(t *testing.T, folder string) (empty func()) {
	t.Helper()
	name := filepath.Join(folder, "ballast")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, size := range []int{1 << 20, 4096} {
		for err == nil {
			_, err = f.Write(make([]byte, size))
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
		err = nil
	}
	empty = func() {
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
	}
	t.Cleanup(empty) // or a test that fails could not clean up
	return empty
}

// yard is a server whose disks get full.
type yard struct {
	*server
	data string
	log  *strings.Builder
}

// newYard makes a data folder, with small disks in it, and starts a server with a node over it.
func newYard(t *testing.T, disks map[string]int) *yard {
	t.Helper()
	// Not in /tmp or /var/tmp, of which nodes have their own: tests and tasks meet there.
	folder, err := os.MkdirTemp("/srv", "batchyard-full-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(folder); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(folder, 0o711); err != nil {
		t.Fatal(err)
	}
	y := &yard{data: filepath.Join(folder, "data")}
	for _, name := range []string{"", "blobs", "nodes"} {
		if megabytes := disks[name]; megabytes > 0 {
			small(t, filepath.Join(y.data, name), megabytes)
		}
	}
	y.start(t)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the server says:\n%s", y.log)
		}
		y.leave(t)
	})
	return y
}

func (y *yard) start(t *testing.T) {
	t.Helper()
	y.log = &strings.Builder{}
	s, err := launch(context.WithoutCancel(t.Context()), program(t), y.data, 1, y.log)
	if err != nil {
		t.Fatalf("%v\n%s", err, y.log)
	}
	y.server = s
}

// leave deletes the pool, so that no node is left, and ends the server.
func (y *yard) leave(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
	defer cancel()
	y.checkNodeLogs(t)
	_, _, _, err := y.send(ctx, request{method: http.MethodDelete, path: "/pools/local?" + version}, "leave")
	for err == nil {
		var entries []os.DirEntry
		if entries, err = os.ReadDir(filepath.Join(y.data, "nodes")); len(entries) == 0 {
			break
		}
		select {
		case <-ctx.Done():
			err = ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
	if err := errors.Join(err, y.end(syscall.SIGTERM)); err != nil {
		t.Error(err)
	}
}

// checkNodeLogs wants no panic in the logs of the node, while it is there.
func (y *yard) checkNodeLogs(t *testing.T) {
	t.Helper()
	agents, _ := filepath.Glob(filepath.Join(y.data, "nodes", "*", "state", "agent.log"))
	keepers, _ := filepath.Glob(filepath.Join(y.data, "nodes", "*", "state", "keeper", "keeper.log"))
	if len(agents) == 0 {
		t.Error("no log of a node is there")
	}
	for _, file := range append(agents, keepers...) {
		panics, err := nodelogs.In(file)
		if err != nil || len(panics) > 0 {
			t.Errorf("a process of a node has panicked: %v, %v", panics, err)
		}
	}
}

// must makes a request that succeeds.
func (y *yard) must(t *testing.T, q request) []byte {
	t.Helper()
	status, body, _, err := y.send(t.Context(), q, "must")
	if err != nil || status >= 300 {
		t.Fatalf("%s %s: %d %s %v", q.method, q.path, status, body, err)
	}
	return body
}

// refused tells whether a request is refused because a disk is full. Any other failure ends the test.
func (y *yard) refused(t *testing.T, q request, folder string) bool {
	t.Helper()
	status, body, header, err := y.send(t.Context(), q, "refused")
	switch {
	case err != nil:
		t.Fatalf("%s %s: %v", q.method, q.path, err)
	case status < 300 && !strings.Contains(string(body), "servererror"):
		return false
	case status != http.StatusServiceUnavailable || header.Get("Retry-After") == "" ||
		!strings.Contains(string(body), "ServerBusy") || !strings.Contains(string(body), "The disk under "+folder+" is full"):
		t.Fatalf("%s %s: %d, Retry-After %q, %s", q.method, q.path, status, header.Get("Retry-After"), body)
	}
	return true
}

func (y *yard) addJob(t *testing.T, id string) {
	t.Helper()
	y.must(t, request{method: http.MethodPost, path: "/jobs?" + version, body: `{"id":"` + id + `","poolInfo":{"poolId":"local"}}`})
}

func taskRequest(job, id, script string) request {
	body, _ := json.Marshal(map[string]any{"id": id, "commandLine": "/bin/sh -c '" + script + "'"}) // strings encode
	return request{method: http.MethodPost, path: "/jobs/" + job + "/tasks?" + version, body: string(body)}
}

// task is a task as the API shows it, in part.
type task struct {
	ID, State     string
	ExecutionInfo struct {
		ExitCode     *int
		RequeueCount int
		FailureInfo  *struct{ Category, Code, Message string }
	}
}

func (y *yard) task(t *testing.T, job, id string) (got task) {
	t.Helper()
	if err := json.Unmarshal(y.must(t, request{method: http.MethodGet, path: "/jobs/" + job + "/tasks/" + id + "?" + version}), &got); err != nil {
		t.Fatal(err)
	}
	return got
}

// await waits until something is so.
func await(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !is(); {
		if time.Now().After(end) {
			t.Fatalf("waited for %s until %s", patience, what)
		}
		select {
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (y *yard) awaitState(t *testing.T, job, id, state string) task {
	t.Helper()
	var got task
	await(t, id+" is "+state, func() bool { got = y.task(t, job, id); return got.State == state })
	return got
}

// awaitUnusable waits until the one node says in its errors why it takes no tasks.
func (y *yard) awaitUnusable(t *testing.T, code string) {
	t.Helper()
	await(t, "the node is unusable", func() bool {
		var list struct {
			Value []struct {
				State  string
				Errors []struct{ Code string }
			}
		}
		body := y.must(t, request{method: http.MethodGet, path: "/pools/local/nodes?" + version})
		if err := json.Unmarshal(body, &list); err != nil {
			t.Fatal(err)
		}
		return len(list.Value) == 1 && list.Value[0].State == "unusable" && len(list.Value[0].Errors) == 1 && list.Value[0].Errors[0].Code == code
	})
}

// lives fails the test if the server has ended.
func (y *yard) lives(t *testing.T) {
	t.Helper()
	select {
	case <-y.ended:
		t.Fatal("the server has ended")
	default:
	}
}

// fullDatabase fills the disk of the database while a task runs.
func fullDatabase(t *testing.T) {
	y := newYard(t, map[string]int{"": 40, "blobs": 16, "nodes": 64})
	gate := filepath.Join(filepath.Dir(y.data), "gate")
	y.addJob(t, "work")
	y.must(t, taskRequest("work", "long", "until [ -e "+gate+" ]; do sleep 0.1; done; exit 3"))
	y.awaitState(t, "work", "long", "running")
	y.must(t, request{method: http.MethodPut, path: "/" + storageAccount + "/there?restype=container"})
	put := request{method: http.MethodPut, path: "/" + storageAccount + "/there/blob", body: "content", header: map[string]string{"X-Ms-Blob-Type": "BlockBlob"}}
	y.must(t, put)

	accepted := 0
	add := func() bool {
		t.Helper()
		padded := taskRequest("work", fmt.Sprintf("t%04d", accepted), ": "+strings.Repeat("x", 6000))
		refused := y.refused(t, padded, y.data)
		if !refused {
			accepted++
		}
		return refused
	}
	for accepted < 50 {
		add()
	}
	empty := fill(t, y.data)
	for !add() {
		if accepted > 4000 {
			t.Fatal("the disk does not get full")
		}
	}
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(4 * time.Second); time.Now().Before(end); {
		add()
		y.refused(t, put, y.data)
		y.must(t, request{method: http.MethodGet, path: "/jobs/work?" + version})
		y.task(t, "work", "long")
		if got := y.must(t, request{method: http.MethodGet, path: put.path}); string(got) != "content" {
			t.Fatalf("the blob reads %q", got)
		}
	}
	y.lives(t)
	empty()

	await(t, "there is room again", func() bool { return !add() })
	got := y.awaitState(t, "work", "long", "completed")
	if got.ExecutionInfo.ExitCode == nil || *got.ExecutionInfo.ExitCode != 3 || got.ExecutionInfo.RequeueCount != 0 {
		t.Errorf("the task that ended meanwhile: %+v", got.ExecutionInfo)
	}
	for _, check := range []string{"as it is", "after a crash"} {
		tasks, err := list[task](t.Context(), y.server, "/jobs/work/tasks?"+version)
		if err != nil || len(tasks) != accepted+1 {
			t.Errorf("%s: %d tasks of %d, %v", check, len(tasks), accepted+1, err)
		}
		if check == "as it is" {
			if err := y.end(syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			y.start(t)
		}
	}
	y.awaitState(t, "work", fmt.Sprintf("t%04d", accepted-1), "completed")
	t.Logf("%d tasks were accepted, none was lost", accepted)
}

// fullBlobs fills the disk of content.
func fullBlobs(t *testing.T) {
	y := newYard(t, map[string]int{"blobs": 4})
	folder := filepath.Join(y.data, "blobs")
	base := "/" + storageAccount + "/there"
	y.must(t, request{method: http.MethodPut, path: base + "?restype=container"})
	content := func(n int) string { return strings.Repeat(fmt.Sprintf("%06d,", n), 20_000) }
	put := func(n int) request {
		return request{method: http.MethodPut, path: base + "/b" + strconv.Itoa(n), body: content(n), header: map[string]string{"X-Ms-Blob-Type": "BlockBlob"}}
	}
	accepted := 0
	for !y.refused(t, put(accepted), folder) {
		if accepted++; accepted > 100 {
			t.Fatal("the disk does not get full")
		}
	}
	check := func() {
		t.Helper()
		for n := range accepted {
			if got := y.must(t, request{method: http.MethodGet, path: base + "/b" + strconv.Itoa(n)}); string(got) != content(n) {
				t.Errorf("blob %d has %d bytes", n, len(got))
			}
		}
		parts, err := filepath.Glob(filepath.Join(folder, "*", "*"))
		if err != nil || len(parts) != accepted {
			t.Errorf("%d files for %d blobs: %v %v", len(parts), accepted, parts, err)
		}
	}
	check()
	block := put(0)
	block.path += "?comp=block&blockid=MDAx"
	if !y.refused(t, block, folder) || !y.refused(t, put(0), folder) {
		t.Error("a full disk takes more")
	}
	inline := put(0)
	inline.path, inline.body = base+"/little", "kept in the database"
	y.must(t, inline)
	check()
	y.lives(t)

	y.must(t, request{method: http.MethodDelete, path: base + "/b" + strconv.Itoa(accepted-1)})
	if y.refused(t, put(accepted-1), folder) {
		t.Error("a deleted blob makes no room")
	}
	check()
}

// fullNode fills the disk of a node.
func fullNode(t *testing.T) {
	y := newYard(t, map[string]int{"nodes": 24})
	folder := filepath.Join(y.data, "nodes")
	y.addJob(t, "work")
	y.must(t, taskRequest("work", "first", "echo hello"))
	y.awaitState(t, "work", "first", "completed")

	// Who fills the disk does not keep it full for those that come after.
	y.must(t, taskRequest("work", "greedy", "head -c 100000000 /dev/zero >big"))
	y.wantFull(t, "greedy")
	y.must(t, taskRequest("work", "next", "head -c 10000000 /dev/zero >big"))
	y.wantSuccess(t, "next")

	// What runs goes on and is told to the server. The node takes nothing more
	// and says why, until there is room again.
	gate := filepath.Join(filepath.Dir(y.data), "gate")
	y.must(t, taskRequest("work", "long", "until [ -e "+gate+" ]; do sleep 0.1; done"))
	y.awaitState(t, "work", "long", "running")
	empty := fill(t, folder)
	y.must(t, taskRequest("work", "unlucky", "echo hello"))
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	y.wantSuccess(t, "long")
	y.awaitUnusable(t, "DiskFull")
	y.lives(t)
	empty()
	y.must(t, taskRequest("work", "after", "echo hello"))
	y.wantSuccess(t, "after")
	y.wantSuccess(t, "unlucky")
}

// wantFull waits for the end of a task, which must be that the node's disk is full.
func (y *yard) wantFull(t *testing.T, id string) {
	t.Helper()
	info := y.awaitState(t, "work", id, "completed").ExecutionInfo
	if f := info.FailureInfo; f == nil || f.Code != "DiskFull" || f.Category != "UserError" {
		t.Errorf("task %s ended with %+v, want DiskFull of the user", id, f)
	}
}

func (y *yard) wantSuccess(t *testing.T, id string) {
	t.Helper()
	info := y.awaitState(t, "work", id, "completed").ExecutionInfo
	if info.ExitCode == nil || *info.ExitCode != 0 || info.FailureInfo != nil {
		t.Errorf("task %s ended with %+v", id, info.FailureInfo)
	}
}
