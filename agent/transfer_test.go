package agent_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/sas"
	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/blob"
	"github.com/batchyard/batchyard/store"
	"github.com/batchyard/batchyard/store/storetest"
	"github.com/google/go-cmp/cmp"
)

// host is the part of a URL that an operator allows.
func host(server *httptest.Server) string { return strings.TrimPrefix(server.URL, "http://") }

// storage is a real storage endpoint with a container.
type storage struct {
	t      testing.TB
	server *httptest.Server
	client *container.Client
}

func newStorage(t testing.TB) *storage {
	t.Helper()
	db := storetest.Open(t, store.Options{URL: storetest.SQLite(t)})
	disk, err := blob.OpenDisk(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := disk.Close(); err != nil {
			t.Error(err)
		}
	})
	handler, err := blob.New(blob.Options{DB: db, Bytes: disk})
	if err != nil {
		t.Fatal(err)
	}
	if err := handler.ProvisionDev(t.Context()); err != nil {
		t.Fatal(err)
	}
	s := &storage{t: t, server: httptest.NewServer(handler)}
	t.Cleanup(s.server.Close)
	credential, err := container.NewSharedKeyCredential(blob.DevAccount, blob.DevKey)
	if err != nil {
		t.Fatal(err)
	}
	s.client, err = container.NewClientWithSharedKeyCredential(s.server.URL+"/"+blob.DevAccount+"/box", credential, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.client.Create(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	return s
}

// url is the container's with a signature that allows something.
func (s *storage) url(allows sas.ContainerPermissions) string {
	s.t.Helper()
	signed, err := s.client.GetSASURL(allows, time.Now().Add(time.Hour), nil)
	if err != nil {
		s.t.Fatal(err)
	}
	return signed
}

// readAndList are the rights that a resource file's container needs.
func readAndList() sas.ContainerPermissions { return sas.ContainerPermissions{Read: true, List: true} }

func (s *storage) put(name, text string) {
	s.t.Helper()
	if _, err := s.client.NewBlockBlobClient(name).UploadBuffer(s.t.Context(), []byte(text), nil); err != nil {
		s.t.Fatal(err)
	}
}

// blobs are the names below a prefix and their contents.
func (s *storage) blobs(prefix string) map[string]string {
	s.t.Helper()
	all := map[string]string{}
	for pages := s.client.NewListBlobsFlatPager(&container.ListBlobsFlatOptions{Prefix: &prefix}); pages.More(); {
		page, err := pages.NextPage(s.t.Context())
		if err != nil {
			s.t.Fatal(err)
		}
		for _, item := range page.Segment.BlobItems {
			answer, err := s.client.NewBlobClient(*item.Name).DownloadStream(s.t.Context(), nil)
			if err != nil {
				s.t.Fatal(err)
			}
			var text bytes.Buffer
			if _, err := io.Copy(&text, answer.Body); err != nil {
				s.t.Fatal(err)
			}
			answer.Body.Close()
			all[*item.Name] = text.String()
		}
	}
	return all
}

func allow(hosts ...string) func(*node) {
	return func(n *node) { n.settings.AllowHosts = hosts }
}

// fetching is a task that shows its working directory.
func fetching(files ...batch.ResourceFile) *batch.TaskRun {
	run := shell(`find . -type f | sort | while read f; do echo "$f $(stat -c %a $f) $(cat $f)"; done`)
	run.ResourceFiles = files
	return run
}

func TestFetch(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	hang := make(chan struct{})
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/missing":
			w.WriteHeader(http.StatusNotFound)
		case "/secret":
			w.WriteHeader(http.StatusForbidden)
		case "/moved":
			http.Redirect(w, r, "/plain", http.StatusFound)
		case "/flaky":
			if asked.Add(1) < 3 {
				w.Header().Set("Content-Length", "100") // and then breaks off
			}
			fmt.Fprint(w, "at last")
		case "/hang":
			fmt.Fprint(w, "begin")
			w.(http.Flusher).Flush()
			select {
			case <-hang:
			case <-r.Context().Done():
			}
		case "/loop":
			http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusFound)
		default:
			fmt.Fprint(w, "content of ", r.URL.Path, "?", r.URL.RawQuery)
		}
	}))
	t.Cleanup(web.Close)
	t.Cleanup(func() { close(hang) })
	n := newNode(t, allow(host(web)))

	t.Run("files are there before the command, with their modes, in their folders", func(t *testing.T) {
		got := summarize(n.run("files", fetching(
			batch.ResourceFile{HTTPURL: web.URL + "/plain?sig=1", FilePath: "plain"},
			batch.ResourceFile{HTTPURL: web.URL + "/tool", FilePath: "deep/er/tool", FileMode: "0755"},
			batch.ResourceFile{HTTPURL: web.URL + "/moved", FilePath: "deep/moved", FileMode: "04600"},
			batch.ResourceFile{HTTPURL: web.URL + "/flaky", FilePath: "flaky"},
		)))
		if got != (summary{}) {
			t.Fatalf("outcome is %+v", got)
		}
		want := "./deep/er/tool 755 content of /tool?\n./deep/moved 600 content of /plain?\n./flaky 770 at last\n./plain 770 content of /plain?sig=1\n"
		if diff := cmp.Diff(want, n.text(n.place("files", "stdout.txt"))); diff != "" {
			t.Error(diff)
		}
	})

	for _, c := range []struct {
		name, task, url string
		want            batch.FailureCode
		message         string
	}{
		{"a file that is missing", "f404", "/missing?sig=SECRET", batch.FailureBlobNotFound, "the server answered 404"},
		{"a file that is forbidden", "f403", "/secret?sig=SECRET", batch.FailureBlobAccessDenied, "the server answered 403"},
		{"a redirect to where tasks may not go", "floop", "/loop", batch.FailureBlobDownload, "tasks may not reach 127.0.0.1:1"},
	} {
		t.Run(c.name+" fails the task before its command", func(t *testing.T) {
			got := n.run(c.task, fetching(batch.ResourceFile{HTTPURL: web.URL + c.url, FilePath: "f"}))
			if s := summarize(got); s.Exit != -1 || s.Code != c.want || s.Category != batch.UserError {
				t.Fatalf("outcome is %+v", s)
			}
			if about(got, "FilePath") != "f" || !strings.Contains(about(got, "Message"), c.message) {
				t.Errorf("details are %v", got.Failure.Details)
			}
			if text := fmt.Sprint(got.Failure); strings.Contains(text, "SECRET") {
				t.Errorf("the failure tells a signature: %s", text)
			}
		})
	}

	t.Run("a host that does not exist", func(t *testing.T) {
		got := n.run("nohost", fetching(batch.ResourceFile{HTTPURL: "http://no-such-host.invalid/f?sig=SECRET", FilePath: "f"}))
		if s := summarize(got); s.Code != batch.FailureBlobDownload || strings.Contains(fmt.Sprint(got.Failure), "SECRET") {
			t.Errorf("outcome is %+v", got.Failure)
		}
	})

	t.Run("a path that leads out makes no file", func(t *testing.T) {
		got := n.run("dots", fetching(batch.ResourceFile{HTTPURL: web.URL + "/plain", FilePath: "../../../../shared/planted"}))
		if s := summarize(got); s.Exit != -1 || exists(n.path("shared", "planted")) {
			t.Errorf("outcome is %+v", s)
		}
	})

	t.Run("a download counts for the wall clock", func(t *testing.T) {
		run := fetching(batch.ResourceFile{HTTPURL: web.URL + "/hang", FilePath: "f"})
		run.MaxWallClockTime = batch.DurationOf(300 * time.Millisecond)
		if got := summarize(n.run("hang", run)); got.Code != batch.FailureWallClock || got.Exit != -1 {
			t.Errorf("outcome is %+v", got)
		}
	})

	t.Run("a task that is asked back ends its download", func(t *testing.T) {
		attempt := n.add("back", fetching(batch.ResourceFile{HTTPURL: web.URL + "/hang", FilePath: "f"}))
		n.phase("back", batch.PhaseRunning)
		n.release("back", batch.ReleaseAlways)
		if got := n.result(attempt); got.Phase != batch.PhaseReleased {
			t.Errorf("reported as %+v", got)
		}
	})

	t.Run("start tasks fetch too", func(t *testing.T) {
		n := newNode(t, allow(host(web)), startTask(batch.StartTask{
			CommandLine: "/bin/cat f", ResourceFiles: []batch.ResourceFile{{HTTPURL: web.URL + "/plain", FilePath: "f"}},
		}))
		n.booted(1)
		if got := n.text(n.path("startup", "stdout.txt")); got != "content of /plain?" {
			t.Errorf("the start task read %q", got)
		}
	})
}

func TestFetchGuard(t *testing.T) {
	t.Parallel()
	reached := make(chan struct{}, 100)
	web := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached <- struct{}{} }))
	t.Cleanup(web.Close)
	_, port, _ := strings.Cut(host(web), ":")
	n := newNode(t, allow("127.0.0.1:1"))
	for i, url := range []string{
		web.URL, "http://localhost:" + port, "http://store.blob.LocalHost.:" + port, "http://[::ffff:127.0.0.1]:" + port, "http://0.0.0.0:" + port, "http://[::1]:" + port,
		"http://169.254.169.254", "http://168.63.129.16", "http://[fe80::1]", "http://[fd00:ec2::254]",
	} {
		t.Run("tasks may not fetch from "+url, func(t *testing.T) {
			got := n.run(fmt.Sprint("guard", i), fetching(batch.ResourceFile{HTTPURL: url + "/f", FilePath: "f"}))
			if s := summarize(got); s.Code != batch.FailureBlobDownload || !strings.Contains(about(got, "Message"), "tasks may not reach") {
				t.Errorf("outcome is %+v", got.Failure)
			}
		})
	}
	t.Run("nor list or write to it as storage", func(t *testing.T) {
		url := web.URL + "/account/container?sig=x"
		got := n.run("container", fetching(batch.ResourceFile{StorageContainerURL: url}))
		if !strings.Contains(about(got, "Message"), "tasks may not reach") {
			t.Errorf("outcome is %+v", got.Failure)
		}
		run := shell("true")
		run.OutputFiles = []batch.OutputFile{output("../stdout.txt", url, "", batch.UploadOnCompletion)}
		got = n.run("upload", run)
		if s := summarize(got); s.Code != batch.FailureUpload || !strings.Contains(about(got, "Message"), "tasks may not reach") {
			t.Errorf("outcome is %+v", got.Failure)
		}
	})
	if len(reached) > 0 {
		t.Errorf("%d requests arrived", len(reached))
	}

	t.Run("names below localhost need no resolver and are allowed by their address", func(t *testing.T) {
		n := newNode(t, allow("127.0.0.1:"+port))
		got := n.run("t", fetching(batch.ResourceFile{HTTPURL: "http://store.blob.localhost:" + port + "/f", FilePath: "f"}))
		if s := summarize(got); s != (summary{}) {
			t.Errorf("outcome is %+v", got.Failure)
		}
	})

	t.Run("a host can be allowed by its name", func(t *testing.T) {
		n := newNode(t, allow("localhost:"+port))
		got := n.run("t", fetching(batch.ResourceFile{HTTPURL: "http://localhost:" + port + "/f", FilePath: "f"}))
		if s := summarize(got); s != (summary{}) {
			t.Errorf("outcome is %+v", got.Failure)
		}
	})
}

func TestFetchContainer(t *testing.T) {
	t.Parallel()
	s := newStorage(t)
	for _, name := range []string{"in/a", "in/deep/b", "in/c d+e%", "other/x"} {
		s.put(name, "blob "+name)
	}
	n := newNode(t, allow(host(s.server)))
	read := s.url(readAndList())

	t.Run("the blobs below a prefix keep their names", func(t *testing.T) {
		run := shell("find . -type f | sort; cat data/in/deep/b; stat -c %a data/in/a")
		run.ResourceFiles = []batch.ResourceFile{{StorageContainerURL: read, BlobPrefix: "in/", FilePath: "data", FileMode: "0640"}}
		if got := n.run("prefix", run); got.Failure != nil {
			t.Fatalf("outcome is %+v", got.Failure)
		}
		want := "./data/in/a\n./data/in/c d+e%\n./data/in/deep/b\nblob in/deep/b640\n"
		if diff := cmp.Diff(want, n.text(n.place("prefix", "stdout.txt"))); diff != "" {
			t.Error(diff)
		}
	})

	t.Run("a whole container goes to the working directory", func(t *testing.T) {
		run := shell("find . -type f | wc -l")
		run.ResourceFiles = []batch.ResourceFile{{StorageContainerURL: read}}
		n.run("whole", run)
		if got := n.text(n.place("whole", "stdout.txt")); got != "4\n" {
			t.Errorf("there are %s files", got)
		}
	})

	for _, c := range []struct {
		name, task, url string
		want            batch.FailureCode
	}{
		{"one that may not be listed", "closed", s.url(sas.ContainerPermissions{Read: true}), batch.FailureContainerAccessDenied},
		{"one that is not there", "nobox", strings.Replace(read, "/box", "/nobox", 1), batch.FailureContainerAccessDenied},
		{"one whose blobs may not be read", "listed", s.url(sas.ContainerPermissions{List: true}), batch.FailureBlobAccessDenied},
	} {
		t.Run(c.name, func(t *testing.T) {
			run := shell("true")
			run.ResourceFiles = []batch.ResourceFile{{StorageContainerURL: c.url}}
			got := n.run(c.task, run)
			if s := summarize(got); s.Code != c.want || s.Exit != -1 || strings.Contains(fmt.Sprint(got.Failure), "sig=") {
				t.Errorf("outcome is %+v", got.Failure)
			}
		})
	}
}

func output(pattern, url, path string, when batch.UploadCondition) batch.OutputFile {
	return batch.OutputFile{
		FilePattern: pattern, Destination: batch.OutputDestination{Container: &batch.OutputContainer{ContainerURL: url, Path: path}},
		UploadOptions: batch.OutputUpload{UploadCondition: when},
	}
}

func TestUpload(t *testing.T) {
	t.Parallel()
	s := newStorage(t)
	n := newNode(t, allow(host(s.server)))
	url := s.url(sas.ContainerPermissions{Write: true, Create: true})
	// out runs a script whose output goes below the task's name.
	out := func(task, script string, outputs ...batch.OutputFile) batch.Outcome {
		run := shell(script)
		run.OutputFiles = append(run.OutputFiles, outputs...)
		return n.run(task, run)
	}
	files := "mkdir -p out/deep; echo 1 > out/one.txt; echo 2 > out/deep/two.txt; echo 3 > out/three.bin; echo 4 > '{odd}.txt'; echo said"

	for _, c := range []struct {
		task, pattern, path string
		want                map[string]string
	}{
		{"stdout", "../stdout.txt", "stdout/log.txt", map[string]string{"log.txt": "said\n"}},
		{"std", "../std*.txt", "std", map[string]string{"stdout.txt": "said\n", "stderr.txt": ""}},
		{"one", "out/one.txt", "one/named", map[string]string{"named": "1\n"}},
		{"star", "out/*.txt", "star", map[string]string{"out/one.txt": "1\n"}},
		{"stars", "**/*.txt", "stars", map[string]string{"out/one.txt": "1\n", "out/deep/two.txt": "2\n", "{odd}.txt": "4\n"}},
		{"all", "**", "all/", map[string]string{"out/one.txt": "1\n", "out/deep/two.txt": "2\n", "out/three.bin": "3\n", "{odd}.txt": "4\n"}},
		{"set", "out/[ot]*.bin", "set", map[string]string{"out/three.bin": "3\n"}},
		{"query", "out/???.txt", "query", map[string]string{"out/one.txt": "1\n"}},
		{"back", `out\one.txt`, "back/x", map[string]string{}},
		{"brace", "{odd}.txt", "brace/x", map[string]string{"x": "4\n"}},
		{"none", "no/such/*", "none", map[string]string{}},
		{"nofile", "missing", "nofile/x", map[string]string{}},
		{"folder", "out", "folder/x", map[string]string{}},
	} {
		t.Run("pattern "+c.pattern, func(t *testing.T) {
			if got := out(c.task, files, output(c.pattern, url, c.path, batch.UploadOnSuccess)); got.Failure != nil {
				t.Fatalf("outcome is %+v", got.Failure)
			}
			want := map[string]string{}
			for name, text := range c.want {
				want[c.task+"/"+name] = text
			}
			if diff := cmp.Diff(want, s.blobs(c.task+"/")); diff != "" {
				t.Error(diff)
			}
		})
	}

	t.Run("absolute patterns, in the task's directory and the shared one", func(t *testing.T) {
		got := out("absolute", files+"; echo s > $AZ_BATCH_NODE_SHARED_DIR/s.txt",
			output(n.place("absolute", "wd", "out", "one.txt"), url, "absolute/one", batch.UploadOnSuccess),
			output(n.path("shared", "s*"), url, "absolute", batch.UploadOnSuccess))
		if got.Failure != nil {
			t.Fatalf("outcome is %+v", got.Failure)
		}
		if diff := cmp.Diff(map[string]string{"absolute/one": "1\n", "absolute/s.txt": "s\n"}, s.blobs("absolute/")); diff != "" {
			t.Error(diff)
		}
	})

	t.Run("conditions", func(t *testing.T) {
		all := func(task string) []batch.OutputFile {
			return []batch.OutputFile{
				output("../stdout.txt", url, task+"/success", batch.UploadOnSuccess),
				output("../stdout.txt", url, task+"/failure", batch.UploadOnFailure),
				output("../stdout.txt", url, task+"/completion", batch.UploadOnCompletion),
			}
		}
		out("good", "true", all("good")...)
		out("bad", "exit 1", all("bad")...)
		got := [][]string{nil, nil}
		for i, task := range []string{"good", "bad"} {
			for name := range s.blobs(task + "/") {
				got[i] = append(got[i], name)
			}
			slices.Sort(got[i])
		}
		want := [][]string{{"good/completion", "good/success"}, {"bad/completion", "bad/failure"}}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})

	t.Run("headers of the upload are those of the blob", func(t *testing.T) {
		o := output("out/one.txt", url, "headers/one", batch.UploadOnSuccess)
		o.Destination.Container.UploadHeaders = []batch.UploadHeader{
			{Name: "x-ms-blob-content-type", Value: "text/csv"}, {Name: "Cache-Control", Value: "no-store"}, {Name: "x-ms-meta-kind", Value: "result"},
		}
		if got := out("headers", files, o); got.Failure != nil {
			t.Fatalf("outcome is %+v", got.Failure)
		}
		p, err := s.client.NewBlobClient("headers/one").GetProperties(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		kind := ""
		for name, value := range p.Metadata {
			kind += strings.ToLower(name) + *value
		}
		if *p.ContentType != "text/csv" || *p.CacheControl != "no-store" || kind != "kindresult" {
			t.Errorf("blob has %q, %q, %q", *p.ContentType, *p.CacheControl, kind)
		}
	})

	t.Run("a large file arrives whole", func(t *testing.T) {
		got := out("large", "head -c 9000000 /dev/zero | tr '\\0' x > large", output("large", url, "large/file", batch.UploadOnSuccess))
		if text := s.blobs("large/")["large/file"]; got.Failure != nil || len(text) != 9_000_000 || strings.Trim(text, "x") != "" {
			t.Errorf("%d bytes arrived; %+v", len(text), got.Failure)
		}
	})

	for _, c := range []struct {
		name, task, url string
		want            batch.FailureCode
	}{
		{"may not be written to", "readonly", s.url(sas.ContainerPermissions{Read: true}), batch.FailureUploadAccessDenied},
		{"is not what the signature is for", "nocontainer", strings.Replace(url, "/box", "/nobox", 1), batch.FailureUploadAccessDenied},
	} {
		t.Run("a container that "+c.name+" fails the task, whose exit code stays", func(t *testing.T) {
			got := out(c.task, files, output("../stdout.txt", c.url, "x", batch.UploadOnSuccess))
			if s := summarize(got); s.Code != c.want || s.Exit != 0 || s.Category != batch.UserError {
				t.Errorf("outcome is %+v", s)
			}
			if about(got, "FilePath") != "stdout.txt" || about(got, "FilePattern") != "../stdout.txt" ||
				strings.Contains(fmt.Sprint(got.Failure), "sig=") {
				t.Errorf("details are %v", got.Failure.Details)
			}
		})
	}

	t.Run("a failed upload does not hide why the command failed", func(t *testing.T) {
		got := out("both", "exit 9", output("../stdout.txt", strings.Replace(url, "/box", "/nobox", 1), "x", batch.UploadOnCompletion))
		if s := summarize(got); s.Code != batch.FailureExitCode || s.Exit != 9 {
			t.Errorf("outcome is %+v", s)
		}
	})

	t.Run("links and pipes bring nothing from elsewhere", func(t *testing.T) {
		n.run("victim", shell("echo private > secret"))
		secret := n.place("victim", "wd", "secret")
		script := "ln -s " + secret + " l1; ln -s ../../victim/wd d1; ln -s /etc d2; mkfifo p; echo mine > own; ln -s own l2"
		got := out("thief", script,
			output("*", url, "thief/a", batch.UploadOnCompletion), output("**", url, "thief/b", batch.UploadOnCompletion))
		for name, text := range s.blobs("thief/") {
			if text != "mine\n" {
				t.Errorf("%s has %q", name, text)
			}
		}
		if got.Failure != nil || len(s.blobs("thief/")) != 4 {
			t.Errorf("outcome is %+v, blobs are %v", got.Failure, s.blobs("thief/"))
		}
		for i, pattern := range []string{"d1/secret", "d2/passwd", "l1", secret, "../../victim/wd/secret", "../../../../../../../etc/passwd", "/etc/passwd"} {
			got := out(fmt.Sprint("thief", i), script, output(pattern, url, "loot", batch.UploadOnCompletion))
			if blobs := s.blobs("loot"); len(blobs) > 0 {
				t.Errorf("%s brought %v", pattern, blobs)
			}
			if s := summarize(got); s != (summary{}) && s.Code != batch.FailureUpload {
				t.Errorf("%s: %+v", pattern, s)
			}
		}
	})

	t.Run("an upload ends when the lease does", func(t *testing.T) {
		block := make(chan struct{})
		begun, cut := make(chan struct{}, 10), make(chan struct{}, 10)
		web := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			_, err := io.Copy(io.Discard, r.Body)
			begun <- struct{}{}
			if err == nil {
				select {
				case <-block:
				case <-r.Context().Done():
					cut <- struct{}{}
				}
			}
		}))
		t.Cleanup(web.Close)
		t.Cleanup(func() { close(block) })
		n := makeNode(t, allow(host(web)))
		n.lease = 1500 * time.Millisecond
		n.start()
		run := shell("true")
		run.OutputFiles = []batch.OutputFile{output("../stdout.txt", web.URL+"/a/c", "x", batch.UploadOnCompletion)}
		attempt := n.add("t", run)
		<-begun
		n.change(func() { n.down = errDown })
		<-cut
		n.change(func() { n.down = nil })
		if got := n.result(attempt); got.Phase != batch.PhaseReleased {
			t.Errorf("reported as %+v", got)
		}
	})
}

func TestDisk(t *testing.T) {
	t.Parallel()
	const mib = 1 << 20

	t.Run("the task that fills the node's share is ended", func(t *testing.T) {
		t.Parallel()
		n := newNode(t, func(n *node) { n.settings.Size.Disk = 8 * mib })
		g := n.newGate("g")
		small := n.add("small", shell("head -c 100000 /dev/zero > f; "+g.wait()))
		n.phase("small", batch.PhaseRunning)
		got := n.run("large", shell("mkdir d; i=0; while :; do i=$((i+1)); head -c 1000000 /dev/zero > d/$i || exit 1; sleep 0.01; done"))
		want := summary{137, batch.UserError, batch.FailureDiskFull, "There is not enough disk space on the compute node for the task"}
		if diff := cmp.Diff(want, summarize(got)); diff != "" {
			t.Errorf("outcome (-want +got):\n%s", diff)
		}
		g.open()
		if got := summarize(n.outcome(small)); got != (summary{}) {
			t.Errorf("the other task: %+v", got)
		}
	})

	t.Run("a single file cannot be larger than it", func(t *testing.T) {
		t.Parallel()
		n := newNode(t, func(n *node) { n.settings.Size.Disk = 8 * mib })
		got := summarize(n.run("t", shell("head -c 100000000 /dev/zero > f")))
		info, err := os.Stat(n.place("t", "wd", "f"))
		if err != nil {
			t.Fatal(err)
		}
		if got.Exit == 0 || info.Size() > 8*mib {
			t.Errorf("file has %d bytes, outcome is %+v", info.Size(), got)
		}
	})

	t.Run("what a task fetches counts", func(t *testing.T) {
		t.Parallel()
		web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			block := make([]byte, mib)
			for r.Context().Err() == nil {
				if _, err := w.Write(block); err != nil {
					return
				}
				http.NewResponseController(w).Flush()
				if !pause(r.Context(), time.Millisecond) {
					return
				}
			}
		}))
		t.Cleanup(web.Close)
		n := newNode(t, allow(host(web)), func(n *node) { n.settings.Size.Disk = 8 * mib })
		got := summarize(n.run("t", fetching(batch.ResourceFile{HTTPURL: web.URL, FilePath: "f"})))
		if got.Code != batch.FailureDiskFull || got.Exit != -1 {
			t.Errorf("outcome is %+v", got)
		}
	})

	t.Run("a start task is held to it", func(t *testing.T) {
		t.Parallel()
		n := newNode(t, func(n *node) { n.settings.Size.Disk = 4 * mib }, startTask(batch.StartTask{
			CommandLine: shell("i=0; while :; do i=$((i+1)); head -c 1000000 /dev/zero > $i || exit 1; sleep 0.01; done").CommandLine,
		}))
		if info := n.booted(1).StartTask; info.FailureInfo == nil || info.FailureInfo.Code != batch.FailureDiskFull {
			t.Errorf("start task is %+v", info)
		}
	})
}

func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// The node's machine is refused by all of its addresses, unless a server that
// listens on them all is allowed.
func TestFetchesDoNotReachTheirOwnMachine(t *testing.T) {
	t.Parallel()
	own := ownAddress(t)
	listener, err := net.Listen("tcp", net.JoinHostPort(own, "0"))
	if err != nil {
		t.Fatal(err)
	}
	web := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "secret") }))
	web.Listener.Close()
	web.Listener = listener
	web.Start()
	t.Cleanup(web.Close)
	_, port, err := net.SplitHostPort(host(web))
	if err != nil {
		t.Fatal(err)
	}
	file := batch.ResourceFile{HTTPURL: web.URL, FilePath: "f"}

	n := newNode(t)
	got := n.run("t", fetching(file))
	if s := summarize(got); s.Code != batch.FailureBlobDownload || !strings.Contains(about(got, "Message"), "tasks may not reach "+own) {
		t.Errorf("outcome is %+v, %+v", s, got.Failure)
	}
	for _, allowed := range []string{host(web), "[::]:" + port, "0.0.0.0:" + port} {
		n := newNode(t, allow(allowed))
		if got := summarize(n.run("t", fetching(file))); got != (summary{}) {
			t.Errorf("with %s allowed: %+v", allowed, got)
		}
	}
	other := newNode(t, allow("[::]:1"))
	if got := summarize(other.run("t", fetching(file))); got.Code != batch.FailureBlobDownload {
		t.Errorf("with another port allowed: %+v", got)
	}
}

// ownAddress is an address of this machine besides loopback. What goes there
// does not leave it.
func ownAddress(t *testing.T) string {
	t.Helper()
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, address := range addresses {
		if ip, ok := address.(*net.IPNet); ok && ip.IP.IsGlobalUnicast() && ip.IP.To4() != nil {
			return ip.IP.String()
		}
	}
	t.Skip("SKIPPED: this machine has no address besides loopback")
	return ""
}
