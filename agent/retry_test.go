package agent_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/sas"
	"github.com/batchyard/batchyard/batch"
	"golang.org/x/sys/unix"
)

// needMarks skips a test where folders cannot be marked.
func needMarks(t *testing.T) {
	t.Helper()
	if err := unix.Setxattr(t.TempDir(), "user.batchyard.test", []byte("1"), 0); err != nil {
		t.Skipf("the filesystem keeps no extended attributes: %v", err)
	}
}

func TestRetry(t *testing.T) {
	t.Parallel()
	needMarks(t)
	var asked atomic.Int32
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/missing" {
			w.WriteHeader(http.StatusNotFound)
		}
		fmt.Fprint(w, asked.Add(1))
	}))
	t.Cleanup(web.Close)
	n := newNode(t, allow(host(web)))
	input := []batch.ResourceFile{{HTTPURL: web.URL + "/input", FilePath: "input"}}
	// again counts the runs of a directory, which it fails.
	again := shell(`echo "run $(cat input)"; echo x >> runs; exit $(wc -l < runs)`)
	again.ResourceFiles = input
	run := func(t *testing.T, task string, want int) {
		t.Helper()
		if got := summarize(n.run(task, again)); got.Exit != want {
			t.Fatalf("exit code %d, want %d: %+v", got.Exit, want, got)
		}
	}

	t.Run("one on the same node has the directory and the files of the run before", func(t *testing.T) {
		asked.Store(0)
		for i := range 3 {
			run(t, "same", i+1)
		}
		if got := n.text(n.place("same", "stdout.txt")); got != "run 1\n" || asked.Load() != 1 {
			t.Errorf("the last run said %q, and the file was fetched %d times", got, asked.Load())
		}
	})

	t.Run("one after the agent's restart too", func(t *testing.T) {
		run(t, "restarted", 1)
		n.restart()
		run(t, "restarted", 2)
	})

	t.Run("one after a run elsewhere begins anew", func(t *testing.T) {
		run(t, "elsewhere", 1)
		n.change(func() { n.attempt++ })
		run(t, "elsewhere", 1)
	})

	t.Run("a requeue begins anew", func(t *testing.T) {
		run(t, "requeue", 1)
		up := n.newGate("up")
		attempt := n.add("requeue", shell("echo x >> runs; "+up.reach("up")+"; sleep 600"))
		up.reached()
		n.release("requeue", batch.ReleaseAlways)
		n.result(attempt)
		run(t, "requeue", 1)
	})

	t.Run("files that could not be fetched are fetched again", func(t *testing.T) {
		asked.Store(0)
		task := shell("exit 1")
		task.ResourceFiles = append([]batch.ResourceFile{{HTTPURL: web.URL + "/missing", FilePath: "missing"}}, input...)
		for range 2 {
			if got := summarize(n.run("missing", task)); got.Exit != 1 && got.Exit != -1 {
				t.Fatalf("outcome is %+v", got)
			}
		}
		if asked.Load() < 2 {
			t.Errorf("the files were asked for %d times", asked.Load())
		}
	})

	t.Run("what stands in the way of a new start is removed", func(t *testing.T) {
		locked := shell("test ! -e old && mkdir -p old/deep && chmod 0500 old/deep old && exit 7")
		for range 2 {
			n.change(func() { n.attempt++ })
			if got := summarize(n.run("locked", locked)); got.Exit != 7 {
				t.Fatalf("exit code %d, want 7", got.Exit)
			}
		}
	})

	t.Run("a link in place of the working directory is not followed", func(t *testing.T) {
		task := shell("cd ..; mv wd away; ln -s /tmp wd; exit 4")
		for range 2 {
			if got := summarize(n.run("link", task)); got.Exit != 4 {
				t.Fatalf("outcome is %+v", got)
			}
		}
	})

	t.Run("a user of the slot has the files of the run before, in another slot too", func(t *testing.T) {
		if !isRoot() {
			t.Skip("tasks have users of their own as root only")
		}
		g, up := n.newGate("slot"), n.newGate("slotup")
		mine := *again
		mine.UserIdentity = new(autoUser(batch.ScopeTask, batch.ElevationNonAdmin))
		if got := summarize(n.run("slot", &mine)); got.Exit != 1 {
			t.Fatalf("outcome is %+v", got)
		}
		other := n.add("other", shell(up.reach("up")+"; "+g.wait()))
		up.reached()
		n.change(func() { n.attempt-- }) // the task's own attempts follow each other
		if got := summarize(n.run("slot", &mine)); got.Exit != 2 {
			t.Errorf("outcome is %+v, %s", got, n.text(n.place("slot", "stderr.txt")))
		}
		g.open()
		n.result(other)
	})

	t.Run("a start task fetches once a boot", func(t *testing.T) {
		asked.Store(0)
		n := newNode(t, allow(host(web)), startTask(batch.StartTask{
			CommandLine: shell(`echo x >> runs; test $(wc -l < runs) -gt 2`).CommandLine, ResourceFiles: input, MaxTaskRetryCount: 5,
		}))
		if info := n.booted(1).StartTask; info.RetryCount != 2 || asked.Load() != 1 {
			t.Errorf("%d retries, %d fetches", info.RetryCount, asked.Load())
		}
	})
}

func TestTwoFilesForOnePath(t *testing.T) {
	t.Parallel()
	s := newStorage(t)
	s.put("in/same", "of the container")
	listed := make(chan struct{}, 10)
	store := s.server.Config.Handler
	s.server.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		store.ServeHTTP(w, r)
		if r.URL.Query().Get("comp") == "list" {
			listed <- struct{}{}
		}
	})
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/missing":
			w.WriteHeader(http.StatusNotFound)
		case "/slow":
			<-listed // the container's own file has its turn to come
			fmt.Fprint(w, "slow")
		default:
			fmt.Fprint(w, r.URL.Path)
		}
	}))
	t.Cleanup(web.Close)
	n := newNode(t, allow(host(web), host(s.server)))
	at := func(path, file string) batch.ResourceFile {
		return batch.ResourceFile{HTTPURL: web.URL + path, FilePath: file}
	}
	box := batch.ResourceFile{StorageContainerURL: s.url(readAndList()), FilePath: "x"}
	for i, c := range []struct {
		name  string
		files []batch.ResourceFile
		file  string
		want  string
	}{
		{"the later of two URLs", []batch.ResourceFile{at("/1", "f"), at("/2", "./f")}, "f", "/2"},
		{"the later if the earlier is not there", []batch.ResourceFile{at("/missing", "f"), at("/2", "f")}, "f", "/2"},
		{"a container after a URL", []batch.ResourceFile{at("/1", "x/in/same"), box}, "x/in/same", "of the container"},
		{"a URL after a container", []batch.ResourceFile{box, at("/1", "x/in/same")}, "x/in/same", "/1"},
		{"a container after a URL that answers late", []batch.ResourceFile{at("/slow", "x/in/same"), box}, "x/in/same", "of the container"},
	} {
		t.Run(c.name+" wins", func(t *testing.T) {
			for len(listed) > 0 {
				<-listed
			}
			task := shell("cat " + c.file)
			task.ResourceFiles = c.files
			id := fmt.Sprint("t", i)
			got := n.run(id, task)
			if text := n.text(n.place(id, "stdout.txt")); got.Failure != nil || text != c.want {
				t.Errorf("the file has %q, want %q; %+v", text, c.want, got.Failure)
			}
		})
	}
}

func TestMarkersOfFolders(t *testing.T) {
	t.Parallel()
	s := newStorage(t)
	for name, c := range map[string]struct{ text, mark string }{
		"tree": {"", "true"}, "tree/leaf": {"leaf", ""}, "bare": {"", "true"}, "empty": {"", ""}, "full": {"text", "true"},
	} {
		s.put(name, c.text)
		if c.mark == "" {
			continue
		}
		if _, err := s.client.NewBlobClient(name).SetMetadata(t.Context(), map[string]*string{"Hdi_isfolder": &c.mark}, nil); err != nil {
			t.Fatal(err)
		}
	}
	n := newNode(t, allow(host(s.server)))
	signed, err := s.client.NewBlobClient("bare").GetSASURL(sas.BlobPermissions{Read: true}, time.Now().Add(time.Hour), nil)
	if err != nil {
		t.Fatal(err)
	}
	task := shell("find data one | sort; stat -c %F data/bare data/empty one")
	task.ResourceFiles = []batch.ResourceFile{{HTTPURL: signed, FilePath: "one"}, {StorageContainerURL: s.url(readAndList()), FilePath: "data"}}
	got := n.run("t", task)
	want := "data\ndata/bare\ndata/empty\ndata/full\ndata/tree\ndata/tree/leaf\none\ndirectory\nregular empty file\ndirectory\n"
	if text := n.text(n.place("t", "stdout.txt")); text != want {
		t.Errorf("found %q, want %q; %+v", text, want, got.Failure)
	}
}
