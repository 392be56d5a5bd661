package hostile_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/batchyard/batchyard/auth"
	"github.com/batchyard/batchyard/batch"
)

// containerURL makes a container and gives its address with a signature for uploads.
func (s *server) containerURL(t *testing.T, name string) string {
	t.Helper()
	s.mustStore(t, http.MethodPut, "/"+name+"?restype=container", "")
	query, err := auth.SignServiceSAS(auth.SAS{Permissions: "rwcl", Expiry: time.Now().Add(time.Hour)}, auth.Target{Account: storageAccount, Container: name}, s.storageKey)
	if err != nil {
		t.Fatal(err)
	}
	return s.storage + "/" + storageAccount + "/" + name + "?" + query
}

// TestUploads asks for output files that are traps, each by a task of its own.
func TestUploads(t *testing.T) {
	t.Parallel()
	s, program := newServer(t, ""), taskProgram(t)
	node := s.addNode(t, "yard", nil)
	s.perform(t, "yard", shell("victim", "echo "+canary+" >secret; chmod 644 secret"))
	url := s.containerURL(t, "box")
	output := func(pattern, path string) map[string]any {
		return map[string]any{
			"filePattern": pattern, "destination": map[string]any{"container": map[string]any{"containerUrl": url, "path": path}},
			"uploadOptions": map[string]any{"uploadCondition": "taskcompletion"},
		}
	}
	nodeFolder := s.nodeFolder(node)
	patterns := []string{
		"out", "out-absolute", "out-shadow", "out-canary", "out-state", "out-state-absolute", "out-secret", "out-device", "out-self", "loop", "pipe", "socket",
		"out-other/secret", "out-up-up/victim/wd/secret", "../../victim/wd/secret", "../../victim/wd/*", "../../*/wd/secret", "/etc/passwd", "/etc/pass*",
		nodeFolder + "/state/node.json", nodeFolder + "/root/../state/*", nodeFolder + "/root/shared/../../state/node.json",
		nodeFolder + "/root/workitems/yard/job-1/victim/wd/secret", `..\..\victim\wd\secret`, "[", "{a,b", strings.Repeat("../", 100) + "etc/passwd",
		"out-root/etc/*", "out-other/*", "out-up-up/*/wd/secret", "out-process/etc/passw*", "loop-a/*", "out-sh*", "out*", "pip?", "sock*", "nothing", "../nothing/*",
	}
	for i, pattern := range patterns {
		t.Run(clip(pattern), func(t *testing.T) {
			t.Parallel()
			id := fmt.Sprintf("evil-%d", i)
			task := role(id, program, "traps", "CANARY="+filepath.Join(s.folder, "canary"))
			task["outputFiles"] = []any{output(pattern, id)}
			s.addTask(t, "yard", task)
			info := s.awaitTask(t, "yard", id).ExecutionInfo
			// A pattern that looks outside fails the task; a link that leads there is no file of it.
			outside := strings.Contains(pattern, "../../") || strings.HasPrefix(pattern, "/")
			switch failure := info.FailureInfo; {
			case failure == nil && outside:
				t.Error("the task has not failed")
			case failure != nil && (failure.Code != batch.FailureUpload || failure.Category != batch.UserError):
				t.Errorf("failure is %+v", failure)
			case strings.Contains(fmt.Sprint(failure), "sig="):
				t.Errorf("the failure tells the signature: %v", failure)
			}
		})
	}
	t.Run("and files of the task with odd names", func(t *testing.T) {
		t.Parallel()
		task := role("odd", program, "tree", "CANARY=x")
		task["outputFiles"] = []any{output("hard", "odd/hard"), output("folder/**", "odd/in"), output("odd-*", "odd")}
		s.addTask(t, "yard", task)
		// A name that is no UTF-8 can be no blob's, and no signature reaches one with a line break.
		info := s.awaitTask(t, "yard", "odd").ExecutionInfo
		if info.FailureInfo == nil || info.FailureInfo.Code != batch.FailureUpload && info.FailureInfo.Code != batch.FailureUploadAccessDenied {
			t.Errorf("failure is %+v", info.FailureInfo)
		}
	})
	t.Cleanup(func() { s.checkBlobs(t, "box") })
}

// checkBlobs wants no blob that holds what is not the task's.
func (s *server) checkBlobs(t *testing.T, container string) {
	t.Helper()
	r, err := http.NewRequest(http.MethodGet, s.storage+"/"+storageAccount+"/"+container+"?restype=container&comp=list", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("x-ms-version", "2021-12-02")
	if err := auth.SignBlob(r, storageAccount, s.storageKey, time.Now()); err != nil {
		t.Fatal(err)
	}
	list := s.send(t, r)
	if list.status != 200 || strings.Contains(list.body, "evil-") || !strings.Contains(list.body, "odd/hard") || !strings.Contains(list.body, "odd/in/folder/file") {
		t.Errorf("status %d, blobs are %s", list.status, clip(list.body))
	}
	// Blobs are files of the server; small ones are in the database.
	err = filepath.WalkDir(s.data, func(path string, entry os.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() || strings.HasPrefix(path, filepath.Join(s.data, "nodes")) {
			return nil //nolint:nilerr // files come and go
		}
		text, err := os.ReadFile(path)
		if err == nil && (strings.Contains(string(text), canary+"\n") || strings.Contains(string(text), "root:x:0")) {
			t.Errorf("%s has what is not the task's", path)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// filesWith are the files below a folder that have a text in their first megabyte.
func filesWith(t *testing.T, folder, text string) (files []string) {
	t.Helper()
	err := filepath.WalkDir(folder, func(path string, entry os.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		file, err := os.Open(path)
		if err != nil {
			return err
		}
		defer file.Close()
		start, err := io.ReadAll(io.LimitReader(file, 1<<20))
		if strings.Contains(string(start), text) {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	return files
}

// TestFetches has tasks fetch from a server that means them no good.
func TestFetches(t *testing.T) {
	t.Parallel()
	stop := make(chan struct{})
	var reached atomic.Int64
	inner := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		reached.Add(1)
		io.WriteString(w, canary)
	}))
	evil := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch name := strings.TrimPrefix(r.URL.Path, "/"); name {
		case "good":
			io.WriteString(w, "good")
		case "file":
			w.Header().Set("Location", "file:///etc/passwd")
			w.WriteHeader(http.StatusFound)
		case "inner":
			http.Redirect(w, r, inner.URL, http.StatusFound)
		case "metadata":
			http.Redirect(w, r, "http://169.254.169.254/latest/meta-data", http.StatusTemporaryRedirect)
		case "round":
			http.Redirect(w, r, "/round", http.StatusFound)
		case "huge":
			w.Header().Set("Content-Length", "4611686018427387904")
			io.WriteString(w, "x")
		case "endless":
			for text := make([]byte, 1<<20); ; {
				if _, err := w.Write(text); err != nil {
					return
				}
			}
		case "slow":
			io.WriteString(w, "x")
			w.(http.Flusher).Flush()
			select {
			case <-stop:
			case <-r.Context().Done():
			}
		case "headers":
			for i := range 1000 {
				w.Header().Set(fmt.Sprintf("X-%d", i), strings.Repeat("x", 64<<10))
			}
		case "short":
			w.Header().Set("Content-Length", "100")
			io.WriteString(w, "short")
		case "zipped":
			w.Header().Set("Content-Encoding", "gzip")
			io.WriteString(w, "no gzip")
		default:
			conn, _, _ := w.(http.Hijacker).Hijack()
			io.WriteString(conn, "EHLO\r\n\r\n")
			conn.Close()
		}
	}))
	t.Cleanup(func() { close(stop); evil.CloseClientConnections(); evil.Close(); inner.Close() })
	s := newServerOf(t, "", nil, strings.TrimPrefix(evil.URL, "http://"))
	node := s.addNode(t, "yard", map[string]any{"vmSize": "custom_1c_1g_1g", "taskSlotsPerNode": 4})
	t.Cleanup(func() {
		if n := reached.Load(); n > 0 {
			t.Errorf("%d fetches have reached another port of the node", n)
		}
	})
	for name, tc := range map[string]struct {
		url, limit string
		code       batch.FailureCode
	}{
		"a file":                        {evil.URL + "/file", "", batch.FailureBlobDownload},
		"another port of the node":      {evil.URL + "/inner", "", batch.FailureBlobDownload},
		"the secrets of a cloud":        {evil.URL + "/metadata", "", batch.FailureBlobDownload},
		"the same again":                {evil.URL + "/round", "", batch.FailureBlobDownload},
		"more than any disk has":        {evil.URL + "/huge", "", batch.FailureBlobDownload},
		"more than the node's disk has": {evil.URL + "/endless", "", batch.FailureDiskFull},
		"a byte and then nothing":       {evil.URL + "/slow", "PT2S", batch.FailureWallClock},
		"many headers":                  {evil.URL + "/headers", "", batch.FailureBlobDownload},
		"less than it says":             {evil.URL + "/short", "", batch.FailureBlobDownload},
		"no HTTP":                       {evil.URL + "/nonsense", "", batch.FailureBlobDownload},
		"the server itself":             {s.Endpoint + "/jobs", "", batch.FailureBlobDownload},
		"by another name":               {inner.URL, "", batch.FailureBlobDownload},
		"by a name of all":              {strings.Replace(inner.URL, "127.0.0.1", "0.0.0.0", 1), "", batch.FailureBlobDownload},
		"by a number":                   {strings.Replace(inner.URL, "127.0.0.1", "2130706433", 1), "", batch.FailureBlobDownload},
		"by version 6 of the address":   {strings.Replace(inner.URL, "127.0.0.1", "[::ffff:127.0.0.1]", 1), "", batch.FailureBlobDownload},
	} {
		t.Run("a task that gets "+name, func(t *testing.T) {
			t.Parallel()
			id := strings.ReplaceAll(strings.ReplaceAll(name, " ", "-"), "'", "")
			task := shell(id, "cat fetched")
			task["resourceFiles"] = []any{map[string]any{"httpUrl": tc.url, "filePath": "fetched"}}
			if tc.limit != "" {
				task["constraints"] = map[string]any{"maxWallClockTime": tc.limit}
			}
			s.addTask(t, "yard", task)
			info := s.awaitTask(t, "yard", id).ExecutionInfo
			if info.FailureInfo == nil || info.FailureInfo.Code != tc.code || info.FailureInfo.Category != batch.UserError || info.ExitCode != nil {
				t.Errorf("failure is %+v, exit code %v, want %s", info.FailureInfo, info.ExitCode, tc.code)
			}
			// It was not started: what was fetched would lie in its folder.
			if files := filesWith(t, s.folderOf(node, "yard", id), canary); len(files) > 0 {
				t.Errorf("%v have what the task must not reach", files)
			}
		})
	}
	t.Run("what is compressed is fetched as it is", func(t *testing.T) {
		t.Parallel()
		task := shell("zipped", "cat fetched")
		task["resourceFiles"] = []any{map[string]any{"httpUrl": evil.URL + "/zipped", "filePath": "fetched"}}
		if text := s.perform(t, "yard", task); text != "no gzip" {
			t.Errorf("the file has %q", text)
		}
		if files := filesWith(t, s.folderOf(node, "yard", "zipped"), "no gzip"); len(files) != 2 {
			t.Errorf("what was fetched and printed is found in %v", files)
		}
	})
	t.Run("what a path names stays in the working directory", func(t *testing.T) {
		t.Parallel()
		task := shell("paths", "find . -type f | sort")
		var files []any
		for _, path := range []string{"a/b/c", `back\slash`, "%2e%2e", "...", " ", "a//d", "./e", "-rf"} {
			files = append(files, map[string]any{"httpUrl": evil.URL + "/good", "filePath": path})
		}
		task["resourceFiles"] = files
		if text := s.perform(t, "yard", task); text != "./ \n./%2e%2e\n./-rf\n./...\n./a/b/c\n./a/d\n./back\\slash\n./e\n" {
			t.Errorf("files are\n%s", text)
		}
	})
	t.Run("and the node works on", func(t *testing.T) { s.perform(t, "yard", shell("after", "true")) })
}
