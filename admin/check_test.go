package admin_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/batchyard/batchyard/admin"
	"github.com/batchyard/batchyard/site"
	"github.com/batchyard/batchyard/store"
)

func TestSoundDataHaveNothingWrong(t *testing.T) {
	t.Parallel()
	each(t, func(h *house) {
		if diff := cmp.Diff([]admin.Finding(nil), h.fsck(deep)); diff != "" {
			h.t.Errorf("want nothing (-), found (+):\n%s", diff)
		}
		db := h.open() // a server runs
		if diff := cmp.Diff([]admin.Finding(nil), h.fsck(deep)); diff != "" {
			h.t.Errorf("beside a server want nothing (-), found (+):\n%s", diff)
		}
		h.check(db.Close())
		if diff := cmp.Diff([]admin.Finding(nil), h.fsck(repair)); diff != "" {
			h.t.Errorf("to mend want nothing (-), found (+):\n%s", diff)
		}
	})
}

// TestDamage makes every kind of damage. Each is named, mended, and gone then;
// and the data are of use again.
func TestDamage(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		damage func(h *house)
		want   []string // kinds that are found
		held   bool     // tasks are held until the leases of nodes are over
	}{
		{name: "a task runs and no node holds it", want: []string{"task-runs-nowhere", "node-counts", "job-counts"}, held: true, damage: func(h *house) {
			h.change(`UPDATE task SET bound = FALSE WHERE id = 'runs'`)
		}},
		{name: "a task is held by a node that does not exist", want: []string{"task-held-by-nobody", "node-counts"}, held: true, damage: func(h *house) {
			h.change(`UPDATE task SET node = 'tvmps_gone' WHERE id = 'held'`)
		}},
		{name: "a task runs on a node of no name", want: []string{"task-held-by-nobody", "node-counts"}, held: true, damage: func(h *house) {
			h.change(`UPDATE task SET node = '' WHERE id = 'runs'`)
		}},
		{name: "a completed task is held", want: []string{"task-completed-and-held", "node-counts", "job-counts"}, damage: func(h *house) {
			h.change(`UPDATE task SET bound = TRUE WHERE id = 'well'`)
		}},
		{name: "a completed task has no result", want: []string{"task-without-result", "job-counts"}, damage: func(h *house) {
			h.change(`UPDATE task SET result = '', ended = NULL WHERE id = 'well'`)
		}},
		{name: "a task is of a job that does not exist", want: []string{"task-without-job"}, held: true, damage: func(h *house) {
			h.change(`DELETE FROM job`)
		}},
		{name: "an attempt is before the first", want: []string{"task-attempt"}, damage: func(h *house) {
			h.change(`UPDATE task SET attempt = 1 WHERE id = 'waits'`)
		}},
		{name: "a job counts wrongly", want: []string{"job-counts"}, damage: func(h *house) {
			h.change(`UPDATE job SET active = active + 3, succeeded_slots = 0`)
		}},
		{name: "a job is completed and its tasks are not", want: []string{"job-completed-early"}, damage: func(h *house) {
			h.change(`UPDATE job SET state = 'completed'`)
		}},
		{name: "a node counts wrongly", want: []string{"node-counts"}, damage: func(h *house) {
			h.change(`UPDATE node SET bound_slots = 3, free = 1 WHERE bound_tasks = 2`)
		}},
		{name: "a task has lost its specification", want: []string{"task-without-specification"}, held: true, damage: func(h *house) {
			h.change(`DELETE FROM specification WHERE id = 'waits'`)
		}},
		{name: "a specification is of no task", want: []string{"specification-without-task"}, damage: func(h *house) {
			h.change(`INSERT INTO specification (account, job, id, body) VALUES ('acct', 'job', 'ghost', '{}')`)
		}},
		{name: "a queue has lost its head", want: []string{"queue"}, damage: func(h *house) {
			h.change(`UPDATE queue SET head = NULL`)
		}},
		{name: "a queue is missing", want: []string{"queue"}, damage: func(h *house) { h.change(`DELETE FROM queue`) }},
		{name: "a queue is closed", want: []string{"queue"}, damage: func(h *house) {
			h.change(`UPDATE queue SET open = FALSE`)
		}},
		{name: "a queue is of another pool and priority", want: []string{"queue"}, damage: func(h *house) {
			h.change(`UPDATE queue SET pool = 'elsewhere', priority = 7`)
		}},
		{name: "a queue has tasks that nobody added", want: []string{"queue"}, damage: func(h *house) {
			h.change(`INSERT INTO queue (account, job, slots, pool, priority, open, head) VALUES ('acct', 'job', 3, 'pool', 0, TRUE, 7)`)
		}},
		{name: "a node is marked for the scheduler wrongly", want: []string{"node-flag"}, damage: func(h *house) {
			h.change(`UPDATE node SET takes = FALSE`)
		}},
		{name: "a node is of a pool that does not exist", held: true, damage: func(h *house) { h.change(`DELETE FROM pool`) },
			want: []string{"node-without-pool"}},
		{name: "a pool counts wrongly", want: []string{"pool-counts"}, damage: func(h *house) {
			h.change(`UPDATE pool SET dedicated = 5, allocation_state = 'steady'`)
		}},
		{name: "a removal is for a node that does not exist", want: []string{"removal-without-node"}, damage: func(h *house) {
			h.change(`INSERT INTO removal (node, id, job, task) VALUES ('tvmps_gone', 1, 'job', 'well')`)
		}},
		{name: "a container is there and to be purged", want: []string{"container-dropped-and-there"}, damage: func(h *house) {
			h.change(`INSERT INTO storage_dropped (container, dropped) VALUES ('life', 1)`)
		}},
		{name: "blobs are in a container that does not exist", want: []string{"blob-without-container"}, damage: func(h *house) {
			h.change(`DELETE FROM storage_container`)
		}},
		{name: "blocks are of a blob that does not exist", want: []string{"block-without-blob"}, damage: func(h *house) {
			h.change(`INSERT INTO storage_part (content, seq, block, start, size, file) VALUES ('other', 0, 'a', 0, 1, 'x')`)
		}},
		{name: "a blob lacks a block", want: []string{"blob-incomplete"}, damage: func(h *house) {
			h.change(`DELETE FROM storage_part WHERE block = 'b'`)
		}},
		{name: "a blob lacks its bytes in the database", want: []string{"blob-incomplete"}, damage: func(h *house) {
			h.change(`INSERT INTO storage_blob (container, name, etag, size, created, modified, properties, content, blocks, data)
				VALUES ('life', 'empty', '1', 7, 1, 1, '{}', '', 0, NULL)`)
		}},
		{name: "a blob lacks its file", want: []string{"blob-without-file"}, damage: func(h *house) { h.check(os.Remove(h.path("whole"))) }},
		{name: "a blob of blocks lacks a file", want: []string{"blob-without-file"}, damage: func(h *house) { h.check(os.Remove(h.path("part2"))) }},
		{name: "a blob's file is too short", want: []string{"blob-without-file"}, damage: func(h *house) { h.check(os.Truncate(h.path("whole"), 2)) }},
		{name: "a block lacks its file", want: []string{"block-without-file"}, damage: func(h *house) { h.check(os.Remove(h.path("block"))) }},
		{name: "a file is of no blob", want: []string{"file-without-blob"}, damage: func(h *house) {
			h.leave("blobs/a/aorphan")
		}},
		{name: "an upload was cut off", want: []string{"file-without-blob"}, damage: func(h *house) {
			h.leave("blobs/b/bupload.part")
		}},
		{name: "a folder is of no node", want: []string{"folder-without-node"}, damage: func(h *house) {
			h.leave("nodes/tvmps_gone/state/agent.lock")
			h.age("nodes/tvmps_gone")
		}},
		{name: "a copy of the database was cut off", want: []string{"temporary-file"}, damage: func(h *house) {
			h.leave("batchyard.db.before-0003.partial")
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			each(t, func(h *house) {
				test.damage(h)
				found := slices.DeleteFunc(h.fsck(), func(f admin.Finding) bool { return f.LeftOver })
				if diff := cmp.Diff(test.want, kinds(found)); diff != "" {
					h.t.Fatalf("want (-), found (+):\n%s\n%+v", diff, found)
				}
				for _, f := range found {
					if f.Mend == "" || f.Where == "" || f.What == "" {
						h.t.Errorf("finding says too little: %+v", f)
					}
				}
				if diff := cmp.Diff(kinds(h.fsck()), kinds(h.fsck())); diff != "" {
					h.t.Errorf("looking has changed something:\n%s", diff)
				}
				for _, f := range h.fsck(repair) {
					if !f.Mended {
						h.t.Errorf("not mended: %+v", f)
					}
				}
				if again := h.fsck(deep); len(again) > 0 {
					h.t.Errorf("still wrong when mended: %+v", again)
				}
				h.wantHeld(test.held)
				h.works()
			})
		})
	}
}

// leave makes a file that nobody has looked after for a day.
func (h *house) leave(name string) {
	h.t.Helper()
	path := filepath.Join(h.place.Data, name)
	h.check(os.MkdirAll(filepath.Dir(path), 0o700))
	h.check(os.WriteFile(path, []byte("left"), 0o600))
	h.age(name)
}

func (h *house) age(name string) {
	h.t.Helper()
	then := time.Now().Add(-24 * time.Hour)
	h.check(os.Chtimes(filepath.Join(h.place.Data, name), then, then))
}

func (h *house) wantHeld(want bool) {
	h.t.Helper()
	db := h.open()
	defer func() { h.check(db.Close()) }()
	h.check(db.View(h.t.Context(), func(tx *store.Tx) error {
		_, held, err := tx.TasksHeld()
		if held != want {
			h.t.Errorf("tasks are held: %v, want %v", held, want)
		}
		return err
	}))
}

func TestYoungLeftOversAreNotes(t *testing.T) {
	t.Parallel()
	each(t, func(h *house) {
		for _, name := range []string{"blobs/a/aorphan", "nodes/tvmps_gone/state/x"} {
			path := filepath.Join(h.place.Data, name)
			h.check(os.MkdirAll(filepath.Dir(path), 0o700))
			h.check(os.WriteFile(path, nil, 0o600))
		}
		found := h.fsck()
		if diff := cmp.Diff([]string{"file-without-blob", "folder-without-node"}, kinds(found)); diff != "" {
			h.t.Fatal(diff)
		}
		for _, f := range found {
			if !f.LeftOver {
				h.t.Errorf("young left-over counts as a fault: %+v", f)
			}
		}
		h.fsck(repair)
		if again := h.fsck(); len(again) > 0 {
			h.t.Errorf("left over when mended: %+v", again)
		}
	})
}

func TestWhatRunsOnAGoneNodeIsLeftAlone(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ lock, kind string }{
		{"state/keeper/keeper.lock", "keeper-without-node"},
		{"state/agent.lock", "agent-without-node"},
	} {
		t.Run(test.kind, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, filepath.Join(t.TempDir(), "batchyard.db"))
			name := filepath.Join("nodes", "tvmps_gone", test.lock)
			h.leave(name)
			h.age("nodes/tvmps_gone")
			lock, err := os.Open(filepath.Join(h.place.Data, name))
			h.check(err)
			defer lock.Close()
			h.check(syscall.Flock(int(lock.Fd()), syscall.LOCK_EX))
			found := h.fsck(repair)
			if len(found) != 1 || found[0].Kind != test.kind || found[0].Mended {
				t.Fatalf("found %+v, want one %s that is not mended", found, test.kind)
			}
			if _, err := os.Stat(filepath.Join(h.place.Data, name)); err != nil {
				t.Errorf("the folder is gone: %v", err)
			}
			h.check(lock.Close()) // the process has ended
			h.fsck(repair)
			if again := h.fsck(); len(again) > 0 {
				t.Errorf("left over when mended: %+v", again)
			}
		})
	}
}

func TestDeepCheckReadsBytes(t *testing.T) {
	t.Parallel()
	each(t, func(h *house) {
		h.check(os.WriteFile(h.path("whole"), []byte("wHole"), 0o600))
		h.change(`UPDATE storage_blob SET data = CAST('Small' AS ` + blobType(h) + `) WHERE name = 'small'`)
		if found := h.fsck(); len(found) > 0 {
			h.t.Errorf("found without reading: %+v", found)
		}
		found := h.fsck(deep)
		if len(found) != 2 || found[0].Kind != "blob-sum" || found[1].Kind != "blob-sum" {
			h.t.Fatalf("found %+v, want two blob-sum", found)
		}
		if found = h.fsck(deep, repair); len(found) != 2 || found[0].Mended || found[0].Mend != "" {
			h.t.Errorf("bytes that may be right were mended: %+v", found)
		}
	})
}

func blobType(h *house) string {
	if h.place.Database != "" {
		return "bytea"
	}
	return "blob"
}

func TestBrokenIndexIsMadeAnew(t *testing.T) {
	t.Parallel()
	h := newHouse(t, filepath.Join(t.TempDir(), "batchyard.db"))
	var page, size int64
	db := h.open()
	h.check(db.View(t.Context(), func(tx *store.Tx) error {
		return errors.Join(
			tx.QueryRow(`SELECT rootpage FROM sqlite_schema WHERE name = 'task_ready'`).Scan(&page),
			tx.QueryRow(`PRAGMA page_size`).Scan(&size))
	}))
	h.check(db.Close())
	// A page begins with its kind, two bytes, and the number of its entries.
	f, err := os.OpenFile(filepath.Join(h.place.Data, "batchyard.db"), os.O_RDWR, 0)
	h.check(err)
	_, err = f.WriteAt([]byte{0, 0}, (page-1)*size+3)
	h.check(errors.Join(err, f.Close()))

	if diff := cmp.Diff([]string{"database-file"}, kinds(h.fsck())); diff != "" {
		t.Fatalf("want (-), found (+):\n%s", diff)
	}
	for _, f := range h.fsck(repair) {
		if !f.Mended {
			t.Errorf("not mended: %+v", f)
		}
	}
	if again := h.fsck(); len(again) > 0 {
		t.Errorf("still wrong when mended: %+v", again)
	}
	h.works()
}

func TestMendingNeedsToBeAlone(t *testing.T) {
	t.Parallel()
	each(t, func(h *house) {
		db := h.open()
		defer func() { h.check(db.Close()) }()
		err := admin.Check(h.t.Context(), admin.CheckOptions{Place: h.place, Repair: true}, func(admin.Finding) error { return nil })
		if !errors.Is(err, store.ErrInUse) {
			h.t.Errorf("got %v, want ErrInUse", err)
		}
	})
}

func TestLookingMakesNoDatabase(t *testing.T) {
	t.Parallel()
	folder := filepath.Join(t.TempDir(), "nothing")
	for _, repair := range []bool{false, true} {
		err := admin.Check(t.Context(), admin.CheckOptions{Place: site.Place{Data: folder}, Repair: repair}, func(admin.Finding) error { return nil })
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("got %v, want ErrNotExist", err)
		}
	}
	if _, err := os.Stat(folder); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the folder was made: %v", err)
	}
}
