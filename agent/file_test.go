package agent_test

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/batchyard/batchyard/batch"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// names are those of a listing, folders with a slash.
func names(files []batch.File) []string {
	all := []string{}
	for _, f := range files {
		if f.IsDirectory {
			f.Name += "/"
		}
		all = append(all, f.Name)
	}
	return all
}

func errorCode(a fileAnswer) batch.Code {
	if a.Error == nil {
		return ""
	}
	return a.Error.Code
}

// withFiles is a node on which task t has left files, and links that lead out.
func withFiles(t *testing.T) *node {
	n := newNode(t)
	secret := n.folder + "/secret"
	if err := os.WriteFile(secret, []byte("secret"), 0o644); err != nil {
		t.Fatal(err)
	}
	script := strings.Join([]string{
		"printf 0123456789 > digits.txt", "mkdir -p a/b", "echo 1 > a/one", "echo 2 > a/b/two", "echo x > a.txt", ": > empty",
		"ln -s " + secret + " out", "ln -s / slash", "ln -s digits.txt inside", "mkfifo pipe", "mkdir -m 0 closed",
	}, " && ")
	if got := summarize(n.run("t", shell(script))); got != (summary{}) {
		t.Fatalf("task: %+v, %s", got, n.text(n.place("t", "stderr.txt")))
	}
	return n
}

func TestFileList(t *testing.T) {
	t.Parallel()
	n := withFiles(t)
	list := func(r batch.FileRequest) fileAnswer {
		r.Op = batch.FileList
		return n.ask(r)
	}
	ofTask := batch.FileRequest{Job: "j", Task: "t"}
	all := []string{
		"stderr.txt", "stdout.txt", "wd/", "wd/a/", "wd/a/b/", "wd/a/b/two", "wd/a/one", "wd/a.txt", "wd/closed/", "wd/digits.txt",
		"wd/empty", "wd/inside", "wd/out", "wd/pipe", "wd/slash",
	}

	t.Run("only the directory itself", func(t *testing.T) {
		if diff := cmp.Diff([]string{"stderr.txt", "stdout.txt", "wd/"}, names(list(ofTask).Files)); diff != "" {
			t.Error(diff)
		}
	})

	t.Run("recursive, without following links", func(t *testing.T) {
		r := ofTask
		r.Recursive = true
		if diff := cmp.Diff(all, names(list(r).Files)); diff != "" {
			t.Error(diff)
		}
	})

	t.Run("pages of each size have everything once and in order", func(t *testing.T) {
		for size := 1; size <= len(all); size++ {
			r := ofTask
			r.Recursive, r.Max = true, size
			var got []string
			for {
				page := list(r)
				got = append(got, names(page.Files)...)
				if !page.More {
					break
				}
				if len(page.Files) != size {
					t.Fatalf("a page of %d has %d files", size, len(page.Files))
				}
				r.After = page.Files[size-1].Name
			}
			if diff := cmp.Diff(all, got); diff != "" {
				t.Errorf("pages of %d: %s", size, diff)
			}
		}
	})

	t.Run("by prefix", func(t *testing.T) {
		for prefix, want := range map[string][]string{
			"wd/a":   {"wd/a/", "wd/a/b/", "wd/a/b/two", "wd/a/one", "wd/a.txt"},
			"wd/a/":  {"wd/a/b/", "wd/a/b/two", "wd/a/one"},
			"std":    {"stderr.txt", "stdout.txt"},
			"nobody": {},
		} {
			r := ofTask
			r.Recursive, r.Prefix = true, prefix
			if diff := cmp.Diff(want, names(list(r).Files)); diff != "" {
				t.Errorf("prefix %q: %s", prefix, diff)
			}
		}
	})

	t.Run("the direct children of a folder, by a prefix that ends in a slash", func(t *testing.T) {
		for prefix, want := range map[string][]string{
			"wd/":         {"wd/a/", "wd/a.txt", "wd/closed/", "wd/digits.txt", "wd/empty", "wd/inside", "wd/out", "wd/pipe", "wd/slash"},
			"wd/a/":       {"wd/a/b/", "wd/a/one"},
			"wd/a":        {"wd/a/", "wd/a.txt"},
			"wd/e":        {"wd/empty"},
			"w":           {"wd/"},
			"wd/none/":    {},
			"wd/empty/":   {},
			"wd/slash/":   {},
			"wd/../":      {},
			"../":         {},
			"/":           {},
			"wd/digits.t": {"wd/digits.txt"},
		} {
			for max := range 3 {
				r := ofTask
				r.Prefix, r.Max = prefix, max
				var got []string
				for page := list(r); ; page = list(r) {
					got = append(got, names(page.Files)...)
					if !page.More {
						break
					}
					r.After = page.Files[len(page.Files)-1].Name
				}
				if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
					t.Errorf("prefix %q, pages of %d: %s", prefix, max, diff)
				}
			}
		}
		if got := names(list(batch.FileRequest{Prefix: "workitems/j/job-1/t/wd/a/"}).Files); len(got) != 2 {
			t.Errorf("of the node: %q", got)
		}
	})

	t.Run("of the node, names from its root", func(t *testing.T) {
		got := names(list(batch.FileRequest{}).Files)
		if diff := cmp.Diff([]string{"applications/", "fsmounts/", "shared/", "volatile/", "workitems/"}, got); diff != "" {
			t.Error(diff)
		}
		r := batch.FileRequest{Recursive: true, Prefix: "workitems/j/job-1/t/wd/a/b"}
		if diff := cmp.Diff([]string{"workitems/j/job-1/t/wd/a/b/", "workitems/j/job-1/t/wd/a/b/two"}, names(list(r).Files)); diff != "" {
			t.Error(diff)
		}
	})

	t.Run("of a task that is no longer here", func(t *testing.T) {
		if got := errorCode(list(batch.FileRequest{Job: "j", Task: "gone"})); got != batch.CodeTaskFilesCleanedup {
			t.Errorf("code is %q", got)
		}
	})

	t.Run("a file says what it is", func(t *testing.T) {
		got := n.ask(batch.FileRequest{Op: batch.FileStat, Job: "j", Task: "t", Path: "wd/digits.txt"}).File
		if got == nil || got.Size != 10 || got.IsDirectory || got.Mode&syscall.S_IFMT != syscall.S_IFREG ||
			!strings.HasPrefix(got.ContentType, "text/plain") || got.Modified.IsZero() {
			t.Errorf("file is %+v", got)
		}
		if got := n.ask(batch.FileRequest{Op: batch.FileStat, Job: "j", Task: "t", Path: "wd/a"}).File; got == nil || !got.IsDirectory {
			t.Errorf("folder is %+v", got)
		}
	})
}

func TestFileRead(t *testing.T) {
	t.Parallel()
	n := withFiles(t)
	read := func(path string, offset, length int64) fileAnswer {
		return n.ask(batch.FileRequest{Op: batch.FileRead, Job: "j", Task: "t", Path: path, Offset: offset, Length: length})
	}

	t.Run("ranges", func(t *testing.T) {
		for _, c := range []struct {
			offset, length int64
			want           string
			code           batch.Code
		}{
			{0, -1, "0123456789", ""}, {3, -1, "3456789", ""}, {3, 4, "3456", ""}, {8, 100, "89", ""}, {0, 1, "0", ""},
			{10, -1, "", batch.CodeInvalidRange}, {100, 1, "", batch.CodeInvalidRange}, {-1, 4, "", batch.CodeInvalidRange},
		} {
			got := read("wd/digits.txt", c.offset, c.length)
			if got.body != c.want || errorCode(got) != c.code {
				t.Errorf("%d+%d: %q %q, want %q %q", c.offset, c.length, got.body, errorCode(got), c.want, c.code)
			}
			if c.offset >= 0 && got.File.Size != 10 {
				t.Errorf("%d+%d: the file is told to have %d bytes", c.offset, c.length, got.File.Size)
			}
		}
	})

	t.Run("an empty file", func(t *testing.T) {
		if got := read("wd/empty", 0, -1); got.Error != nil || got.body != "" || got.File.Size != 0 {
			t.Errorf("answer is %+v", got)
		}
	})

	t.Run("what cannot be read, or would lead out", func(t *testing.T) {
		for path, want := range map[string]batch.Code{
			"wd/missing":                batch.CodeFileNotFound,
			"wd/digits.txt/deeper":      batch.CodeFileNotFound,
			"wd/a":                      batch.CodeUnsupportedOnDirectory,
			"wd/pipe":                   batch.CodeFileNotFound,
			"wd/out":                    batch.CodeFileNotFound,
			"wd/slash/etc/passwd":       batch.CodeFileNotFound,
			"../../../../../etc/passwd": batch.CodeFileNotFound,
			"/etc/passwd":               batch.CodeFileNotFound,
			strings.Repeat("x", 300):    batch.CodeFileNotFound,
		} {
			if got := read(path, 0, -1); errorCode(got) != want || got.body != "" {
				t.Errorf("%s: %q with %q, want %q", path, errorCode(got), got.body, want)
			}
		}
	})

	t.Run("dots that stay inside, and links too", func(t *testing.T) {
		for _, path := range []string{"wd/a/../digits.txt", "./wd//digits.txt", "wd/inside"} {
			if got := read(path, 0, -1); got.body != "0123456789" {
				t.Errorf("%s: %+v", path, got)
			}
		}
	})

	t.Run("an operation of the future", func(t *testing.T) {
		if got := errorCode(n.ask(batch.FileRequest{Op: "rename"})); got != batch.CodeNotImplemented {
			t.Errorf("code is %q", got)
		}
	})

	t.Run("many at a time while tasks run", func(t *testing.T) {
		up, g := n.newGate("up"), n.newGate("g")
		attempt := n.add("busy", shell("echo now; "+up.reach("up")+"; "+g.wait()))
		up.reached()
		answers := make(chan string)
		for range 20 {
			go func() {
				got := n.ask(batch.FileRequest{Op: batch.FileRead, Job: "j", Task: "busy", Path: "stdout.txt", Length: -1})
				answers <- got.body
			}()
		}
		for range 20 {
			if got := <-answers; got != "now\n" {
				t.Errorf("answer is %q", got)
			}
		}
		g.open()
		n.result(attempt)
	})
}

func TestFileDelete(t *testing.T) {
	t.Parallel()
	n := withFiles(t)
	remove := func(path string, recursive bool) batch.Code {
		return errorCode(n.ask(batch.FileRequest{Op: batch.FileDelete, Job: "j", Task: "t", Path: path, Recursive: recursive}))
	}
	for _, c := range []struct {
		name, path string
		recursive  bool
		want       batch.Code
		gone       bool
	}{
		{"a file", "wd/digits.txt", false, "", true},
		{"a file that is not there", "wd/digits.txt", false, batch.CodeFileNotFound, true},
		{"a folder that is not empty", "wd/a", false, batch.CodeUnsupportedOnDirectory, false},
		{"a folder with all in it", "wd/a", true, "", true},
		{"a link, not what it leads to", "wd/out", true, "", true},
		{"a link to the root of the machine", "wd/slash", true, "", true},
		{"what is behind a link that leads out", "wd/slash/tmp", true, batch.CodeFileNotFound, true},
		{"a pipe", "wd/pipe", false, "", true},
		{"the directory of the task", "", true, batch.CodeUnsupportedOnDirectory, false},
		{"the same by dots", "wd/..", true, batch.CodeUnsupportedOnDirectory, false},
		{"the same by too many dots", "../../..", true, batch.CodeUnsupportedOnDirectory, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := remove(c.path, c.recursive); got != c.want {
				t.Errorf("code is %q, want %q", got, c.want)
			}
			if got := !exists(n.place("t", c.path)); got != c.gone {
				t.Errorf("gone is %v, want %v", got, c.gone)
			}
		})
	}
	t.Run("what every node has is emptied", func(t *testing.T) {
		if err := os.WriteFile(n.path("shared", "old"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if got := errorCode(n.ask(batch.FileRequest{Op: batch.FileDelete, Path: "shared", Recursive: true})); got != "" {
			t.Errorf("code is %q", got)
		}
		if exists(n.path("shared", "old")) || !exists(n.path("shared")) {
			t.Error("shared is not an empty folder")
		}
	})
	if !exists("/tmp") || !exists(n.folder+"/secret") || !exists(n.path("workitems")) {
		t.Error("something outside was deleted")
	}
}

func TestLargeLists(t *testing.T) {
	t.Parallel()
	pages := func(n *node, r batch.FileRequest) (all []string, sizes []int) {
		r.Op, r.Recursive = batch.FileList, true
		for {
			page := n.ask(r)
			if page.Error != nil {
				t.Fatalf("after %q: %+v", r.After, page.Error)
			}
			sizes = append(sizes, len(page.Files))
			all = append(all, names(page.Files)...)
			if !page.More {
				return all, sizes
			}
			r.After = page.Files[len(page.Files)-1].Name
		}
	}

	t.Run("a folder of many files, read in pieces", func(t *testing.T) {
		t.Parallel()
		n := newNode(t)
		n.booted(1)
		var want []string
		for i := range 5000 {
			name := fmt.Sprintf("shared/%05d", i*7919%100_000)
			if i%50 == 0 {
				want = append(want, name+"/", name+"/in")
				if err := errors.Join(os.Mkdir(n.path(name), 0o755), os.WriteFile(n.path(name, "in"), nil, 0o600)); err != nil {
					t.Fatal(err)
				}
				continue
			}
			want = append(want, name)
			if err := os.WriteFile(n.path(name), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		slices.Sort(want)
		got, sizes := pages(n, batch.FileRequest{Prefix: "shared/"})
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		if len(sizes) != 6 || sizes[0] != 1000 {
			t.Errorf("pages have %d files", sizes)
		}
	})

	t.Run("a page ends by the bytes of its names too", func(t *testing.T) {
		t.Parallel()
		n := newNode(t)
		n.booted(1)
		root, err := os.OpenRoot(n.path("shared"))
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		deep := strings.Repeat(strings.Repeat("d", 250)+"/", 15)
		if err := root.MkdirAll(deep, 0o755); err != nil {
			t.Fatal(err)
		}
		for i := range 900 {
			f, err := root.Create(deep + fmt.Sprintf("%03d", i) + strings.Repeat("\x01", 200))
			if err != nil {
				t.Fatal(err)
			}
			f.Close()
		}
		got, sizes := pages(n, batch.FileRequest{Prefix: "shared/"})
		if len(got) != 915 || len(sizes) < 3 {
			t.Errorf("%d files on pages of %d", len(got), sizes)
		}
	})

	t.Run("few at a time, and none for who has gone", func(t *testing.T) {
		t.Parallel()
		n := newNode(t)
		n.booted(1)
		for i := range 2000 {
			if err := os.WriteFile(n.path("shared", fmt.Sprint(i)), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		n.mu.Lock()
		n.stall = make(chan struct{})
		n.mu.Unlock()
		waiting := map[string]chan fileAnswer{}
		n.change(func() {
			for i := range 64 {
				id := fmt.Sprint("list", i)
				waiting[id] = make(chan fileAnswer, 1)
				n.files[id] = waiting[id]
				n.orders.Files = append(n.orders.Files, batch.FileRequest{ID: id, Op: batch.FileList, Recursive: true})
			}
		})
		n.until("lists are answered", func() bool { return n.stalled == 2 })
		n.change(func() { // all but one go
			for id := range waiting {
				if id != "list63" {
					n.giveUp(id)
				}
			}
		})
		applied := n.orders.Revision
		n.until("the node knows", func() bool { return n.report.Revision == applied })
		n.mu.Lock()
		close(n.stall)
		n.mu.Unlock()
		if got := <-waiting["list63"]; got.Error != nil || len(got.Files) != 1000 {
			t.Errorf("who stayed got %d files, %+v", len(got.Files), got.Error)
		}
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.stalled > 4 {
			t.Errorf("%d lists were answered", n.stalled)
		}
	})
}
