package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
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
	agent  *Agent
	client *http.Client
	places chan struct{} // a token a transfer
}

func newFetcher(a *Agent, allowed []string) *fetcher {
	return &fetcher{agent: a, client: guardedClient(allowed, a.TLS), places: make(chan struct{}, transfers)}
}

// options make storage clients use the guarded connections.
func (f *fetcher) options() azcore.ClientOptions {
	return azcore.ClientOptions{
		Transport: modest{f.client},
		Retry:     policy.RetryOptions{MaxRetries: tries - 1, RetryDelay: 200 * time.Millisecond, MaxRetryDelay: 5 * time.Second},
		Telemetry: policy.TelemetryOptions{Disabled: true},
	}
}

// maxAnswer bounds what is read of an answer that is no file: lists of 5,000
// blobs with long names, and words about errors.
const maxAnswer = 32 << 20

// modest is a client of which no answer but a file has more than maxAnswer:
// the storage client keeps such answers in memory, and the server may be
// anybody's.
type modest struct{ client *http.Client }

// Do makes a request.
func (m modest) Do(request *http.Request) (*http.Response, error) {
	response, err := m.client.Do(request)
	if err != nil {
		return nil, err
	}
	good := response.StatusCode == http.StatusOK || response.StatusCode == http.StatusPartialContent
	if file := request.Method == http.MethodGet && request.URL.Query().Get("comp") == "" && good; !file {
		response.Body = http.MaxBytesReader(nil, response.Body, maxAnswer)
	}
	return response, nil
}

// all fetches every resource file. The first failure ends the others.
func (f *fetcher) all(ctx context.Context, to *target, files []batch.ResourceFile) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(transfers)
	last := make(map[string]int, len(files)) // entry by path
	for entry, file := range files {
		if file.HTTPURL != "" {
			last[path.Clean(file.FilePath)] = entry
		}
	}
	for entry, file := range files {
		if file.HTTPURL != "" && last[path.Clean(file.FilePath)] != entry {
			continue // nobody would see it
		}
		group.Go(func() error {
			return f.agent.guard("fetch of a resource file", func() error {
				if file.HTTPURL != "" {
					return f.file(ctx, entry, file, to)
				}
				return f.container(ctx, entry, file, to)
			})
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

// again calls once until it succeeds, with what is left of the tries.
func again(ctx context.Context, once func() error) error {
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		err := once()
		if noSpace(err) || ctx.Err() != nil {
			err = backoff.Permanent(err)
		}
		return struct{}{}, err
	}, backoff.WithBackOff(retryDelays()), backoff.WithMaxTries(tries), backoff.WithMaxElapsedTime(0))
	return err
}

// file fetches one URL, from the start again when a transfer breaks off.
func (f *fetcher) file(ctx context.Context, entry int, file batch.ResourceFile, to *target) error {
	if err := f.take(ctx); err != nil {
		return err
	}
	defer f.give()
	err := to.turn(entry, file.FilePath, func() error {
		return again(ctx, func() error { return f.once(ctx, file, to) })
	})
	return fetchFailure(err, file.HTTPURL, file.FilePath)
}

// statusError is an answer that is no file.
type statusError int

func (e statusError) Error() string { return fmt.Sprintf("the server answered %d", int(e)) }

func (f *fetcher) once(ctx context.Context, file batch.ResourceFile, to *target) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, file.HTTPURL, nil)
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
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		err := statusError(response.StatusCode)
		if response.StatusCode < 500 && response.StatusCode != http.StatusTooManyRequests {
			return backoff.Permanent(err)
		}
		return err
	}
	if response.ContentLength == 0 && response.Header.Get("x-ms-meta-"+folderMark) == "true" {
		return to.folders(path.Clean(file.FilePath))
	}
	return to.write(file.FilePath, fs.FileMode(file.Mode()), response.Body)
}

// maxBlobs bounds the blobs of one container that are fetched.
const maxBlobs = 1_000_000

// errNoList is the error of an answer that is not the list it should be.
var errNoList = errors.New("the server does not answer with a list of blobs")

// listed are the blobs of a page. The list may be anybody's answer.
func listed(page container.ListBlobsFlatResponse) ([]*container.BlobItem, error) {
	if page.Segment == nil {
		return nil, errNoList
	}
	for _, item := range page.Segment.BlobItems {
		if item == nil || item.Name == nil || *item.Name == "" {
			return nil, fmt.Errorf("%w: one of them has no name", errNoList)
		}
	}
	return page.Segment.BlobItems, nil
}

// container fetches the blobs of a container below a prefix. FilePath is the
// folder they go to; their names keep their own folders.
func (f *fetcher) container(ctx context.Context, entry int, file batch.ResourceFile, to *target) error {
	client, err := container.NewClientWithNoCredential(file.StorageContainerURL, &container.ClientOptions{ClientOptions: f.options()})
	if err != nil {
		return userFailure(batch.FailureBlobDownload, "The container's URL cannot be used", detail("Message", plainText(err)))
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(transfers)
	list := &container.ListBlobsFlatOptions{Include: container.ListBlobsInclude{Metadata: true}}
	if file.BlobPrefix != "" {
		list.Prefix = &file.BlobPrefix
	}
	count, marker := 0, ""
	for pages := client.NewListBlobsFlatPager(list); pages.More(); {
		page, err := pages.NextPage(ctx)
		var items []*container.BlobItem
		if err == nil {
			items, err = listed(page)
		}
		count += len(items)
		next := ""
		if page.NextMarker != nil {
			next = *page.NextMarker
		}
		switch {
		case err != nil:
		case next != "" && next == marker:
			err = fmt.Errorf("%w: its pages have no end", errNoList)
		case count > maxBlobs:
			err = fmt.Errorf("the container has more than %d blobs", maxBlobs)
		}
		marker = next
		if err != nil {
			// A blob's failure, which ends the listing too, comes first.
			if failed := group.Wait(); failed != nil {
				return failed
			}
			return containerFailure(err, file.StorageContainerURL)
		}
		for _, item := range items {
			group.Go(func() error {
				return f.agent.guard("fetch of a blob", func() error { return f.blob(ctx, client, item, entry, file, to) })
			})
		}
	}
	return group.Wait()
}

func (f *fetcher) blob(
	ctx context.Context, client *container.Client, item *container.BlobItem, entry int, file batch.ResourceFile, to *target,
) error {
	blob := *item.Name
	name := path.Join(file.FilePath, blob)
	if !fs.ValidPath(name) || name == "." {
		return userFailure(batch.FailureBlobDownload, "A blob's name is not a path below the working directory", detail("BlobName", blob))
	}
	if isFolder(item) {
		return to.folders(name)
	}
	if err := f.take(ctx); err != nil {
		return err
	}
	defer f.give()
	err := to.turn(entry, name, func() error {
		return again(ctx, func() error {
			answer, err := client.NewBlobClient(blob).DownloadStream(ctx, nil)
			if err != nil {
				return backoff.Permanent(err) // the client has tried again itself
			}
			defer answer.Body.Close()
			return to.write(name, fs.FileMode(file.Mode()), answer.Body)
		})
	})
	return fetchFailure(err, client.NewBlobClient(blob).URL(), name)
}

// isFolder tells whether a blob stands for a folder, as tools mark it: by the end
// of its name, or by metadata if it is empty.
func isFolder(item *container.BlobItem) bool {
	if strings.HasSuffix(*item.Name, "/") {
		return true
	}
	if item.Properties == nil || item.Properties.ContentLength == nil || *item.Properties.ContentLength != 0 {
		return false
	}
	for name, value := range item.Metadata {
		if strings.EqualFold(name, folderMark) && value != nil && strings.EqualFold(*value, "true") {
			return true
		}
	}
	return false
}

// fetchFailure puts a failed fetch into the protocol's words. A URL's
// signature is a secret and is not repeated.
func fetchFailure(err error, source, name string) error {
	if err == nil || noSpace(err) || errors.Is(err, context.Canceled) {
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
	return userFailure(code, message, detail("BlobSource", plainURL(source)), detail("FilePath", name), detail("Message", plainText(err)))
}

func containerFailure(err error, url string) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	code, message := batch.FailureBlobDownload, "The container could not be listed"
	switch {
	case bloberror.HasCode(err, bloberror.ContainerNotFound):
		code, message = batch.FailureContainerNotFound, "The specified container is not found"
	case isStatus(err, http.StatusForbidden), isStatus(err, http.StatusUnauthorized):
		code, message = batch.FailureContainerAccessDenied, "Access to the specified container is denied"
	}
	return userFailure(code, message, detail("StorageContainerUrl", plainURL(url)), detail("Message", plainText(err)))
}

func isStatus(err error, status int) bool {
	answer, ok := errors.AsType[*azcore.ResponseError](err)
	return ok && answer.StatusCode == status
}

// plainURL is a URL without what may be a secret in it.
func plainURL(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return withoutQuery(raw)
	}
	u.RawQuery, u.User = "", nil
	return u.String()
}

// plainText is the first line of an error without what may be a secret in it.
func plainText(err error) string {
	if answer, ok := errors.AsType[*azcore.ResponseError](err); ok {
		return fmt.Sprintf("the storage answered %d %s", answer.StatusCode, answer.ErrorCode)
	}
	line, _, _ := strings.Cut(err.Error(), "\n")
	return withoutQuery(line)
}

// withoutQuery cuts a text at each question mark up to the next blank or quote,
// where a signature may stand.
func withoutQuery(text string) string {
	var plain strings.Builder
	for {
		before, after, found := strings.Cut(text, "?")
		plain.WriteString(before)
		if !found {
			return plain.String()
		}
		end := strings.IndexAny(after, " \"'")
		if end < 0 {
			return plain.String()
		}
		text = after[end:]
	}
}
