package agent

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

// What others free does not hide what a command writes.
func TestWhenTheDiskIsMeasured(t *testing.T) {
	t.Parallel()
	const gib = 1 << 30
	a := New(Options{})
	w := newDiskWatch(nil, 8*gib, a)
	defer w.watch("somewhere", nil)()
	for name, c := range map[string]struct {
		free []int64 // look by look, in GiB, after 20 at the measuring
		due  bool
	}{
		"nothing moves":                             {[]int64{20, 20, 20}, false},
		"little is written":                         {[]int64{19, 18, 17}, false},
		"half of what is left is written":           {[]int64{19, 17, 16}, true},
		"eight are freed at once":                   {[]int64{28}, true},
		"as much is freed as written, in turns":     {[]int64{18, 20, 18, 20}, true},
		"more is freed than written, all the while": {[]int64{22, 23, 24}, true},
	} {
		last := measuring{at: time.Now(), room: 8 * gib, free: 20 * gib}
		for _, free := range c.free {
			last.see(free * gib)
		}
		if got := w.due(last); got != c.due {
			t.Errorf("%s: due is %v", name, got)
		}
	}
}

// emptier is a keeper that empties a folder and counts how often.
type emptier struct {
	Keeper
	folder  string
	emptied int
}

func (e *emptier) Clear(context.Context) error {
	e.emptied++
	return os.RemoveAll(e.folder)
}

// Temporary files are removed once from a share that tasks' own files use up.
func TestTemporaryFilesAreRemovedOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const mib = 1 << 20
		a := New(Options{State: t.TempDir(), AvailableMemory: func() int64 { return 1 << 40 }})
		files := filepath.Join(a.State, scratchName, "node", "tmp", "files")
		keeper := &emptier{folder: files}
		tree, err := openTree(t.TempDir())
		if err == nil {
			err = os.MkdirAll(files, 0o700)
		}
		for _, name := range []string{filepath.Join(files, "f"), filepath.Join(tree.path, "f")} {
			if err == nil {
				err = os.WriteFile(name, make([]byte, 5*mib), 0o600)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		defer tree.close()
		working, stop := context.WithCancel(t.Context())
		a.working, a.tree, a.keeper, a.leftovers = working, tree, keeper, &leftovers{agent: a}
		a.disk = newDiskWatch(tree, 4*mib, a)
		done := make(chan struct{})
		go func() { defer close(done); a.disk.run() }()
		time.Sleep(time.Minute)
		stop()
		<-done
		if keeper.emptied != 1 || !a.health.has(causeShare) {
			t.Errorf("emptied %d times; the share is used up: %v", keeper.emptied, a.health.has(causeShare))
		}
	})
}

// A node that was set aside, and on which a task began before it was tried again,
// is well.
func TestStartMeanwhile(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		working, stop := context.WithCancel(t.Context())
		a := New(Options{})
		a.working = working
		for range severalOwn {
			a.starts.failed("job", true, "no reason")
		}
		if a.health.fit() {
			t.Error("the node is not set aside")
		}
		a.starts.began()
		time.Sleep(longestAside)
		if errors := a.health.list(); len(errors) > 0 {
			t.Errorf("the node says %+v", errors)
		}
		stop()
		a.work.Wait()
	})
}
