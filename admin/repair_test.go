package admin_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/batchyard/batchyard/admin"
	"github.com/batchyard/batchyard/site"
	"github.com/batchyard/batchyard/store"
	"github.com/batchyard/batchyard/store/storetest"
)

// mend repairs, or says why it does not.
func (h *house) mend(lost ...admin.Part) (found []admin.Finding, notes []string, err error) {
	h.t.Helper()
	err = admin.Check(context.Background(), admin.CheckOptions{
		Place: h.place, Grace: admin.DefaultGrace, Repair: true, Lost: lost,
		Note: func(what string) { notes = append(notes, what) },
	}, func(f admin.Finding) error {
		found = append(found, f)
		return nil
	})
	return found, notes, err
}

// refusesToMend wants a repair that does nothing and says what it lacks.
func (h *house) refusesToMend(words string) {
	h.t.Helper()
	found, notes, err := h.mend()
	if !errors.Is(err, admin.ErrMissing) || !strings.Contains(err.Error(), words) {
		h.t.Fatalf("got %v, want a refusal that says %q", err, words)
	}
	if len(found)+len(notes) > 0 {
		h.t.Errorf("a repair that does nothing tells of %+v, %v", found, notes)
	}
}

// TestADiskThatIsNotMountedIsNotLost takes the folder of blobs away, and brings
// it back: all is as it was.
func TestADiskThatIsNotMountedIsNotLost(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, words string
		take, bring func(h *house, blobs string) error
	}{
		{
			"no folder", "is empty or not there, and the database names 4 files",
			func(_ *house, blobs string) error { return os.Rename(blobs, blobs+".away") },
			func(_ *house, blobs string) error { return os.Rename(blobs+".away", blobs) },
		},
		{
			"an empty folder", "is empty or not there, and the database names 4 files",
			func(_ *house, blobs string) error {
				return errors.Join(os.Rename(blobs, blobs+".away"), os.MkdirAll(filepath.Join(blobs, "lost+found"), 0))
			},
			func(_ *house, blobs string) error {
				return errors.Join(os.RemoveAll(blobs), os.Rename(blobs+".away", blobs))
			},
		},
		{
			"most of it", "of 4 files that the database names 3 are not in",
			func(h *house, _ string) error {
				return h.each3(func(path string) error { return os.Rename(path, path+".away") })
			},
			func(h *house, _ string) error {
				return h.each3(func(path string) error { return os.Rename(path+".away", path) })
			},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			each(t, func(h *house) {
				blobs := h.place.Blobs()
				h.check(test.take(h, blobs))
				h.refusesToMend(test.words)
				h.check(test.bring(h, blobs))
				if found := h.fsck(deep); len(found) > 0 {
					h.t.Errorf("wrong with the folder back: %+v", found)
				}

				h.check(test.take(h, blobs))
				found, notes, err := h.mend(admin.LostBlobs)
				h.check(err)
				if diff := cmp.Diff([]string{"blob-without-file", "block-without-file"}, without(kinds(found), "file-without-blob")); diff != "" {
					h.t.Errorf("told that it is lost, want (-), found (+):\n%s", diff)
				}
				h.wantCopy(notes)
				if again := h.fsck(deep); len(again) > 0 {
					h.t.Errorf("wrong when mended: %+v", again)
				}
				h.works()
			})
		})
	}
}

// each3 does something with three of the four files.
func (h *house) each3(do func(path string) error) error {
	var errs []error
	for _, name := range []string{"whole", "part", "block"} {
		errs = append(errs, do(h.path(name)))
	}
	return errors.Join(errs...)
}

func without(words []string, word string) (others []string) {
	for _, w := range words {
		if w != word {
			others = append(others, w)
		}
	}
	return others
}

// wantCopy wants a copy of the database as it was before the repair.
func (h *house) wantCopy(notes []string) {
	h.t.Helper()
	if len(notes) != 1 {
		h.t.Fatalf("notes are %v, want where the database is copied to", notes)
	}
	_, path, _ := strings.Cut(notes[0], " is in ")
	db, err := store.Open(context.Background(), store.Options{URL: path})
	h.check(err)
	defer func() { h.check(db.Close()) }()
	h.check(db.View(context.Background(), func(tx *store.Tx) error {
		_, err := tx.Blob("life", "whole")
		return err
	}))
}

func TestRepairMovesAsideWhatNoRowSpeaksOf(t *testing.T) {
	t.Parallel()
	each(t, func(h *house) {
		h.leave("blobs/a/aorphan")
		h.leave("nodes/tvmps_gone/root/file")
		h.age("nodes/tvmps_gone")
		_, notes, err := h.mend()
		h.check(err)
		if len(notes) > 0 {
			h.t.Errorf("the database is copied although no row was wrong: %v", notes)
		}
		for _, pattern := range []string{"blobs/aside-*/aorphan", "nodes/aside-*/tvmps_gone/root/file"} {
			if files, err := filepath.Glob(filepath.Join(h.place.Data, pattern)); len(files) != 1 {
				h.t.Errorf("%s: %v, %v, want one", pattern, files, err)
			}
		}
		if again := h.fsck(deep); len(again) > 0 {
			h.t.Errorf("wrong when mended: %+v", again)
		}
	})
}

// A database that knows nothing of most files is not the one they are of.
func TestMostFilesWithoutARowAreNotGarbage(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, words string }{
		{"blobs/a/aorphan%d", "of 24 files"}, {"nodes/tvmps_gone%d/number", "of 22 folders"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			each(t, func(h *house) {
				for i := range 20 {
					h.leave(fmt.Sprintf(test.name, i))
				}
				h.refusesToMend(test.words)
				_, _, err := h.mend(admin.LostRows)
				h.check(err)
				if again := h.fsck(deep); len(again) > 0 {
					h.t.Errorf("wrong when told that the rows are lost: %+v", again)
				}
			})
		})
	}
}

// Nobody looks through, copies or mends the folder of one site with the database
// of another.
func TestAnotherDatabaseIsRefused(t *testing.T) {
	t.Parallel()
	place := func() site.Place {
		p := site.Place{Data: t.TempDir(), Database: storetest.PostgreSQL(t)}
		s, err := site.Open(t.Context(), site.Options{Place: p, Use: site.ForServer})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		return p
	}
	p := place()
	p.Database = place().Database
	for _, repair := range []bool{false, true} {
		err := admin.Check(t.Context(), admin.CheckOptions{Place: p, Repair: repair}, func(admin.Finding) error { return nil })
		if !errors.Is(err, site.ErrMismatch) {
			t.Errorf("check, repair %v: got %v, want a mismatch", repair, err)
		}
	}
	if _, err := admin.Backup(t.Context(), admin.BackupOptions{Place: p, To: filepath.Join(t.TempDir(), "copy")}); !errors.Is(err, site.ErrMismatch) {
		t.Errorf("backup: got %v, want a mismatch", err)
	}
}

// The root of a file system is as good as an empty folder.
func TestRestoreToAFileSystemOfItsOwn(t *testing.T) {
	t.Parallel()
	h := newHouse(t, storetest.SQLite(t))
	place := site.Place{Data: t.TempDir()}
	h.check(os.Mkdir(filepath.Join(place.Data, "lost+found"), 0))
	_, err := admin.Restore(t.Context(), admin.RestoreOptions{Place: place, From: h.backup()})
	h.check(err)
	restored := &house{t: t, place: place, files: h.files}
	if found := restored.fsck(deep); len(found) > 0 {
		t.Errorf("wrong after restore: %+v", found)
	}
}
