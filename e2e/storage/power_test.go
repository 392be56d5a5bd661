package storage_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/batchyard/batchyard/blob"
	"github.com/batchyard/batchyard/store"
	"github.com/google/go-cmp/cmp"
)

var (
	seedFlag = flag.Uint64("seed", 0, "seed of the power cuts and of the clients' work; 0 for a new one")
	cutsFlag = flag.Int("cuts", 200, "number of power cuts")
)

// TestPowerCuts cuts the power of a disk at random moments of real work and looks what is left.
func TestPowerCuts(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("strace"); err != nil {
		t.Skip("NO POWER CUTS: there is no strace; tools/apt-install strace")
	}
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-seed %d -cuts %d", seed, *cutsFlag)
	r := newRecord(t, seed)

	t.Run("what was answered is there and the database is sound", func(t *testing.T) {
		begin := time.Now()
		lost := r.cutAll(t, rand.New(rand.NewPCG(seed, 1)), *cutsFlag, nil, false)
		for _, problem := range lost {
			t.Errorf("%.2000s", problem)
		}
		t.Logf("%d cuts of %d events with %d answers in %s", *cutsFlag, len(r.events), r.answers, time.Since(begin).Round(time.Millisecond))
	})

	// The same checks on disks that ignore syncs.
	is := func(suffix string) func(string, *item) bool {
		return func(path string, _ *item) bool { return strings.HasSuffix(path, suffix) }
	}
	for name, ignores := range map[string]func(string, *item) bool{
		"the log of the database":              is(".db-wal"),
		"the database when it is checkpointed": func(path string, i *item) bool { return strings.HasSuffix(path, ".db") && len(i.seen) > 64<<10 },
		"the folder of the database":           func(path string, _ *item) bool { return path == "data" },
		"the folder above it":                  func(path string, _ *item) bool { return path == "." },
		"content":                              func(path string, i *item) bool { return strings.HasPrefix(path, "data/blobs/") && !i.folder },
		"names of content":                     func(path string, i *item) bool { return strings.HasPrefix(path, "data/blobs/") && i.folder },
		"folders of content":                   func(path string, _ *item) bool { return path == "data/blobs" },
	} {
		t.Run("a disk that does not sync "+name+" is noticed", func(t *testing.T) {
			lost := r.cutAll(t, rand.New(rand.NewPCG(seed, 2)), *cutsFlag, ignores, true)
			if len(lost) == 0 {
				t.Error("nothing was lost: the checks are blind")
			} else {
				t.Logf("%.300s", lost[0])
			}
		})
	}
}

// record is what a server did with its disk while clients worked.
type record struct {
	program string
	events  []event
	clients []*client
	answers int
	checked []int // moments after which something was answered
}

// newRecord lets clients work on a server that is stopped once on the way, and killed at the end.
func newRecord(t *testing.T, seed uint64) *record {
	t.Helper()
	r := &record{program: program(t)}
	random := func(n int) *rand.Rand { return rand.New(rand.NewPCG(seed, uint64(100+n))) }
	r.clients = []*client{
		taskClient(0, 70, 5, random(0)), taskClient(1, 36, 6000, random(1)),
		blobClient(2, 90, random(2)), blobClient(3, 90, random(3)),
	}
	folder := t.TempDir()
	watched := filepath.Join(folder, "disk")
	if err := os.Mkdir(watched, 0o711); err != nil {
		t.Fatal(err)
	}
	r.run(t, watched, 0.5, syscall.SIGTERM)
	r.run(t, watched, 1, syscall.SIGKILL)
	r.compare(t, watched)
	for n, e := range r.events {
		if e.kind == evAnswer {
			r.answers++
			r.checked = append(r.checked, n+1)
		}
	}
	steps := 0
	for _, c := range r.clients {
		steps += len(c.steps)
	}
	if r.answers != steps {
		t.Fatalf("%d answers in the record, of %d", r.answers, steps)
	}
	return r
}

// run lets the clients make a share of their calls and reads the record of it.
func (r *record) run(t *testing.T, watched string, share float64, signal syscall.Signal) {
	t.Helper()
	trace := filepath.Join(t.TempDir(), "trace")
	s, err := launch(t.Context(), r.program, filepath.Join(watched, "data"), 0, t.Output(), "strace", "-f", "--seccomp-bpf", "-y", "-qq",
		"-e", "signal=none", "-e", "trace="+traced, "-s", "100000000", "-o", trace)
	if err != nil {
		t.Skipf("NO POWER CUTS: strace cannot watch a process here: %v", err)
	}
	var working sync.WaitGroup
	for _, c := range r.clients {
		working.Go(func() {
			if err := c.run(t.Context(), s, int(share*float64(len(c.steps)))); err != nil {
				t.Error(err)
			}
		})
	}
	working.Wait()
	if err := s.end(signal); err != nil {
		t.Error(err)
	}
	events, err := readFile(trace, watched)
	if err != nil {
		t.Error(err)
	}
	if t.Failed() {
		t.FailNow()
	}
	r.events = append(r.events, events...)
}

// compare holds the model against the folder that the server left.
func (r *record) compare(t *testing.T, watched string) {
	t.Helper()
	d := newDisk()
	for _, e := range r.events {
		if err := d.apply(e); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.same(watched); err != nil {
		t.Fatalf("the record is not complete: %v", err)
	}
}

// moments are where to cut: half of them anywhere, half right after the beginning of an answer,
// when what it says has just become a promise.
func (r *record) moments(random *rand.Rand, cuts int) []int {
	moments := make([]int, cuts)
	for n := range moments {
		moments[n] = random.IntN(len(r.events) + 1)
		if n%2 == 0 {
			moments[n] = r.checked[random.IntN(len(r.checked))]
		}
	}
	slices.Sort(moments)
	return moments
}

// cutAll cuts the power at so many moments and gives what was wrong after it; only the first
// trouble if that is enough.
func (r *record) cutAll(t *testing.T, random *rand.Rand, cuts int, ignores func(string, *item) bool, first bool) (problems []string) {
	t.Helper()
	var (
		guard   sync.Mutex
		working sync.WaitGroup
		limit   = make(chan struct{}, runtime.GOMAXPROCS(0))
		d       = newDisk()
		given   = map[int]int{} // answers, by client
		at      = 0
	)
	d.ignores = ignores
	found := func() bool {
		guard.Lock()
		defer guard.Unlock()
		return first && len(problems) > 0
	}
	for n, moment := range r.moments(random, cuts) {
		for ; at < moment; at++ {
			e := r.events[at]
			if e.kind == evAnswer {
				given[e.answer.client] = e.answer.step + 1
			}
			if err := d.apply(e); err != nil {
				t.Fatal(err)
			}
		}
		limit <- struct{}{}
		folder, answered := newFolderInMemory(t), maps.Clone(given)
		if err := d.fail(random, folder); err != nil {
			t.Fatal(err)
		}
		working.Go(func() {
			defer func() { <-limit }()
			err := r.check(t.Context(), filepath.Join(folder, "data"), answered, n%2 == 0)
			if err := os.RemoveAll(folder); err != nil {
				t.Error(err)
			}
			if err != nil {
				guard.Lock()
				defer guard.Unlock()
				problems = append(problems, fmt.Sprintf("cut %d, after event %d: %v", n, moment, err))
			}
		})
		if found() {
			break
		}
	}
	working.Wait()
	return problems
}

// newFolderInMemory is where a cut is looked at: syncs cost nothing there. It is on the disk where
// there is little memory for it.
func newFolderInMemory(t *testing.T) string {
	t.Helper()
	const memory, enough = "/dev/shm", 1 << 30
	var room syscall.Statfs_t
	if syscall.Statfs(memory, &room) != nil || room.Bavail*uint64(room.Bsize) < enough {
		return t.TempDir()
	}
	folder, err := os.MkdirTemp(memory, "batchyard-cut-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) }) // it is gone unless the test broke off
	return folder
}

// check starts a server on what is left and compares; the database is looked at before or after.
func (r *record) check(ctx context.Context, data string, answered map[int]int, before bool) error {
	if before {
		if err := sound(ctx, data); err != nil {
			return err
		}
	}
	var log strings.Builder
	s, err := launch(ctx, r.program, data, 0, &log)
	if err != nil {
		return fmt.Errorf("%w\n%s", err, log.String())
	}
	var errs []error
	for _, c := range r.clients {
		errs = append(errs, c.check(ctx, s, answered[c.number]))
	}
	errs = append(errs, s.end(syscall.SIGKILL))
	if !before {
		errs = append(errs, sound(ctx, data))
	}
	return errors.Join(errs...)
}

// check reads what is there of a client's work.
func (c *client) check(ctx context.Context, s *server, answered int) error {
	got, err := c.reads(ctx, s, c.number)
	if err != nil {
		return fmt.Errorf("client %d: %w", c.number, err)
	}
	want := c.after(answered)
	if maps.Equal(got, want) || maps.Equal(got, c.after(answered+1)) {
		return nil
	}
	return fmt.Errorf("client %d after %d answers (-want +got):\n%s", c.number, answered, cmp.Diff(want, got))
}

// sound looks into the database and the folder of content.
func sound(ctx context.Context, data string) (err error) {
	// A day later: old enough to be swept.
	later := func() time.Time { return time.Now().Add(24 * time.Hour) }
	db, err := store.Open(ctx, store.Options{URL: filepath.Join(data, "batchyard.db"), Now: later})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	content, err := blob.OpenDisk(filepath.Join(data, "blobs"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, content.Close()) }()
	keeper, err := blob.New(blob.Options{DB: db, Bytes: content, Now: later})
	if err != nil {
		return err
	}
	if err := keeper.Sweep(ctx); err != nil {
		return err
	}
	return db.View(ctx, func(tx *store.Tx) error {
		for _, q := range []struct{ what, text, want string }{
			{"integrity", `PRAGMA integrity_check`, "ok"},
			{"foreign keys", `PRAGMA foreign_key_check`, ""},
			{"counters of jobs", `
				SELECT j.id FROM job j
				WHERE j.state <> 'deleting' -- whose tasks go a few at a time
				AND (j.active, j.running, j.succeeded, j.failed, j.active_slots, j.bound) IS NOT (
					SELECT count(*) FILTER (WHERE state = 'active'), count(*) FILTER (WHERE state IN ('preparing', 'running')),
						count(*) FILTER (WHERE state = 'completed' AND result = 'success'),
						count(*) FILTER (WHERE state = 'completed' AND result <> 'success'),
						coalesce(sum(slots) FILTER (WHERE state = 'active'), 0), count(*) FILTER (WHERE bound)
					FROM task t WHERE t.account = j.account AND t.job = j.id)`, ""},
			{"tasks without a job", `
				SELECT t.id FROM task t LEFT JOIN job j ON j.account = t.account AND j.id = t.job WHERE j.id IS NULL`, ""},
		} {
			got, err := texts(tx, q.text)
			if err != nil {
				return fmt.Errorf("%s: %w", q.what, err)
			}
			if strings.Join(got, " ") != q.want {
				return fmt.Errorf("%s: %q", q.what, got)
			}
		}
		return sameFiles(tx, filepath.Join(data, "blobs"))
	})
}

// sameFiles compares the files of content with the rows that speak of them.
func sameFiles(tx *store.Tx, folder string) error {
	want, err := texts(tx, `
		SELECT content FROM storage_blob WHERE content <> '' AND blocks = 0
		UNION SELECT file FROM storage_part UNION SELECT file FROM storage_block`)
	if err != nil {
		return err
	}
	paths, err := filepath.Glob(filepath.Join(folder, "*", "*"))
	got := make([]string, len(paths))
	for n, path := range paths {
		got[n] = filepath.Base(path)
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		return fmt.Errorf("files of content (-in rows +in the folder):\n%s", cmp.Diff(want, got))
	}
	return err
}

// texts are the first columns of all rows.
func texts(tx *store.Tx, query string) (all []string, err error) {
	rows, err := tx.Query(query)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	columns, err := rows.Columns()
	if err != nil {
		return nil, err
	}
	for rows.Next() {
		var first string
		into := []any{&first}
		for range columns[1:] {
			into = append(into, new(any))
		}
		if err := rows.Scan(into...); err != nil {
			return nil, err
		}
		all = append(all, first)
	}
	return all, rows.Err()
}
