package hostile_test

import (
	"context"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/batchyard/batchyard/batch"
)

// planted is a server whose node has the tree of a task, evil, beside that of another, victim.
func planted(t *testing.T) (s *server, node batch.NodeID, program string) {
	t.Helper()
	s, program = newServer(t, ""), taskProgram(t)
	node = s.addNode(t, "yard", nil)
	s.perform(t, "yard", shell("victim", "echo "+canary+" >secret; chmod 644 secret"))
	s.perform(t, "yard", role("evil", program, "tree", "CANARY="+filepath.Join(s.folder, "canary")))
	return s, node, program
}

// TestTrees asks for files of a task that has left traps, and removes them.
func TestTrees(t *testing.T) {
	t.Parallel()
	s, node, program := planted(t)
	notFound := want{http.StatusNotFound, "FileNotFound", ""}
	directory := want{http.StatusConflict, "OperationNotSupportedOnDirectory", ""}

	t.Run("files are read, and nothing that leads out or is no file", func(t *testing.T) {
		rows := map[string]want{
			"wd/plain": accepted(200), "wd/inside": accepted(200), "wd/inside-by-folder": accepted(200), "wd/hard": accepted(200), "wd/folder/file": accepted(200),
			"wd/folder": directory, "wd": directory, "wd/": directory, ".": directory, "wd/..": directory,
			"wd/pipe": notFound, "wd/socket": notFound, "wd/loop": notFound, "wd/loop-a": notFound, "wd/nowhere": notFound,
			"wd/out": notFound, "wd/out-absolute": notFound, "wd/out-shadow": notFound, "wd/out-canary": notFound, "wd/out-state": notFound, "wd/out-state-absolute": notFound,
			"wd/out-secret": notFound, "wd/out-other/secret": notFound, "wd/out-up-up/victim/wd/secret": notFound, "wd/out-root/etc/passwd": notFound,
			"wd/out-node/workitems/yard/job-1/victim/wd/secret": notFound, "wd/out-device": notFound, "wd/out-self": notFound, "wd/out-process/etc/passwd": notFound,
			"wd/out-long": notFound, "wd/plain/more": notFound, "wd/plain/..": directory,
			"../victim/wd/secret": notFound, "wd/../../victim/wd/secret": notFound, "/etc/passwd": notFound, "../../../../../state/node.json": notFound,
			`..\victim\wd\secret`: notFound, "wd//plain": accepted(200), "./wd/./plain": accepted(200), "wd/folder/../plain": accepted(200),
			"wd/" + strings.Repeat("x", 256): notFound, "wd/" + strings.Repeat("x/", 3000): notFound, "wd/closed/inside/file": accepted(200),
			"wd/deep/" + strings.Repeat("d/", 500): directory,
		}
		for _, name := range oddNames {
			if name != "\xff\xfe" {
				rows["wd/odd-"+name] = accepted(200)
			}
		}
		for name, w := range rows {
			t.Run(clip(name), func(t *testing.T) {
				t.Parallel()
				for _, escaped := range []string{url.PathEscape(name), strings.ReplaceAll(url.PathEscape(name), "%2F", "/")} {
					path := "/jobs/yard/tasks/evil/files/" + escaped
					a := s.send(t, s.request(t, http.MethodGet, path, ""))
					w.check(t, a, faultOfBatch)
					if a.status == 200 && strings.HasSuffix(name, "plain") && a.body != "0123456789" {
						t.Errorf("the file has %q", clip(a.body))
					}
					head := s.send(t, s.request(t, http.MethodHead, path, ""))
					if head.status >= 500 || head.body != "" || a.status == 200 && head.header.Get("Content-Length") != a.header.Get("Content-Length") {
						t.Errorf("HEAD: status %d, %v", head.status, head.header)
					}
				}
			})
		}
	})
	t.Run("nor from the node", func(t *testing.T) {
		for _, name := range []string{
			"../state/node.json", "..", "/etc/passwd", "workitems/yard/job-1/evil/wd/out", "workitems/yard/job-1/evil/wd/out-state", "shared/../../state/node.json",
		} {
			a := s.send(t, s.request(t, http.MethodGet, "/pools/yard/nodes/"+string(node)+"/files/"+url.PathEscape(name), ""))
			w := notFound
			if name == ".." {
				w = directory
			}
			w.check(t, a, faultOfBatch)
		}
	})
	t.Run("a sparse file is read by ranges", func(t *testing.T) {
		for text, w := range map[string]want{
			"bytes=0-9": accepted(200), "bytes=1073741823-": accepted(200), "bytes=-1": accepted(200), "bytes=0-0": accepted(200),
			"bytes=1073741824-":          {http.StatusRequestedRangeNotSatisfiable, "InvalidRange", ""},
			"bytes=9223372036854775807-": {http.StatusRequestedRangeNotSatisfiable, "InvalidRange", ""},
		} {
			a := s.send(t, s.request(t, http.MethodGet, "/jobs/yard/tasks/evil/files/wd%2Fsparse", "", "ocp-range", text))
			w.check(t, a, faultOfBatch)
			if a.status == 200 && len(a.body) != map[string]int{"bytes=0-9": 10}[text]+map[bool]int{true: 1}[text != "bytes=0-9"] {
				t.Errorf("%s has %d bytes", text, len(a.body))
			}
		}
		head := s.send(t, s.request(t, http.MethodHead, "/jobs/yard/tasks/evil/files/wd%2Fsparse", ""))
		if head.header.Get("Content-Length") != "1073741824" {
			t.Errorf("headers are %v", head.header)
		}
	})
	t.Run("lists have every name once and follow nothing", func(t *testing.T) {
		names := s.listed(t, "/jobs/yard/tasks/evil/files?recursive=true&maxresults=100")
		for _, name := range names {
			if strings.HasSuffix(name, "/secret") || strings.Contains(name, "out-root/") || strings.Contains(name, "node.json/") {
				t.Errorf("the list has %q", name)
			}
		}
		for name := range links() {
			if !slices.Contains(names, "wd/"+name) {
				t.Errorf("the list lacks the link %s", name)
			}
		}
		for _, name := range append([]string{"pipe", "socket", "sparse", "closed/inside/file"}, oddNames...) {
			if name == "\xff\xfe" {
				name = "\uFFFD\uFFFD"
			}
			if !slices.Contains(names, "wd/"+name) && !slices.Contains(names, "wd/odd-"+name) {
				t.Errorf("the list lacks %q", name)
			}
		}
		if deepest := slices.MaxFunc(names, func(a, b string) int { return strings.Count(a, "/") - strings.Count(b, "/") }); strings.Count(deepest, "/") < 100 {
			t.Errorf("the deepest name of the list has only %d parts", strings.Count(deepest, "/"))
		}
		for _, prefix := range []string{"../", "/etc", "wd/out-root/etc", "wd/out-other/"} {
			query := url.QueryEscape("startswith(name,'" + prefix + "')")
			if names := s.listed(t, "/jobs/yard/tasks/evil/files?recursive=true&$filter="+query); len(names) > 0 {
				t.Errorf("the prefix %s shows %v", prefix, names)
			}
		}
	})
	t.Run("a hundred thousand files are listed, page by page", func(t *testing.T) {
		s.perform(t, "yard", role("crowd", program, "crowd 100000"))
		first := s.send(t, s.request(t, http.MethodGet, "/jobs/yard/tasks/crowd/files?recursive=true&maxresults=5", ""))
		accepted(200).check(t, first, faultOfBatch)
		prefix := url.QueryEscape("startswith(name,'wd/crowd/file-0999')")
		if names := s.listed(t, "/jobs/yard/tasks/crowd/files?recursive=true&$filter="+prefix); len(names) != 100 {
			t.Errorf("%d names have the prefix", len(names))
		}
	})
	t.Run("a file that grows is read as long as it was", func(t *testing.T) {
		s.addTask(t, "yard", role("grower", program, "grow"))
		s.awaitStdout(t, "yard", "grower", "planted")
		for range 5 {
			// The file may be cut while it is read, and the answer then breaks off: the client says so.
			response, err := s.HTTP.Do(s.request(t, http.MethodGet, "/jobs/yard/tasks/grower/files/wd%2Fgrowing", ""))
			if err != nil {
				t.Fatal(err)
			}
			a := read(t, response)
			if a.status != 200 || int64(len(a.body)) != response.ContentLength {
				t.Errorf("status %d, %d bytes of %d", a.status, len(a.body), response.ContentLength)
			}
		}
		s.must(t, http.MethodPost, "/jobs/yard/tasks/grower/terminate", "")
		s.awaitTask(t, "yard", "grower")
	})
	t.Run("deleting deletes links and not what they lead to", func(t *testing.T) {
		remove := func(name string, recursive bool, w want) {
			t.Helper()
			query := map[bool]string{true: "?recursive=true"}[recursive]
			w.check(t, s.send(t, s.request(t, http.MethodDelete, "/jobs/yard/tasks/evil/files/"+url.PathEscape(name)+query, "")), faultOfBatch)
		}
		for _, name := range []string{"wd/out-secret", "wd/out-canary", "wd/loop", "wd/nowhere", "wd/pipe", "wd/socket", "wd/odd-*", "wd/odd-a%2fb"} {
			remove(name, false, accepted(200))
			remove(name, false, notFound)
		}
		remove("wd/out-other/secret", false, notFound)
		remove("wd/out-other/secret", true, notFound)
		remove("wd/out-up-up/victim", true, notFound)
		remove("wd/out-root/"+strings.TrimPrefix(s.folder, "/")+"/canary", false, notFound)
		remove("../victim/wd/secret", false, notFound)
		remove("../victim", true, notFound)
		remove("wd/../..", true, directory)
		remove(".", true, directory)
		remove("wd/out-other", true, accepted(200))
		remove("wd/out-root", true, accepted(200))
		remove("wd/folder", false, directory)
		remove("wd/closed", true, accepted(200))
		remove("wd/deep", true, accepted(200))
		for _, file := range []string{filepath.Join(s.folder, "canary"), filepath.Join(s.folderOf(node, "yard", "victim"), "wd", "secret"), "/etc/passwd"} {
			if _, err := os.Stat(file); err != nil {
				t.Errorf("a deletion has gone too far: %v", err)
			}
		}
	})
	t.Run("a directory with anything in it is removed, and nothing else", func(t *testing.T) {
		s.perform(t, "yard", role("weeds", program, "tree", "CANARY="+filepath.Join(s.folder, "canary")))
		if os.Geteuid() != 0 {
			t.Log("immutable files are not tried: the server is not root")
		} else if text := s.perform(t, "yard", as(role("locked", program, "lock"), "pool", "admin")); text != "planted\n" {
			t.Log("immutable files are not tried: ", text)
		}
		folder := filepath.Dir(s.folderOf(node, "yard", "x"))
		if err := s.DeleteJob(t.Context(), "yard"); err != nil {
			t.Fatal(err)
		}
		s.await(t, "the job's folder is gone", func(context.Context) (bool, error) {
			_, err := os.Lstat(folder)
			return os.IsNotExist(err), nil
		})
		for _, file := range []string{filepath.Join(s.folder, "canary"), filepath.Join(s.nodeFolder(node), "state", "node.json"), "/etc/passwd"} {
			if _, err := os.Stat(file); err != nil {
				t.Errorf("the removal has gone too far: %v", err)
			}
		}
	})
}
