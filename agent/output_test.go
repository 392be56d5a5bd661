package agent_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/sas"
	"github.com/batchyard/batchyard/batch"
	"github.com/google/go-cmp/cmp"
)

func TestOutputPatterns(t *testing.T) {
	t.Parallel()
	s := newStorage(t)
	n := newNode(t, allow(host(s.server)))
	url := s.url(sas.ContainerPermissions{Write: true, Create: true})
	files := `mkdir -p out .git a/.cache; echo 1 > out/one.txt; echo 2 > out/.two; echo 3 > .three; echo 4 > .git/four; echo 5 > a/.cache/five
		echo 6 > 'back\slash'; echo 7 > 'a$HOUSE'; mkdir -p 'b[1]'; echo 8 > 'b[1]/eight'; echo s > $AZ_BATCH_NODE_SHARED_DIR/mine.txt`
	for i, c := range []struct {
		name, pattern string
		want          map[string]string
	}{
		{"a variable of the task", "$OUT/one.txt", map[string]string{"out/one.txt": "1\n"}},
		{"the same in braces", "${OUT}/*.txt", map[string]string{"out/one.txt": "1\n"}},
		{"a variable with a wildcard in it", "$ANY", map[string]string{"out/one.txt": "1\n"}},
		{"a variable of the service", "$AZ_BATCH_TASK_WORKING_DIR/out/one.txt", map[string]string{"out/one.txt": "1\n"}},
		{"the task's directory", "${AZ_BATCH_TASK_DIR}/std*.txt", map[string]string{"stdout.txt": "", "stderr.txt": ""}},
		{"the shared directory", "$AZ_BATCH_NODE_SHARED_DIR/mine.txt", map[string]string{"mine.txt": "s\n"}},
		{"the id of the task", "../../$AZ_BATCH_TASK_ID/wd/out/one.txt", map[string]string{"out/one.txt": "1\n"}},
		{"a variable that does not exist stays", "a$HOUSE", map[string]string{"a$HOUSE": "7\n"}},
		{"a star finds no name with a dot in front", "*", map[string]string{`back\slash`: "6\n", "a$HOUSE": "7\n"}},
		{"two stars neither, nor what is below one", "**", map[string]string{
			"out/one.txt": "1\n", `back\slash`: "6\n", "a$HOUSE": "7\n", "b[1]/eight": "8\n",
		}},
		{"a question mark neither", "?three", map[string]string{}},
		{"a dot in the pattern does", ".*", map[string]string{".three": "3\n"}},
		{"a dot in a folder of the pattern does", ".git/*", map[string]string{".git/four": "4\n"}},
		{"a name with a dot is found by itself", "out/.two", map[string]string{"out/.two": "2\n"}},
		{"a backslash separates nothing", `out\one.txt`, map[string]string{}},
		{"a backslash is itself", `back\slash`, map[string]string{`back\slash`: "6\n"}},
		{"a backslash hides no wildcard", `back\*`, map[string]string{`back\slash`: "6\n"}},
		{"below a file is nothing", "out/one.txt/below", map[string]string{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			id := fmt.Sprint("p", i)
			task := shell(files)
			task.EnvironmentSettings = []batch.EnvironmentSetting{{Name: "OUT", Value: "out"}, {Name: "ANY", Value: "out/*.txt"}}
			task.OutputFiles = []batch.OutputFile{output(c.pattern, url, "", batch.UploadOnSuccess)}
			if got := n.run(id, task); got.Failure != nil {
				t.Fatalf("outcome is %+v", got.Failure)
			}
			got := map[string]string{}
			for name, text := range s.blobs("") {
				got[name] = text
				if _, err := s.client.NewBlobClient(name).Delete(t.Context(), nil); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestUploadsAreTold(t *testing.T) {
	t.Parallel()
	s := newStorage(t)
	n := newNode(t, allow(host(s.server)))
	url := s.url(sas.ContainerPermissions{Write: true, Create: true})
	readOnly := s.url(sas.ContainerPermissions{Read: true})
	// told are the lines of a file without their times.
	told := func(task, file string) string {
		return regexp.MustCompile(`(?m)^\S+Z `).ReplaceAllString(n.text(n.place(task, file)), "")
	}
	run := func(task, script string, outputs ...batch.OutputFile) batch.Outcome {
		r := shell(script)
		r.OutputFiles = outputs
		return n.run(task, r)
	}

	t.Run("what was uploaded and what was not", func(t *testing.T) {
		got := run("told", "echo 1 > a; ln -s a inside; ln -s /etc/passwd outside; mkdir d; echo trap > trap; ln -s trap ../fileuploadout.txt",
			output("*", url, "told", batch.UploadOnCompletion), output("nothing/*", url, "told", batch.UploadOnCompletion),
			output("a", url, "never", batch.UploadOnFailure))
		box := s.client.URL()
		want := fmt.Sprintf("uploaded \"wd/a\" to %[1]s/told/a\nuploaded \"wd/inside\" to %[1]s/told/inside\nuploaded \"wd/trap\" to %[1]s/told/trap\n", box)
		if diff := cmp.Diff(want, sorted(told("told", "fileuploadout.txt"))); diff != "" {
			t.Error(diff)
		}
		want = "not uploaded: \"nothing/*\": the pattern matches no file\n" +
			"not uploaded: \"wd/outside\": it is a symbolic link, or below one, that leads out of the directory in which the pattern looks\n"
		if diff := cmp.Diff(want, sorted(told("told", "fileuploaderr.txt"))); diff != "" {
			t.Error(diff)
		}
		if got.Failure != nil || n.text(n.place("told", "wd", "trap")) != "trap\n" {
			t.Errorf("outcome is %+v", got.Failure)
		}
	})

	t.Run("nothing of what a run before told", func(t *testing.T) {
		needMarks(t)
		r := shell("test -e old && exit 0; echo > old; exit 1")
		r.OutputFiles = []batch.OutputFile{output("old", url, "old", batch.UploadOnFailure)}
		if n.run("old", r); told("old", "fileuploadout.txt") == "" {
			t.Fatal("no word of the first run")
		}
		if got := n.run("old", r); got.Failure != nil || exists(n.place("old", "fileuploadout.txt")) || exists(n.place("old", "fileuploaderr.txt")) {
			t.Errorf("outcome is %+v, and there is word of an upload", got.Failure)
		}
	})

	t.Run("no word where nothing is to be uploaded", func(t *testing.T) {
		run("quiet", "true", output("*", url, "", batch.UploadOnFailure))
		if exists(n.place("quiet", "fileuploadout.txt")) || exists(n.place("quiet", "fileuploaderr.txt")) {
			t.Error("there are files")
		}
	})

	t.Run("one container that refuses does not keep the others' files back", func(t *testing.T) {
		got := run("refused", "echo 1 > a; echo 2 > b", output("*", readOnly, "no", batch.UploadOnSuccess), output("*", url, "yes", batch.UploadOnSuccess))
		if got.Failure == nil || got.Failure.Code != batch.FailureUploadAccessDenied || len(s.blobs("yes/")) != 2 {
			t.Errorf("outcome is %+v, blobs %v", got.Failure, s.blobs("yes/"))
		}
		if text := told("refused", "fileuploaderr.txt"); !strings.Contains(text, "the storage answered 403") || strings.Contains(text, "sig=") {
			t.Errorf("word is %q", text)
		}
	})

	for name, target := range map[string]string{"out of the directory": "/etc/passwd", "to nothing": "missing", "to the shared directory": "$AZ_BATCH_NODE_SHARED_DIR/f"} {
		t.Run("a named output that is a link "+name+" says so", func(t *testing.T) {
			id := strings.ReplaceAll(name, " ", "-")
			got := run(id, "echo s > $AZ_BATCH_NODE_SHARED_DIR/f; ln -s "+target+" result", output("result", url, "", batch.UploadOnSuccess))
			if got.Failure == nil || got.Failure.Code != batch.FailureUpload || !strings.Contains(about(got, "Message"), "symbolic link") {
				t.Errorf("outcome is %+v", got.Failure)
			}
			if text := told(id, "fileuploaderr.txt"); !strings.Contains(text, "symbolic link") {
				t.Errorf("word is %q", text)
			}
		})
	}

	t.Run("which file a container refused, and which were not tried for that", func(t *testing.T) {
		run("many", "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do echo $i > f$i; done", output("f*", readOnly, "no", batch.UploadOnSuccess))
		if text := told("many", "fileuploaderr.txt"); strings.Count(text, "\n") != 12 || strings.Contains(text, "canceled") {
			t.Errorf("word is %q", text)
		}
	})

	t.Run("a storage that is busy for a while is tried again, and the command is not", func(t *testing.T) {
		var asked atomic.Int32
		web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if _, err := io.Copy(io.Discard, r.Body); err != nil {
				t.Error(err)
			}
			if asked.Add(1) < 6 {
				w.Header().Set("X-Ms-Retry-After-Ms", "1")
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			w.WriteHeader(http.StatusCreated)
		}))
		t.Cleanup(web.Close)
		n := newNode(t, allow(host(web)))
		task := shell("echo ran >> $AZ_BATCH_NODE_SHARED_DIR/runs")
		task.OutputFiles = []batch.OutputFile{output("../stdout.txt", web.URL+"/a/c?sig=x", "x", batch.UploadOnSuccess)}
		if got := n.run("t", task); got.Failure != nil || asked.Load() != 6 || n.text(n.path("shared", "runs")) != "ran\n" {
			t.Errorf("outcome is %+v after %d calls", got.Failure, asked.Load())
		}
	})
}

// sorted has the lines of a text in order.
func sorted(text string) string {
	lines := strings.SplitAfter(strings.TrimSuffix(text, "\n"), "\n")
	for i := range lines {
		lines[i] = strings.TrimSuffix(lines[i], "\n") + "\n"
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}
