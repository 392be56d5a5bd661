package admin_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/batchyard/batchyard/admin"
	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/blob"
	"github.com/batchyard/batchyard/control"
	"github.com/batchyard/batchyard/conversation"
	"github.com/batchyard/batchyard/site"
	"github.com/batchyard/batchyard/store"
	"github.com/batchyard/batchyard/store/storetest"
)

// backup backs a house up, into a folder of its own.
func (h *house) backup() string {
	h.t.Helper()
	to := filepath.Join(h.t.TempDir(), "backup")
	_, err := admin.Backup(h.t.Context(), admin.BackupOptions{Place: h.place, To: to, Program: "test"})
	h.check(err)
	return to
}

func (h *house) restore(from, url string) (*house, error) {
	h.t.Helper()
	place := placeOf(h.t, url)
	place.Data = filepath.Join(h.t.TempDir(), "restored")
	_, err := admin.Restore(h.t.Context(), admin.RestoreOptions{Place: place, From: from})
	return &house{t: h.t, place: place, files: h.files}, err
}

// TestRestore takes a backup beside an open database and restores it to each kind.
func TestRestore(t *testing.T) {
	t.Parallel()
	for _, kind := range []struct {
		name string
		url  func(testing.TB) string
	}{{"to sqlite", storetest.SQLite}, {"to postgres", storetest.PostgreSQL}} {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			storetest.Each(t, func(t *testing.T, url string) {
				target := kind.url(t)
				h := newHouse(t, url)
				h.check(os.MkdirAll(filepath.Join(h.place.Data, "tls"), 0o755))
				h.check(os.WriteFile(filepath.Join(h.place.Data, "tls", "ca.pem"), []byte("certificate"), 0o644))
				db := h.open() // a server runs
				from := h.backup()
				h.check(db.Close())
				onlyForOwner(t, from)

				restored, err := h.restore(from, target)
				h.check(err)
				if found := restored.fsck(deep); len(found) > 0 {
					t.Errorf("wrong after restore: %+v", found)
				}
				restored.wantHeld(true)
				restored.wantResumed(h.nodes)
				for _, name := range []string{"whole", "part", "part2", "block"} {
					got, err := os.ReadFile(restored.path(name))
					if err != nil || string(got) != name {
						t.Errorf("file of %s holds %q, %v", name, got, err)
					}
				}
				if info, err := os.Stat(filepath.Join(restored.place.Data, "tls", "ca.pem")); err != nil || info.Mode().Perm() != 0o644 {
					t.Errorf("certificate of the authority: %v, %v", info, err)
				}
				restored.works()
				if _, err := os.Stat(filepath.Join(restored.place.Data, ".restoring")); err == nil {
					t.Error("the folder to restore in is left")
				}
			})
		})
	}
}

// wantResumed wants no node of before, their tasks queued, and pools on the way
// to new nodes.
func (h *house) wantResumed(before []batch.NodeID) {
	h.t.Helper()
	ctx := h.t.Context()
	db := h.open()
	defer func() { h.check(db.Close()) }()
	s := control.New(control.Options{DB: db})
	nodes, err := s.DesiredNodes(ctx)
	h.check(err)
	if len(nodes) > 0 {
		h.t.Errorf("nodes of before the restore are known: %+v", nodes)
	}
	for _, id := range before {
		if _, err := conversation.New(conversation.Options{DB: db, Control: s}).Sync(ctx, id, "any", batch.NodeReport{Instance: "i", NoWait: true}); batch.CodeOf(err) != batch.CodeNodeNotFound {
			h.t.Errorf("an old node calls: got %v, want NodeNotFound", err)
		}
	}
	pool, err := s.Pool(ctx, acct, "pool")
	h.check(err)
	if pool.AllocationState != batch.AllocationResizing || pool.TargetDedicatedNodes != 2 || pool.CurrentDedicatedNodes != 0 {
		h.t.Errorf("pool is %s with %d of %d nodes", pool.AllocationState, pool.CurrentDedicatedNodes, pool.TargetDedicatedNodes)
	}
	job, err := s.Job(ctx, acct, "job")
	h.check(err)
	want := batch.TaskCounts{Active: 3, Succeeded: 1, Failed: 1, ActiveSlots: 3, SucceededSlots: 1, FailedSlots: 1}
	if diff := cmp.Diff(want, job.Counts); diff != "" {
		h.t.Errorf("counts (-want +got):\n%s", diff)
	}
	if job.ID != "Job" || job.Bound != 0 {
		h.t.Errorf("job is %s and counts %d tasks on nodes", job.ID, job.Bound)
	}
	for id, requeued := range map[batch.TaskID]int{"runs": 1, "held": 0} {
		task, err := s.Task(ctx, acct, "job", id)
		h.check(err)
		if task.State != batch.TaskActive || task.Bound || task.ExecutionInfo.RequeueCount != requeued {
			h.t.Errorf("task %s is %s, bound %v, requeued %d times, want %d", id, task.State, task.Bound, task.ExecutionInfo.RequeueCount, requeued)
		}
	}
}

// onlyForOwner wants that nobody but the owner may read any of a backup.
func onlyForOwner(t *testing.T, folder string) {
	t.Helper()
	err := filepath.WalkDir(folder, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s may be read by others: %v", name, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestRestoreRefuses(t *testing.T) {
	t.Parallel()
	write := func(name, text string) func(*testing.T, string) {
		return func(t *testing.T, folder string) {
			t.Helper()
			if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	sum := strings.Repeat("0", 64)
	for _, test := range []struct {
		name string
		hurt func(t *testing.T, folder string)
		want string
	}{
		{"a backup with a damaged file", write("batchyard.db", "damaged"), "batchyard.db is damaged"},
		{"a backup that lacks a file", func(t *testing.T, folder string) {
			t.Helper()
			if err := os.RemoveAll(filepath.Join(folder, "blobs")); err != nil {
				t.Fatal(err)
			}
		}, "no such file"},
		{"a backup without manifest", func(t *testing.T, folder string) {
			t.Helper()
			if err := os.Remove(filepath.Join(folder, "manifest.json")); err != nil {
				t.Fatal(err)
			}
		}, "manifest.json"},
		{"a backup of another format", write("manifest.json", `{"format": 2}`), "it has format 2"},
		{"a backup of a newer program", write("manifest.json", `{"format": 1, "schema": 9999, "program": "v99"}`), "the backup has schema 9999"},
		{"sums of another backup", write("SHA256SUMS", ""), "not the one that manifest.json speaks of"},
		{"a name that leads out", write("SHA256SUMS", sum+"  blobs/../../x\n"), "no file of a backup"},
		{"an absolute name", write("SHA256SUMS", sum+"  /etc/passwd\n"), "no file of a backup"},
		{"a name in a folder of nodes", write("SHA256SUMS", sum+"  nodes/x/state/node.json\n"), "no file of a backup"},
		{"a blob in the wrong folder", write("SHA256SUMS", sum+"  blobs/a/b\n"), "no file of a backup"},
		{"a line that is none", write("SHA256SUMS", "nonsense\n"), "a line that is none"},
		{"a link in place of a file", func(t *testing.T, folder string) {
			t.Helper()
			name := filepath.Join(folder, "batchyard.db")
			if err := os.Rename(name, name+".moved"); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink("batchyard.db.moved", name); err != nil {
				t.Fatal(err)
			}
		}, "not a regular file"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, filepath.Join(t.TempDir(), "batchyard.db"))
			from := h.backup()
			test.hurt(t, from)
			restored, err := h.restore(from, "/unused/batchyard.db")
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got error %v, want one that says %q", err, test.want)
			}
			if _, err := os.Stat(restored.place.Data); err == nil {
				t.Error("something was written all the same")
			}
		})
	}
}

func TestRestoreWantsAnEmptyTarget(t *testing.T) {
	t.Parallel()
	each(t, func(h *house) {
		from := h.backup()
		_, err := admin.Restore(h.t.Context(), admin.RestoreOptions{Place: h.place, From: from})
		if err == nil || !strings.Contains(err.Error(), "is not empty") {
			h.t.Errorf("into the data folder: got %v", err)
		}
		if h.place.Database == "" {
			return
		}
		into := h.place
		into.Data = filepath.Join(h.t.TempDir(), "new")
		_, err = admin.Restore(h.t.Context(), admin.RestoreOptions{Place: into, From: from})
		if err == nil || !strings.Contains(err.Error(), "database is not empty") {
			h.t.Errorf("into a database that is not empty: got %v", err)
		}
	})
}

// errCut is the end of a restore in the middle of a step.
var errCut = errors.New("cut off")

// cutOff restores until a step begins.
func cutOff(ctx context.Context, o admin.RestoreOptions, step string) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err, _ = r.(error)
		}
	}()
	o.Progress = func(s string) {
		if s == step {
			panic(errCut)
		}
	}
	_, err = admin.Restore(ctx, o)
	return err
}

// TestRestoreThatIsCutOff stops a restore at each of its steps. No server starts
// on what it leaves, nobody checks it or backs it up, and another restore puts
// everything in place.
func TestRestoreThatIsCutOff(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		step     string
		postgres bool
	}{
		{"verifying", false}, {"copying files", false}, {"bringing the database up to date", false}, {"ending", false},
		{"verifying", true}, {"copying files", true}, {"bringing the database up to date", true}, {"copying rows", true}, {"ending", true},
	} {
		t.Run(fmt.Sprintf("%s, postgres %v", test.step, test.postgres), func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, filepath.Join(t.TempDir(), "batchyard.db"))
			from, place := h.backup(), site.Place{Data: filepath.Join(t.TempDir(), "restored")}
			if test.postgres {
				place.Database = storetest.PostgreSQL(t)
			}
			o := admin.RestoreOptions{Place: place, From: from}
			for range 2 { // cut off twice in a row
				if err := cutOff(t.Context(), o, test.step); !errors.Is(err, errCut) {
					t.Fatalf("a restore that was stopped: %v", err)
				}
				if test.step != "verifying" {
					wantHalf(t, place)
				}
			}
			_, err := admin.Restore(t.Context(), o)
			h.check(err)
			restored := &house{t: t, place: place, files: h.files}
			if found := restored.fsck(deep); len(found) > 0 {
				t.Errorf("wrong after restore: %+v", found)
			}
			s, err := site.Open(t.Context(), site.Options{Place: place, Use: site.ForServer})
			h.check(err)
			h.check(s.Close())
		})
	}
}

// wantHalf wants nobody to work on a place.
func wantHalf(t *testing.T, place site.Place) {
	t.Helper()
	s, err := site.Open(t.Context(), site.Options{Place: place, Use: site.ForServer})
	if err == nil {
		t.Error("a server starts on half a restore")
		_ = s.Close()
	} else if !strings.Contains(err.Error(), "restore was not finished") {
		t.Errorf("a server says %v", err)
	}
	err = admin.Check(t.Context(), admin.CheckOptions{Place: place}, func(admin.Finding) error { return nil })
	if err == nil || !strings.Contains(err.Error(), "restore was not finished") {
		t.Errorf("a check says %v", err)
	}
	_, err = admin.Backup(t.Context(), admin.BackupOptions{Place: place, To: filepath.Join(t.TempDir(), "copy")})
	if err == nil || !strings.Contains(err.Error(), "restore was not finished") {
		t.Errorf("a backup says %v", err)
	}
}

func TestBackupIsThereWholeOrNotAtAll(t *testing.T) {
	t.Parallel()
	h := newHouse(t, filepath.Join(t.TempDir(), "batchyard.db"))
	folder := t.TempDir()
	to := filepath.Join(folder, "backup")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := admin.Backup(ctx, admin.BackupOptions{Place: h.place, To: to}); err == nil {
		t.Error("a backup that was stopped says that it is done")
	}
	if entries, err := os.ReadDir(folder); err != nil || len(entries) > 0 {
		t.Errorf("something is left of it: %v, %v", entries, err)
	}
	if _, err := admin.Backup(t.Context(), admin.BackupOptions{Place: h.place, To: folder}); err == nil {
		t.Error("a folder that is there is taken")
	}
}

// TestBlobsDeletedMeanwhileAreInTheBackup deletes blobs while backups are made.
// Every backup has the bytes of every blob that its database names.
func TestBlobsDeletedMeanwhileAreInTheBackup(t *testing.T) {
	t.Parallel()
	h := newHouse(t, filepath.Join(t.TempDir(), "batchyard.db"))
	db := h.open()
	defer func() { h.check(db.Close()) }()
	disk, err := blob.OpenDisk(filepath.Join(h.place.Data, "blobs"))
	h.check(err)
	defer disk.Close()
	ctx, stop := context.WithCancel(t.Context())
	churned := make(chan error, 1)
	turns := 0
	go func() {
		var err error
		for ; ctx.Err() == nil && err == nil; turns++ {
			err = churn(db, disk, turns)
		}
		churned <- err
	}()
	for round := range 10 {
		to := filepath.Join(t.TempDir(), fmt.Sprint(round))
		m, err := admin.Backup(t.Context(), admin.BackupOptions{Place: h.place, To: to})
		h.check(err)
		if m.Missing > 0 {
			t.Errorf("backup %d lacks %d files", round, m.Missing)
		}
	}
	stop()
	h.check(<-churned)
	if turns < 20 {
		t.Errorf("only %d blobs came and went", turns)
	}
}

// churn puts a blob in the place of another and removes the other's file, as the
// storage endpoint does.
func churn(db *store.DB, disk *blob.Disk, turn int) error {
	ctx := context.Background()
	w, err := disk.Create(ctx)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(w, "turn %09d", turn); err != nil {
		return err
	}
	file, err := w.Commit(ctx)
	if err != nil {
		return err
	}
	var freed []string
	err = db.Update(ctx, func(tx *store.Tx) error {
		name := fmt.Sprint("churned", turn%5)
		old, err := tx.Blob("life", name)
		if err != nil {
			old = store.Blob{}
		}
		freed, err = tx.PutBlob("life", old, store.Blob{Name: name, ETag: "1", Size: 14, Content: file, Created: tx.Now(), Modified: tx.Now()}, nil)
		return err
	})
	for _, name := range freed {
		if err == nil {
			err = disk.Delete(ctx, name)
		}
	}
	return err
}

// TestCopyHasEveryTable fails when a migration adds a table that CopyTo and
// Import do not know.
func TestCopyHasEveryTable(t *testing.T) {
	t.Parallel()
	h := newHouse(t, filepath.Join(t.TempDir(), "batchyard.db"))
	db := h.open()
	defer func() { h.check(db.Close()) }()
	var tables []string
	h.check(db.View(t.Context(), func(tx *store.Tx) error {
		rows, err := tx.Query(`
			SELECT name FROM sqlite_schema
			WHERE type = 'table' AND name NOT LIKE 'sqlite_%' AND name NOT LIKE 'goose_%' AND name NOT IN ('lease', 'clock')
			ORDER BY name`)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var name string
			if err := rows.Scan(&name); err != nil {
				return err
			}
			tables = append(tables, name)
		}
		return rows.Err()
	}))
	copied := store.CopiedTables()
	slices.Sort(copied)
	if diff := cmp.Diff(tables, copied); diff != "" {
		t.Errorf("tables there are (-), tables that are copied (+):\n%s", diff)
	}
}
