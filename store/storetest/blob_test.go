package storetest_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/batchyard/batchyard/auth"
	"github.com/batchyard/batchyard/store"
	"github.com/batchyard/batchyard/store/storetest"
)

func TestStorageAccounts(t *testing.T) {
	t.Parallel()
	storetest.EachOpen(t, func(t *testing.T, db *store.DB) {
		want := store.StorageAccount{Name: "account1", Keys: auth.Keys{auth.NewKey(), {}}}
		for range 2 {
			want.Keys[1] = auth.NewKey()
			update(t, db, func(tx *store.Tx) error { return tx.PutStorageAccount(want) })
			got := view(t, db, func(tx *store.Tx) (store.StorageAccount, error) { return tx.StorageAccount("account1") })
			if diff := cmp.Diff(got, want); diff != "" {
				t.Error(diff)
			}
		}
		err := db.View(t.Context(), func(tx *store.Tx) error {
			_, err := tx.StorageAccount("account2")
			return err
		})
		if !errors.Is(err, store.ErrNotFound) {
			t.Errorf("error %v", err)
		}
	})
}

func TestBlobContainers(t *testing.T) {
	t.Parallel()
	storetest.EachOpen(t, func(t *testing.T, db *store.DB) {
		at := time.UnixMicro(1_700_000_000_123_456).UTC()
		var all []store.BlobContainer
		for _, name := range []string{"a-1", "a-2", "a0", "b"} {
			c := store.BlobContainer{
				Account: "one", Name: name, ID: "id-" + name, ETag: "0x1", Modified: at,
				Metadata: map[string]string{"name": name},
			}
			all = append(all, c)
			update(t, db, func(tx *store.Tx) error { return tx.AddBlobContainer(c) })
		}
		update(t, db, func(tx *store.Tx) error {
			return tx.AddBlobContainer(store.BlobContainer{Account: "two", Name: "a-1", ID: "other", Modified: at})
		})
		list := func(prefix, from string, limit int) []store.BlobContainer {
			t.Helper()
			return view(t, db, func(tx *store.Tx) ([]store.BlobContainer, error) {
				return tx.BlobContainers("one", prefix, from, limit)
			})
		}
		for _, diff := range []string{
			cmp.Diff(list("", "", 10), all),
			cmp.Diff(list("a", "", 2), all[:2]),
			cmp.Diff(list("a", "a-2", 10), all[1:3]),
			cmp.Diff(len(list("c", "", 10)), 0),
		} {
			if diff != "" {
				t.Error(diff)
			}
		}
		changed := all[1]
		changed.ETag, changed.Metadata = "0x2", nil
		update(t, db, func(tx *store.Tx) error { return tx.SetBlobContainer(changed) })
		got := view(t, db, func(tx *store.Tx) (store.BlobContainer, error) { return tx.BlobContainer("one", "a-2") })
		if got.ETag != "0x2" || len(got.Metadata) != 0 {
			t.Errorf("container %+v", got)
		}
	})
}

func TestBlobLives(t *testing.T) {
	t.Parallel()
	storetest.EachOpen(t, func(t *testing.T, db *store.DB) {
		at := time.UnixMicro(1_700_000_000_123_456).UTC()
		get := func(name string) (b store.Blob, err error) {
			err = db.View(t.Context(), func(tx *store.Tx) (err error) {
				b, err = tx.Blob("c", name)
				return err
			})
			return b, err
		}
		put := func(b store.Blob, parts ...store.BlobPart) (freed []string) {
			t.Helper()
			update(t, db, func(tx *store.Tx) error {
				old, err := tx.Blob("c", b.Name)
				if err != nil && !errors.Is(err, store.ErrNotFound) {
					return err
				}
				freed, err = tx.PutBlob("c", old, b, parts)
				return err
			})
			slices.Sort(freed)
			return freed
		}
		block := func(name, file string) (freed []string) {
			t.Helper()
			update(t, db, func(tx *store.Tx) (err error) {
				freed, err = tx.PutBlobBlock("c", "n", store.BlobBlock{Block: name, Size: 5, File: file})
				return err
			})
			return freed
		}
		same := func(got, want []string) {
			t.Helper()
			if diff := cmp.Diff(got, want); diff != "" {
				t.Error(diff)
			}
		}
		blob := store.Blob{
			Name: "n", ETag: "0x1", Size: 4, Created: at, Modified: at, Data: []byte("\x00\xff'x"),
			Properties: store.BlobProperties{
				ContentType: "text/plain", Metadata: map[string]string{"k": "é\"'"},
				Copy: &store.BlobCopy{ID: "id", Source: "s", Completed: at},
			},
		}
		same(put(blob), nil)
		got, err := get("n")
		if diff := cmp.Diff(got, blob); diff != "" || err != nil {
			t.Error(err, diff)
		}
		blob.Data, blob.Content = nil, "file1"
		same(put(blob), nil)
		blob.Content = "file2"
		same(put(blob), []string{"file1"})

		same(block("b1", "f1"), nil)
		same(block("b1", "f2"), []string{"f1"})
		same(block("b2", "f3"), nil)
		var parts []store.BlobPart
		for n := range 120 { // more than one statement takes
			parts = append(parts, store.BlobPart{Block: "b1", Start: int64(5 * n), Size: 5, File: "f2"})
		}
		blob.Content, blob.Blocks, blob.Size = "list1", len(parts), 600
		same(put(blob, parts...), []string{"f3", "file2"})
		some := view(t, db, func(tx *store.Tx) ([]store.BlobPart, error) { return tx.BlobParts("list1", 9, 16) })
		if diff := cmp.Diff(some, parts[1:4]); diff != "" {
			t.Error(diff)
		}
		blob.Content, blob.Blocks = "list2", 1
		same(put(blob, parts[0]), nil) // its file is still in use

		same(block("b9", "f9"), nil)
		var freed []string
		update(t, db, func(tx *store.Tx) (err error) {
			freed, err = tx.DeleteBlob("c", blob)
			return err
		})
		slices.Sort(freed)
		same(freed, []string{"f2", "f9"})
		if _, err := get("n"); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("error %v", err)
		}
	})
}

func TestBlobSweep(t *testing.T) {
	t.Parallel()
	storetest.EachOpen(t, func(t *testing.T, db *store.DB) {
		update(t, db, func(tx *store.Tx) error {
			for n := range 7 {
				b := store.Blob{Name: fmt.Sprint(n), Created: tx.Now(), Modified: tx.Now(), Content: fmt.Sprintf("file%d", n)}
				if _, err := tx.PutBlob("gone", store.Blob{}, b, nil); err != nil {
					return err
				}
				block := store.BlobBlock{Block: "b", Size: 1, File: fmt.Sprintf("block%d", n)}
				if _, err := tx.PutBlobBlock("gone", "new"+fmt.Sprint(n), block); err != nil {
					return err
				}
			}
			list := store.Blob{Name: "list", Created: tx.Now(), Modified: tx.Now(), Content: "parts", Blocks: 1}
			_, err := tx.PutBlob("kept", store.Blob{}, list, []store.BlobPart{{Block: "b", Size: 1, File: "part"}})
			return err
		})
		files := []string{"part", "lost", "file3", "block6", "lost.part"}
		for n := range 230 {
			files = append(files, fmt.Sprintf("lost%d", n))
		}
		unused := view(t, db, func(tx *store.Tx) ([]string, error) { return tx.UnusedBlobFiles(files) })
		want := slices.DeleteFunc(slices.Clone(files), func(f string) bool { return !strings.HasPrefix(f, "lost") })
		if diff := cmp.Diff(unused, want); diff != "" {
			t.Error(diff)
		}
		update(t, db, func(tx *store.Tx) error { return tx.DropBlobContainer("gone") })
		var all []string
		for steps, done := 1, false; !done; steps++ {
			var freed []string
			update(t, db, func(tx *store.Tx) (err error) {
				freed, done, err = tx.PurgeBlobContainer("gone", 3)
				return err
			})
			all = append(all, freed...)
			if steps > 10 {
				t.Fatal("the purge does not end")
			}
		}
		dropped := view(t, db, func(tx *store.Tx) ([]string, error) { return tx.DroppedBlobContainers() })
		if len(all) != 14 || len(dropped) != 0 {
			t.Errorf("freed %v, still dropped %v", all, dropped)
		}
	})
}

// TestBlobListing compares lists, read page by page, with what a sort and a cut
// in memory give.
func TestBlobListing(t *testing.T) {
	t.Parallel()
	storetest.EachOpen(t, func(t *testing.T, db *store.DB) {
		life := 0
		letter := rapid.SampledFrom([]rune("aA/_-%é\U0010FFFF\uD7FF!z"))
		text := func(least, most int) *rapid.Generator[string] {
			return rapid.Map(rapid.SliceOfN(letter, least, most), func(r []rune) string { return string(r) })
		}
		rapid.Check(t, func(rt *rapid.T) {
			life++
			container := fmt.Sprint("life", life)
			names := rapid.SliceOfNDistinct(text(1, 6), 0, 40, rapid.ID).Draw(rt, "names")
			err := db.Update(t.Context(), func(tx *store.Tx) error {
				for _, name := range names {
					b := store.Blob{Name: name, Created: tx.Now(), Modified: tx.Now(), Data: []byte{}}
					if _, err := tx.PutBlob(container, store.Blob{}, b, nil); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				rt.Fatal(err)
			}
			q := store.BlobQuery{
				Prefix:    text(0, 2).Draw(rt, "prefix"),
				Delimiter: text(0, 2).Draw(rt, "delimiter"),
				Limit:     rapid.IntRange(1, 7).Draw(rt, "limit"),
			}
			want := listed(names, q)
			var got []string
			for more := true; more; more = q.From != "" {
				err := db.View(t.Context(), func(tx *store.Tx) error {
					page, err := tx.Blobs(container, q)
					for _, item := range page.Items {
						got = append(got, fmt.Sprint(item.Name, item.Folder))
					}
					if len(page.Items) > q.Limit || page.Next != "" && len(page.Items) == 0 {
						return fmt.Errorf("page of %d items, then %q", len(page.Items), page.Next)
					}
					q.From = page.Next
					return err
				})
				if err != nil {
					rt.Fatal(err)
				}
			}
			if diff := cmp.Diff(got, want); diff != "" {
				rt.Fatal(diff)
			}
		})
	})
}

// listed is the list that a query over all names must give.
func listed(names []string, q store.BlobQuery) []string {
	var want []string
	for _, name := range slices.Sorted(slices.Values(names)) {
		rest, ok := strings.CutPrefix(name, q.Prefix)
		if !ok {
			continue
		}
		line := fmt.Sprint(name, false)
		if head, _, cut := strings.Cut(rest, q.Delimiter); cut && q.Delimiter != "" {
			line = fmt.Sprint(q.Prefix+head+q.Delimiter, true)
		}
		if !slices.Contains(want, line) {
			want = append(want, line)
		}
	}
	return want
}
