package agent

import (
	"context"
	"errors"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"path/filepath"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
	"github.com/batchyard/batchyard/batch"
	"github.com/bmatcuk/doublestar/v4"
	"golang.org/x/sync/errgroup"
)

// upload brings the output files of an attempt to their containers and says
// what failed first, if anything did.
func (a *Agent) upload(ctx context.Context, t *attempt, success bool) *batch.FailureInfo {
	for _, output := range t.run.OutputFiles {
		if !output.UploadOptions.UploadCondition.Applies(success) {
			continue
		}
		if err := a.uploadOne(ctx, taskPlace(t.id.job, t.id.task), output); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return failureOf(err)
		}
	}
	return nil
}

func (a *Agent) uploadOne(ctx context.Context, place string, output batch.OutputFile) error {
	to := output.Destination.Container
	client, err := container.NewClientWithNoCredential(to.ContainerURL, &container.ClientOptions{ClientOptions: a.fetcher.options()})
	if err != nil {
		return userFailure(batch.FailureUpload, "The container's URL cannot be used", detail("Message", err.Error()))
	}
	files, single, err := a.matching(place, output.FilePattern)
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(transfers)
	for _, f := range files {
		name := path.Join(to.Path, f.name)
		if single && to.Path != "" {
			name = to.Path
		}
		group.Go(func() error {
			err := a.uploadFile(ctx, client, f.path, strings.TrimPrefix(name, "/"), to.UploadHeaders)
			return uploadFailure(err, output, f.name)
		})
	}
	return group.Wait()
}

// match is a file that a pattern names: its path below the node's root and the
// name that its blob gets.
type match struct{ path, name string }

// matching finds the files of a pattern, which is relative to the working
// directory or absolute, and stays below the node's root either way. Single
// tells that the pattern has no wildcard.
func (a *Agent) matching(place, pattern string) (files []match, single bool, err error) {
	pattern = strings.NewReplacer(`\`, "/", "{", `\{`, "}", `\}`).Replace(pattern)
	base := path.Join(place, "wd")
	full := path.Join(base, pattern)
	if path.IsAbs(pattern) {
		below, found := strings.CutPrefix(path.Clean(pattern), filepath.ToSlash(a.tree.path)+"/")
		if !found {
			return nil, false, userFailure(batch.FailureUpload, "An output file pattern leads out of the node's directory", detail("FilePattern", pattern))
		}
		full = below
	}
	if !fs.ValidPath(strings.ReplaceAll(full, `\`, "")) || !doublestar.ValidatePattern(full) {
		return nil, false, userFailure(batch.FailureUpload, "An output file pattern cannot be used", detail("FilePattern", pattern))
	}
	single = !strings.ContainsAny(pattern, "*?[")
	fixed, _ := doublestar.SplitPattern(full)
	names, err := doublestar.Glob(a.tree.root.FS(), full, doublestar.WithFilesOnly(), doublestar.WithNoFollow())
	if err != nil {
		return nil, single, err
	}
	for _, name := range names {
		files = append(files, match{name, blobName(name, base, fixed)})
	}
	return files, single, nil
}

// blobName is a file's path below the folder that its pattern names without
// wildcards; files outside the working directory keep what is behind that.
func blobName(name, base, fixed string) string {
	for _, folder := range []string{base, fixed} {
		if below, found := strings.CutPrefix(name, folder+"/"); found {
			return below
		}
	}
	return path.Base(name)
}

func (a *Agent) uploadFile(ctx context.Context, client *container.Client, name, blobName string, headers []batch.UploadHeader) error {
	if err := a.fetcher.take(ctx); err != nil {
		return err
	}
	defer a.fetcher.give()
	file, err := a.tree.openRegular(name)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	_, err = client.NewBlockBlobClient(blobName).UploadFile(ctx, file, &blockblob.UploadFileOptions{
		HTTPHeaders: blobHeaders(name, headers), Concurrency: 2,
	})
	return err
}

func blobHeaders(name string, given []batch.UploadHeader) *blob.HTTPHeaders {
	kind := mime.TypeByExtension(path.Ext(name))
	if kind == "" {
		kind = "application/octet-stream"
	}
	h := &blob.HTTPHeaders{BlobContentType: &kind}
	for _, header := range given {
		to := map[string]**string{
			"content-type": &h.BlobContentType, "content-encoding": &h.BlobContentEncoding,
			"content-language": &h.BlobContentLanguage, "content-disposition": &h.BlobContentDisposition,
			"cache-control": &h.BlobCacheControl,
		}[strings.TrimPrefix(strings.ToLower(header.Name), "x-ms-blob-")]
		if to != nil {
			*to = &header.Value
		}
	}
	return h
}

// uploadFailure puts a failed upload into the protocol's words.
func uploadFailure(err error, output batch.OutputFile, name string) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	code, message := batch.FailureUpload, "The file could not be uploaded"
	switch {
	case bloberror.HasCode(err, bloberror.ContainerNotFound):
		code, message = batch.FailureUploadNoContainer, "The specified container for file upload is not found"
	case isStatus(err, http.StatusForbidden), isStatus(err, http.StatusUnauthorized):
		code, message = batch.FailureUploadAccessDenied, "Access to the specified container for file upload is denied"
	}
	return userFailure(code, message,
		detail("FilePath", name), detail("FilePattern", output.FilePattern),
		detail("FileDestination", withoutQuery(output.Destination.Container.ContainerURL)),
		detail("Message", withoutQuery(firstLine(err.Error()))))
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return line
}
