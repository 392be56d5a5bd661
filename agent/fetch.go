package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
	"github.com/batchyard/batchyard/agent/run"
	"github.com/batchyard/batchyard/batch"
	"github.com/cenkalti/backoff/v5"
	"golang.org/x/sync/errgroup"
)

// transfers bounds uploads and downloads of a node at one time.
const transfers = 8

// tries bounds how often a transfer is begun.
const tries = 4

// fetcher brings resource files to a directory and output files away.
type fetcher struct {
	client *http.Client
	places chan struct{} // a token a transfer
}

func newFetcher(allowed []string) *fetcher {
	return &fetcher{client: guardedClient(allowed), places: make(chan struct{}, transfers)}
}

// options make storage clients use the guarded connections.
func (f *fetcher) options() azcore.ClientOptions {
	return azcore.ClientOptions{
		Transport: f.client,
		Retry:     policy.RetryOptions{MaxRetries: tries - 1, RetryDelay: 200 * time.Millisecond, MaxRetryDelay: 5 * time.Second},
		Telemetry: policy.TelemetryOptions{Disabled: true},
	}
}

// target is where one file goes: a path below a directory of the tree.
type target struct {
	tree   *tree
	folder string
	user   *run.User
	mode   fs.FileMode
}

// all fetches every resource file. The first failure ends the others.
func (f *fetcher) all(ctx context.Context, t *tree, folder string, files []batch.ResourceFile, u *run.User) error {
	if len(files) == 0 {
		return nil
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(transfers)
	for _, file := range files {
		to := target{t, folder, u, fs.FileMode(file.Mode())}
		group.Go(func() error {
			if file.HTTPURL != "" {
				return f.file(ctx, file, to)
			}
			return f.container(ctx, file, to)
		})
	}
	return group.Wait()
}

func (f *fetcher) take(ctx context.Context) error {
	select {
	case f.places <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (f *fetcher) give() { <-f.places }

// file fetches one URL, from the start again when a transfer breaks off.
func (f *fetcher) file(ctx context.Context, file batch.ResourceFile, to target) error {
	if err := f.take(ctx); err != nil {
		return err
	}
	defer f.give()
	delays := retryDelays()
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		return struct{}{}, f.once(ctx, file.HTTPURL, file.FilePath, to)
	}, backoff.WithBackOff(delays), backoff.WithMaxTries(tries))
	return fetchFailure(err, file.HTTPURL, file.FilePath)
}

// statusError is an answer that is no file.
type statusError int

func (e statusError) Error() string { return fmt.Sprintf("the server answered %d", int(e)) }

func (f *fetcher) once(ctx context.Context, url, name string, to target) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return backoff.Permanent(err)
	}
	response, err := f.client.Do(request)
	if err != nil {
		if _, refused := errors.AsType[*refusedAddressError](err); refused {
			return backoff.Permanent(err)
		}
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		err := statusError(response.StatusCode)
		if response.StatusCode < 500 && response.StatusCode != http.StatusTooManyRequests {
			return backoff.Permanent(err)
		}
		return err
	}
	err = to.write(name, response.Body)
	if noSpace(err) {
		return backoff.Permanent(err)
	}
	return err
}

// write makes a file with the bytes of r. Folders on the way are made for the
// user.
func (t target) write(name string, r io.Reader) error {
	if err := t.folders(path.Dir(name)); err != nil {
		return err
	}
	full := path.Join(t.folder, name)
	if err := t.tree.root.Remove(full); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("replace resource file: %w", err)
	}
	file, err := t.tree.root.OpenFile(full, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("create resource file: %w", err)
	}
	_, err = io.Copy(file, r)
	if err == nil {
		err = file.Chmod(t.mode)
	}
	if err == nil && t.user != nil {
		err = file.Chown(int(t.user.UID), int(t.user.GID))
	}
	return errors.Join(err, file.Close())
}

func (t target) folders(folder string) error {
	if folder == "." {
		return nil
	}
	made := ""
	for part := range strings.SplitSeq(path.Clean(folder), "/") {
		made = path.Join(made, part)
		full := path.Join(t.folder, made)
		err := t.tree.root.Mkdir(full, 0o770)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err == nil {
			err = t.tree.give(full, t.user)
		}
		if err != nil {
			return fmt.Errorf("make folder of resource file: %w", err)
		}
	}
	return nil
}

// container fetches the blobs of a container below a prefix. FilePath is the
// folder they go to; their names keep their own folders.
func (f *fetcher) container(ctx context.Context, file batch.ResourceFile, to target) error {
	client, err := container.NewClientWithNoCredential(file.StorageContainerURL, &container.ClientOptions{ClientOptions: f.options()})
	if err != nil {
		return userFailure(batch.FailureBlobDownload, "The container's URL cannot be used", detail("Message", err.Error()))
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(transfers)
	list := &container.ListBlobsFlatOptions{}
	if file.BlobPrefix != "" {
		list.Prefix = &file.BlobPrefix
	}
	for pages := client.NewListBlobsFlatPager(list); pages.More(); {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return errors.Join(group.Wait(), containerFailure(err, file.StorageContainerURL))
		}
		for _, item := range page.Segment.BlobItems {
			group.Go(func() error { return f.blob(ctx, client, *item.Name, path.Join(file.FilePath, *item.Name), to) })
		}
	}
	return group.Wait()
}

func (f *fetcher) blob(ctx context.Context, client *container.Client, blob, name string, to target) error {
	if !fs.ValidPath(name) {
		return userFailure(batch.FailureBlobDownload, "A blob's name is not a path below the working directory", detail("BlobName", blob))
	}
	if err := f.take(ctx); err != nil {
		return err
	}
	defer f.give()
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		answer, err := client.NewBlobClient(blob).DownloadStream(ctx, &azblob.DownloadStreamOptions{})
		if err != nil {
			return struct{}{}, backoff.Permanent(err) // the client has tried again itself
		}
		defer func() { _ = answer.Body.Close() }()
		return struct{}{}, to.write(name, answer.Body)
	}, backoff.WithBackOff(retryDelays()), backoff.WithMaxTries(tries))
	return fetchFailure(err, blob, name)
}

func detail(name, value string) batch.NameValue { return batch.NameValue{Name: name, Value: value} }

// fetchFailure puts a failed fetch into the protocol's words. A URL's
// signature is a secret and is not repeated.
func fetchFailure(err error, source, name string) error {
	if err == nil || noSpace(err) {
		return err
	}
	code, message := batch.FailureBlobDownload, "The file could not be downloaded"
	status := 0
	if s, ok := errors.AsType[statusError](err); ok {
		status = int(s)
	} else if s, ok := errors.AsType[*azcore.ResponseError](err); ok {
		status = s.StatusCode
	}
	switch status {
	case http.StatusNotFound:
		code, message = batch.FailureBlobNotFound, "One of the specified Azure Blob(s) is not found"
	case http.StatusForbidden, http.StatusUnauthorized:
		code, message = batch.FailureBlobAccessDenied, "Access for one of the specified Azure Blob(s) is denied"
	}
	return userFailure(code, message, detail("BlobSource", withoutQuery(source)), detail("FilePath", name), detail("Message", withoutQuery(err.Error())))
}

func containerFailure(err error, url string) error {
	code, message := batch.FailureBlobDownload, "The container could not be listed"
	switch {
	case bloberror.HasCode(err, bloberror.ContainerNotFound):
		code, message = batch.FailureContainerNotFound, "The specified container is not found"
	case isStatus(err, http.StatusForbidden), isStatus(err, http.StatusUnauthorized):
		code, message = batch.FailureContainerAccessDenied, "Access to the specified container is denied"
	}
	return userFailure(code, message, detail("StorageContainerUrl", withoutQuery(url)))
}

func isStatus(err error, status int) bool {
	answer, ok := errors.AsType[*azcore.ResponseError](err)
	return ok && answer.StatusCode == status
}

// withoutQuery cuts a text at the first question mark up to the next blank or
// quote, where a signature may stand.
func withoutQuery(text string) string {
	before, after, found := strings.Cut(text, "?")
	if !found {
		return text
	}
	if end := strings.IndexAny(after, " \"'\n"); end >= 0 {
		return before + withoutQuery(after[end:])
	}
	return before
}
