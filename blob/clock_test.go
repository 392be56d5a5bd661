package blob_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	azblob "github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"

	"github.com/batchyard/batchyard/blob"
	"github.com/batchyard/batchyard/store"
	"github.com/batchyard/batchyard/store/storetest"
)

// TestChangesAreSeenWhenTheDateWasSetBack changes blobs after the date of the
// machine was set back an hour, and asks by the dates that they had before.
func TestChangesAreSeenWhenTheDateWasSetBack(t *testing.T) {
	t.Parallel()
	var now atomic.Pointer[store.Reading]
	began := time.Now()
	now.Store(&store.Reading{Wall: began, Boot: "boot"})
	e := &endpoint{folder: t.TempDir(), clock: &clock{}}
	e.db = storetest.Open(t, store.Options{URL: storetest.SQLite(t), Clock: func() store.Reading { return *now.Load() }})
	disk, err := blob.OpenDisk(e.folder)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = disk.Close() })
	e.serve(t, disk)
	container := e.container(t, "box").ServiceClient().NewContainerClient("box")
	put := func(name, text string, since *time.Time) (time.Time, error) {
		o := &blockblob.UploadBufferOptions{}
		if since != nil {
			o.AccessConditions = &azblob.AccessConditions{ModifiedAccessConditions: &azblob.ModifiedAccessConditions{IfUnmodifiedSince: since}}
		}
		r, err := container.NewBlockBlobClient(name).UploadBuffer(t.Context(), []byte(text), o)
		if err != nil {
			return time.Time{}, err
		}
		return *r.LastModified, nil
	}
	must := func(at time.Time, err error) *time.Time {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return &at
	}
	changed, again := must(put("changed", "one", nil)), must(put("again", "one", nil))
	described := must(put("described", "one", nil))
	now.Store(&store.Reading{Wall: began.Add(-time.Hour + 10*time.Second), Boot: "boot", Up: 10 * time.Second})

	must(put("changed", "two", nil))
	if _, err := container.NewBlobClient("again").Delete(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	must(put("again", "two", nil))
	if _, err := container.NewBlobClient("described").SetMetadata(t.Context(), map[string]*string{"a": to.Ptr("b")}, nil); err != nil {
		t.Fatal(err)
	}
	for name, before := range map[string]*time.Time{"changed": changed, "again": again, "described": described} {
		t.Run(name, func(t *testing.T) {
			r, err := container.NewBlobClient(name).GetProperties(t.Context(), &azblob.GetPropertiesOptions{
				AccessConditions: &azblob.AccessConditions{ModifiedAccessConditions: &azblob.ModifiedAccessConditions{IfModifiedSince: before}},
			})
			if err != nil || !r.LastModified.After(*before) {
				t.Errorf("If-Modified-Since: %v, %v: a change since %v is not seen", r.LastModified, err, before)
			}
			_, err = put(name, "three", before)
			if !bloberror.HasCode(err, bloberror.ConditionNotMet) {
				t.Errorf("If-Unmodified-Since: %v: a change since %v is overwritten", err, before)
			}
		})
	}
}
