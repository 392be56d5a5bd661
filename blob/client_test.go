package blob_test

import (
	"bytes"
	"crypto/md5"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/sas"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/service"
	"github.com/google/go-cmp/cmp"
)

func TestClientContainers(t *testing.T) {
	t.Parallel()
	ctx, client := t.Context(), start(t).client(t)

	for _, name := range []string{"alpha", "beta-1", "beta-2", "gamma"} {
		o := &azblob.CreateContainerOptions{Metadata: map[string]*string{"Owner": to.Ptr(name)}}
		if _, err := client.CreateContainer(ctx, name, o); err != nil {
			t.Fatal(err)
		}
	}
	_, err := client.CreateContainer(ctx, "alpha", nil)
	wantCode(t, err, bloberror.ContainerAlreadyExists)

	list := func(o *azblob.ListContainersOptions) (names []string, pages int) {
		for pager := client.NewListContainersPager(o); pager.More(); pages++ {
			page, err := pager.NextPage(ctx)
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range page.ContainerItems {
				names = append(names, *c.Name)
				if o.Include.Metadata && *c.Metadata["owner"] != *c.Name {
					t.Errorf("metadata of %s: %v", *c.Name, c.Metadata)
				}
			}
		}
		return names, pages
	}
	names, pages := list(&azblob.ListContainersOptions{MaxResults: to.Ptr[int32](3), Include: azblob.ListContainersInclude{Metadata: true}})
	if diff := cmp.Diff(names, []string{"alpha", "beta-1", "beta-2", "gamma"}); diff != "" || pages != 2 {
		t.Error(pages, diff)
	}
	names, _ = list(&azblob.ListContainersOptions{Prefix: to.Ptr("beta")})
	if diff := cmp.Diff(names, []string{"beta-1", "beta-2"}); diff != "" {
		t.Error(diff)
	}

	one := client.ServiceClient().NewContainerClient("alpha")
	if _, err := one.SetMetadata(ctx, &container.SetMetadataOptions{Metadata: map[string]*string{"a": to.Ptr("b")}}); err != nil {
		t.Fatal(err)
	}
	properties, err := one.GetProperties(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(properties.Metadata) != 1 || *properties.Metadata["A"] != "b" || *properties.LeaseState != "available" {
		t.Errorf("properties %+v", properties)
	}
	if _, err := one.Delete(ctx, nil); err != nil {
		t.Fatal(err)
	}
	_, err = one.GetProperties(ctx, nil)
	wantCode(t, err, bloberror.ContainerNotFound)
	if _, err := one.Create(ctx, nil); err != nil {
		t.Errorf("a container is made again at once: %v", err)
	}
}

func TestClientAccount(t *testing.T) {
	t.Parallel()
	ctx, client := t.Context(), start(t).container(t, "inputs")
	info, err := client.ServiceClient().GetAccountInfo(ctx, nil)
	if err != nil || *info.SKUName != "Standard_LRS" {
		t.Errorf("account %v, %v", info, err)
	}
	properties, err := client.ServiceClient().GetProperties(ctx, nil)
	if err != nil || *properties.DeleteRetentionPolicy.Enabled {
		t.Errorf("service properties %v, %v", properties, err)
	}
}

func TestClientBlobs(t *testing.T) {
	t.Parallel()
	for name, size := range map[string]int{"empty": 0, "one byte": 1, "in the row": 8 << 10, "in a file": 8<<10 + 1, "of megabytes": 3 << 20} {
		t.Run("a blob "+name+" comes back whole and in parts", func(t *testing.T) {
			t.Parallel()
			ctx, client := t.Context(), start(t).container(t, "inputs")
			content, sum := pattern(size), md5.Sum(pattern(size))
			one := client.ServiceClient().NewContainerClient("inputs").NewBlockBlobClient("a/b c+é//../d.")
			_, err := one.Upload(ctx, streaming(content), &blockblob.UploadOptions{
				HTTPHeaders: &blob.HTTPHeaders{BlobContentType: to.Ptr("text/plain"), BlobCacheControl: to.Ptr("no-store")},
				Metadata:    map[string]*string{"Shape": to.Ptr("round")},
			})
			if err != nil {
				t.Fatal(err)
			}
			properties, err := one.GetProperties(ctx, nil)
			if err != nil {
				t.Fatal(err)
			}
			if *properties.ContentLength != int64(size) || *properties.ContentType != "text/plain" ||
				*properties.CacheControl != "no-store" || !bytes.Equal(properties.ContentMD5, sum[:]) ||
				*properties.Metadata["Shape"] != "round" || *properties.BlobType != blob.BlobTypeBlockBlob {
				t.Errorf("properties %+v", properties)
			}
			response, err := one.DownloadStream(ctx, nil)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(response.Body); err != nil || !bytes.Equal(got, content) {
				t.Errorf("download of %d bytes: %d bytes, %v", size, len(got), err)
			}
			buffer := make([]byte, size)
			if _, err := one.DownloadBuffer(ctx, buffer, &blob.DownloadBufferOptions{BlockSize: 1 << 20}); err != nil || !bytes.Equal(buffer, content) {
				t.Errorf("download in parts: %v", err)
			}
			if _, err := one.Delete(ctx, nil); err != nil {
				t.Fatal(err)
			}
			_, err = one.GetProperties(ctx, nil)
			wantCode(t, err, bloberror.BlobNotFound)
		})
	}
}

func streaming(content []byte) io.ReadSeekCloser { return nopCloser{bytes.NewReader(content)} }

type nopCloser struct{ io.ReadSeeker }

func (nopCloser) Close() error { return nil }

func TestClientBlocks(t *testing.T) {
	t.Parallel()

	t.Run("a blob of many blocks comes back whole and in parts across them", func(t *testing.T) {
		t.Parallel()
		ctx, client := t.Context(), start(t).container(t, "inputs")
		content := pattern(20<<20 + 17)
		_, err := client.UploadStream(ctx, "inputs", "large", bytes.NewReader(content),
			&azblob.UploadStreamOptions{BlockSize: 4 << 20, Concurrency: 4})
		if err != nil {
			t.Fatal(err)
		}
		if got := download(ctx, t, client, "inputs", "large", nil); !bytes.Equal(got, content) {
			t.Error("downloaded whole it differs")
		}
		part := azblob.HTTPRange{Offset: 4<<20 - 3, Count: 8<<20 + 6}
		got := download(ctx, t, client, "inputs", "large", &azblob.DownloadStreamOptions{Range: part})
		if !bytes.Equal(got, content[part.Offset:part.Offset+part.Count]) {
			t.Error("a part across three blocks differs")
		}
		list, err := client.ServiceClient().NewContainerClient("inputs").NewBlockBlobClient("large").
			GetBlockList(ctx, blockblob.BlockListTypeAll, nil)
		if err != nil || len(list.CommittedBlocks) != 6 || len(list.UncommittedBlocks) != 0 || *list.CommittedBlocks[5].Size != 17 {
			t.Errorf("block list %+v, %v", list.BlockList, err)
		}
	})

	t.Run("blocks are kept, replaced and dropped as the list says", func(t *testing.T) {
		t.Parallel()
		e := start(t)
		ctx, client := t.Context(), e.container(t, "inputs")
		one := client.ServiceClient().NewContainerClient("inputs").NewBlockBlobClient("blob")
		stage := func(id, text string) {
			t.Helper()
			if _, err := one.StageBlock(ctx, id, streaming([]byte(text)), nil); err != nil {
				t.Fatal(err)
			}
		}
		commit := func(ids ...string) {
			t.Helper()
			if _, err := one.CommitBlockList(ctx, ids, nil); err != nil {
				t.Fatal(err)
			}
		}
		stage("YQ==", "old a ")
		stage("YQ==", "a ")
		stage("Yg==", "b ")
		stage("Yw==", "never used ")
		commit("YQ==", "Yg==", "YQ==")
		if got := e.get(t, "/inputs/blob"); got != "a b a " {
			t.Errorf("content %q", got)
		}
		stage("ZA==", "d ")
		commit("ZA==", "Yg==")
		if got := e.get(t, "/inputs/blob"); got != "d b " {
			t.Errorf("content %q", got)
		}
		if n := e.files(t); n != 2 {
			t.Errorf("%d files, want those of the two blocks in use", n)
		}
		_, err := one.CommitBlockList(ctx, []string{"YQ=="}, nil)
		wantCode(t, err, bloberror.InvalidBlockList)
		commit()
		if got := e.get(t, "/inputs/blob"); got != "" {
			t.Errorf("content %q of an empty list", got)
		}
	})
}

func TestClientList(t *testing.T) {
	t.Parallel()
	e := start(t)
	ctx, client := t.Context(), e.container(t, "inputs")
	var all []string
	for _, name := range []string{"!", "a", "a/1", "a/2/x", "a/2/y", "a0", "b/", "b/1", "z\x01&<\r", "é/ü", "é/ü/1"} {
		all = append(all, name)
		if _, err := client.UploadBuffer(ctx, "inputs", name, []byte(name), &azblob.UploadBufferOptions{
			Metadata: map[string]*string{"n": to.Ptr("m")},
		}); err != nil {
			t.Fatal(err)
		}
	}
	for _, limit := range []int32{1, 2, 3, 100} {
		t.Run(fmt.Sprintf("flat, %d at a time", limit), func(t *testing.T) {
			t.Parallel()
			var names []string
			pager := client.NewListBlobsFlatPager("inputs", &azblob.ListBlobsFlatOptions{
				MaxResults: &limit, Include: azblob.ListBlobsInclude{Metadata: true, Snapshots: true, Versions: true},
			})
			for pager.More() {
				page, err := pager.NextPage(ctx)
				if err != nil {
					t.Fatal(err)
				}
				for _, item := range page.Segment.BlobItems {
					names = append(names, *item.Name)
					if *item.Metadata["n"] != "m" || *item.Properties.ContentLength != int64(len(*item.Name)) {
						t.Errorf("item %+v", item)
					}
				}
			}
			if diff := cmp.Diff(names, all); diff != "" {
				t.Error(diff)
			}
		})
		for prefix, want := range map[string][]string{
			"":    {"!", "a", "a/ +", "a0", "b/ +", "é/ +", "z\x01&<\r"},
			"a":   {"a", "a/ +", "a0"},
			"a/":  {"a/1", "a/2/ +"},
			"b/":  {"b/", "b/1"},
			"é/ü": {"é/ü", "é/ü/ +"},
			"no":  nil,
		} {
			t.Run(fmt.Sprintf("folders under %q, %d at a time", prefix, limit), func(t *testing.T) {
				t.Parallel()
				var blobs, folders []string
				one := client.ServiceClient().NewContainerClient("inputs")
				pager := one.NewListBlobsHierarchyPager("/", &container.ListBlobsHierarchyOptions{MaxResults: &limit, Prefix: &prefix})
				for pager.More() {
					page, err := pager.NextPage(ctx)
					if err != nil {
						t.Fatal(err)
					}
					for _, item := range page.Segment.BlobItems {
						blobs = append(blobs, *item.Name)
					}
					for _, folder := range page.Segment.BlobPrefixes {
						folders = append(folders, *folder.Name+" +")
					}
				}
				var wantBlobs, wantFolders []string
				for _, name := range want {
					if strings.HasSuffix(name, " +") {
						wantFolders = append(wantFolders, name)
					} else {
						wantBlobs = append(wantBlobs, name)
					}
				}
				if diff := cmp.Diff(blobs, wantBlobs) + cmp.Diff(folders, wantFolders); diff != "" {
					t.Error(diff)
				}
			})
		}
	}
}

func TestClientConditions(t *testing.T) {
	t.Parallel()
	ctx, client := t.Context(), start(t).container(t, "inputs")
	one := client.ServiceClient().NewContainerClient("inputs").NewBlockBlobClient("blob")
	upload := func(text string, m blob.ModifiedAccessConditions) (*azcore.ETag, error) {
		response, err := one.Upload(ctx, streaming([]byte(text)), &blockblob.UploadOptions{
			AccessConditions: &blob.AccessConditions{ModifiedAccessConditions: &m},
		})
		return response.ETag, err
	}
	// The client reports a 304 as a success without a body.
	read := func(m blob.ModifiedAccessConditions) (unchanged string, err error) {
		response, err := one.DownloadStream(ctx, &blob.DownloadStreamOptions{
			AccessConditions: &blob.AccessConditions{ModifiedAccessConditions: &m},
		})
		if err != nil {
			return "", err
		}
		if response.ErrorCode != nil {
			return *response.ErrorCode, nil
		}
		_, err = io.ReadAll(response.Body)
		return "", errors.Join(err, response.Body.Close())
	}
	always := to.Ptr(azcore.ETagAny)
	first, err := upload("one", blob.ModifiedAccessConditions{IfNoneMatch: always})
	if err != nil {
		t.Fatal(err)
	}
	_, err = upload("two", blob.ModifiedAccessConditions{IfNoneMatch: always})
	wantCode(t, err, bloberror.BlobAlreadyExists)
	second, err := upload("two", blob.ModifiedAccessConditions{IfMatch: first})
	if err != nil {
		t.Fatal(err)
	}
	_, err = upload("three", blob.ModifiedAccessConditions{IfMatch: first})
	wantCode(t, err, bloberror.ConditionNotMet)

	if unchanged, err := read(blob.ModifiedAccessConditions{IfMatch: second}); unchanged != "" || err != nil {
		t.Error(unchanged, err)
	}
	for name, m := range map[string]blob.ModifiedAccessConditions{
		"If-Match":            {IfMatch: first},
		"If-Unmodified-Since": {IfUnmodifiedSince: to.Ptr(time.Now().Add(-time.Hour))},
	} {
		_, err := read(m)
		if !bloberror.HasCode(err, bloberror.ConditionNotMet) {
			t.Errorf("%s: %v, want 412", name, err)
		}
	}
	for name, m := range map[string]blob.ModifiedAccessConditions{
		"If-None-Match":     {IfNoneMatch: second},
		"If-Modified-Since": {IfModifiedSince: to.Ptr(time.Now().Add(time.Hour))},
	} {
		if unchanged, err := read(m); unchanged != "ConditionNotMet" || err != nil {
			t.Errorf("%s: %q, %v, want 304", name, unchanged, err)
		}
	}
	_, err = one.Delete(ctx, &blob.DeleteOptions{
		AccessConditions: &blob.AccessConditions{ModifiedAccessConditions: &blob.ModifiedAccessConditions{IfMatch: first}},
	})
	wantCode(t, err, bloberror.ConditionNotMet)
}

func TestClientPropertiesAndCopy(t *testing.T) {
	t.Parallel()
	e := start(t)
	ctx, client := t.Context(), e.container(t, "inputs")
	inputs := client.ServiceClient().NewContainerClient("inputs")
	content := pattern(1 << 20)
	source, copied := inputs.NewBlockBlobClient("source"), inputs.NewBlockBlobClient("copy")
	if _, err := source.UploadStream(ctx, bytes.NewReader(content), &blockblob.UploadStreamOptions{BlockSize: 300 << 10}); err != nil {
		t.Fatal(err)
	}
	if _, err := source.SetMetadata(ctx, map[string]*string{"k": to.Ptr("v")}, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := source.SetHTTPHeaders(ctx, blob.HTTPHeaders{BlobContentType: to.Ptr("image/png")}, nil); err != nil {
		t.Fatal(err)
	}
	answered, err := copied.StartCopyFromURL(ctx, source.URL(), nil)
	if err != nil || *answered.CopyStatus != blob.CopyStatusTypeSuccess {
		t.Fatalf("copy %+v, %v", answered, err)
	}
	if _, err := source.Delete(ctx, nil); err != nil {
		t.Fatal(err)
	}
	if got := download(ctx, t, client, "inputs", "copy", nil); !bytes.Equal(got, content) {
		t.Error("the copy differs")
	}
	properties, err := copied.GetProperties(ctx, nil)
	if err != nil || *properties.ContentType != "image/png" || *properties.Metadata["K"] != "v" ||
		*properties.CopyStatus != blob.CopyStatusTypeSuccess || *properties.CopyID != *answered.CopyID {
		t.Errorf("properties %+v, %v", properties, err)
	}
	_, err = copied.StartCopyFromURL(ctx, source.URL(), nil)
	wantCode(t, err, bloberror.CannotVerifyCopySource)
	_, err = copied.AbortCopyFromURL(ctx, *answered.CopyID, nil)
	wantCode(t, err, bloberror.NoPendingCopyOperation)
}

func TestClientChecksums(t *testing.T) {
	t.Parallel()
	ctx, client := t.Context(), start(t).container(t, "inputs")
	inputs := client.ServiceClient().NewContainerClient("inputs")
	content := pattern(100_000)
	for name, validation := range map[string]blob.TransferValidationType{
		"crc64":       blob.TransferValidationTypeComputeCRC64(),
		"wrong crc64": blob.TransferValidationTypeCRC64(42),
		"wrong md5":   blob.TransferValidationTypeMD5(make([]byte, md5.Size)),
	} {
		_, err := inputs.NewBlockBlobClient("blob").StageBlock(ctx, "YQ==", streaming(content),
			&blockblob.StageBlockOptions{TransactionalValidation: validation})
		switch name {
		case "crc64":
			if err != nil {
				t.Error(err)
			}
		case "wrong crc64":
			wantCode(t, err, bloberror.CRC64Mismatch)
		case "wrong md5":
			wantCode(t, err, bloberror.MD5Mismatch)
		}
	}
}

func TestClientSAS(t *testing.T) {
	t.Parallel()
	e := start(t)
	ctx, client := t.Context(), e.container(t, "inputs")
	if _, err := client.UploadBuffer(ctx, "inputs", "blob", []byte("text"), nil); err != nil {
		t.Fatal(err)
	}
	inputs := client.ServiceClient().NewContainerClient("inputs")

	t.Run("of a container", func(t *testing.T) {
		t.Parallel()
		address, err := inputs.GetSASURL(sas.ContainerPermissions{Read: true, List: true, Create: true}, time.Now().Add(time.Hour), nil)
		if err != nil {
			t.Fatal(err)
		}
		lent, err := container.NewClientWithNoCredential(address, nil)
		if err != nil {
			t.Fatal(err)
		}
		if page, err := lent.NewListBlobsFlatPager(nil).NextPage(ctx); err != nil || len(page.Segment.BlobItems) == 0 {
			t.Errorf("list: %v", err)
		}
		if _, err := lent.NewBlockBlobClient("new").UploadBuffer(ctx, []byte("x"), nil); err != nil {
			t.Errorf("create: %v", err)
		}
		_, err = lent.NewBlockBlobClient("blob").UploadBuffer(ctx, []byte("x"), nil)
		wantCode(t, err, bloberror.UnauthorizedBlobOverwrite)
		_, err = lent.NewBlobClient("blob").Delete(ctx, nil)
		wantCode(t, err, bloberror.AuthorizationPermissionMismatch)
		_, err = lent.Delete(ctx, nil)
		wantCode(t, err, bloberror.AuthorizationResourceTypeMismatch)
	})

	t.Run("of a blob", func(t *testing.T) {
		t.Parallel()
		address, err := inputs.NewBlobClient("blob").GetSASURL(sas.BlobPermissions{Read: true}, time.Now().Add(time.Hour), nil)
		if err != nil {
			t.Fatal(err)
		}
		lent, err := blob.NewClientWithNoCredential(address, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := lent.GetProperties(ctx, nil); err != nil {
			t.Error(err)
		}
		other, err := blob.NewClientWithNoCredential(strings.Replace(address, "/blob?", "/other?", 1), nil)
		if err != nil {
			t.Fatal(err)
		}
		_, err = other.GetProperties(ctx, nil)
		wantCode(t, err, bloberror.AuthenticationFailed)
	})

	t.Run("of the account", func(t *testing.T) {
		t.Parallel()
		address, err := client.ServiceClient().GetSASURL(sas.AccountResourceTypes{Service: true, Container: true},
			sas.AccountPermissions{List: true, Create: true}, time.Now().Add(time.Hour), nil)
		if err != nil {
			t.Fatal(err)
		}
		lent, err := service.NewClientWithNoCredential(address, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := lent.NewListContainersPager(nil).NextPage(ctx); err != nil {
			t.Error(err)
		}
		if _, err := lent.CreateContainer(ctx, "made", nil); err != nil {
			t.Error(err)
		}
		_, err = lent.DeleteContainer(ctx, "made", nil)
		wantCode(t, err, bloberror.AuthorizationPermissionMismatch)
		_, err = lent.NewContainerClient("inputs").NewBlobClient("blob").GetProperties(ctx, nil)
		wantCode(t, err, bloberror.AuthorizationResourceTypeMismatch)
	})

	t.Run("with another key", func(t *testing.T) {
		t.Parallel()
		credential, err := azblob.NewSharedKeyCredential("devstoreaccount1", "bm90IHRoZSBrZXkgYnV0IGxvbmcgZW5vdWdo")
		if err != nil {
			t.Fatal(err)
		}
		stranger, err := azblob.NewClientWithSharedKeyCredential(e.url, credential, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, err = stranger.CreateContainer(ctx, "other", nil)
		wantCode(t, err, bloberror.AuthenticationFailed)
	})
}
