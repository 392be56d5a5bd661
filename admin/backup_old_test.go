package admin_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/batchyard/batchyard/admin"
	"github.com/batchyard/batchyard/blob"
	"github.com/batchyard/batchyard/store"
	"github.com/batchyard/batchyard/store/storetest"
)

// TestBackupOfOlderPostgres is refused: the rows are copied one by one into the
// tables of this program.
func TestBackupOfOlderPostgres(t *testing.T) {
	t.Parallel()
	url := storetest.PostgreSQL(t)
	place := placeOf(t, url)
	storetest.Old(t, url, "../store/migrations", 9)
	to := filepath.Join(t.TempDir(), "backup")
	_, err := admin.Backup(t.Context(), admin.BackupOptions{Place: place, To: to, Program: "test"})
	if err == nil || !strings.Contains(err.Error(), "it has schema 9 and this program needs") || !strings.Contains(err.Error(), "start the server once") {
		t.Errorf("backup of an older schema: %v", err)
	}
	if left, err := filepath.Glob(to + "*"); err != nil || len(left) > 0 {
		t.Errorf("it leaves %v, %v", left, err)
	}
}

// TestBackupOfOlderSchema backs up what an older program wrote, with tables of
// other names, before a server has brought it up to date, and restores it.
func TestBackupOfOlderSchema(t *testing.T) {
	t.Parallel()
	url := storetest.SQLite(t)
	h := &house{t: t, place: placeOf(t, url), files: map[string]string{}}
	disk, err := blob.OpenDisk(filepath.Join(h.place.Data, "blobs"))
	h.check(err)
	for _, name := range []string{"whole", "part", "block"} {
		w, err := disk.Create(t.Context())
		h.check(err)
		_, err = w.Write(content(name))
		h.check(err)
		h.files[name], err = w.Commit(t.Context())
		h.check(err)
	}
	h.check(disk.Close())
	blobs := `INSERT INTO storage_blobs (container, name, etag, size, created_at, modified_at, properties, content, blocks, data) VALUES `
	storetest.Old(t, url, "../store/migrations", 9,
		`INSERT INTO storage_containers (account, name, id, etag, modified_at, metadata) VALUES ('storage', 'box', 'life', 'e', 2, '{}')`,
		blobs+`('life', 'small', 'e', 5, 3, 4, '{}', '', 0, CAST('small' AS blob))`,
		blobs+fmt.Sprintf(`('life', 'whole', 'e', 5, 3, 4, '{}', '%s', 0, NULL)`, h.files["whole"]),
		blobs+`('life', 'parts', 'e', 4, 3, 4, '{}', 'list', 1, NULL)`,
		fmt.Sprintf(`INSERT INTO storage_parts (content, seq, block, start, size, file) VALUES ('list', 0, 'a', 0, 4, '%s')`, h.files["part"]),
		fmt.Sprintf(`INSERT INTO storage_blocks (container, blob, block, size, file, created_at) VALUES ('life', 'coming', 'a', 5, '%s', 6)`, h.files["block"]))

	restored, err := h.restore(h.backup(), storetest.SQLite(t))
	h.check(err)
	if found := restored.fsck(deep); len(found) > 0 {
		t.Errorf("wrong after restore: %+v", found)
	}
	db := restored.open()
	defer func() { h.check(db.Close()) }()
	var files int
	h.check(db.View(context.Background(), func(tx *store.Tx) error {
		return tx.EachBlobFile(func(store.BlobFile) error { files++; return nil })
	}))
	if files != 3 {
		t.Errorf("%d files are in the restored data, want 3", files)
	}
}
