package agent

import (
	"context"
	"errors"
	"io/fs"
	"mime"
	"net/http"
	"os"
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

// upload brings the output files of a task to their containers and says what
// failed first, if anything did.
func (a *Agent) upload(ctx context.Context, place string, outputs []batch.OutputFile, success bool) *batch.FailureInfo {
	for _, output := range outputs {
		if !output.UploadOptions.UploadCondition.Applies(success) {
			continue
		}
		if err := a.uploadOne(ctx, place, output); err != nil && ctx.Err() == nil {
			return failureOf(err)
		}
	}
	return nil
}

func (a *Agent) uploadOne(ctx context.Context, place string, output batch.OutputFile) error {
	to := output.Destination.Container
	client, err := container.NewClientWithNoCredential(to.ContainerURL, &container.ClientOptions{ClientOptions: a.fetcher.options()})
	if err != nil {
		return userFailure(batch.FailureUpload, "The container's URL cannot be used", detail("Message", plainText(err)))
	}
	folder, pattern, err := a.tree.aim(place, output.FilePattern)
	if err != nil {
		return err
	}
	root, err := a.tree.root.OpenRoot(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // nothing was ever made there
	}
	if err != nil {
		return uploadFailure(err, output, "")
	}
	defer root.Close()
	files, err := match(root, pattern)
	if err != nil {
		return uploadFailure(err, output, "")
	}
	owner := a.tree.owner(place + "/wd")
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(transfers)
	for _, name := range files {
		if isWild(pattern) && !isOutput(root, name) {
			continue
		}
		group.Go(func() error {
			err := a.uploadFile(ctx, client, root, owner, name, blobName(name, pattern, to.Path), to.UploadHeaders)
			return uploadFailure(err, output, name)
		})
	}
	return group.Wait()
}

// aim says in which folder of the node a pattern looks, and the rest of it
// there. Patterns are relative to the working directory or absolute. Either way
// they look in the task's own directory or in the shared one: the agent may
// read more than the task may, and must not do so for it.
func (t *tree) aim(place, pattern string) (folder, below string, err error) {
	pattern = strings.ReplaceAll(pattern, `\`, "/")
	full := path.Join(place, "wd", pattern)
	if path.IsAbs(pattern) {
		full = strings.TrimPrefix(path.Clean(pattern), filepath.ToSlash(t.path)+"/")
	}
	for _, folder := range []string{place, sharedName} {
		if below, found := strings.CutPrefix(full, folder+"/"); found {
			return folder, escape(below), nil
		}
	}
	return "", "", userFailure(batch.FailureUpload,
		"An output file pattern looks neither in the task's directory nor in the shared directory of the node", detail("FilePattern", pattern))
}

// escape makes braces, which are nothing special in the protocol, stand for
// themselves.
func escape(pattern string) string { return strings.NewReplacer("{", `\{`, "}", `\}`).Replace(pattern) }

func isWild(pattern string) bool { return strings.ContainsAny(pattern, "*?[") }

// match finds the files of a pattern; links are not followed to other folders.
func match(root *os.Root, pattern string) ([]string, error) {
	if !doublestar.ValidatePattern(pattern) {
		return nil, userFailure(batch.FailureUpload, "An output file pattern cannot be read", detail("FilePattern", pattern))
	}
	return doublestar.Glob(root.FS(), pattern, doublestar.WithFilesOnly(), doublestar.WithNoFollow())
}

// isOutput tells whether what a wildcard found is a file, or a link to one in
// the same directory: tools leave links to programs of the machine behind.
func isOutput(root *os.Root, name string) bool {
	info, err := root.Stat(name)
	return err == nil && info.Mode().IsRegular()
}

// blobName is the name of a file's blob. A pattern without wildcards has it
// from the path, if there is one; otherwise that is a prefix of the file's own
// name: its path below the working directory or, if the pattern looks outside
// of it, below the folder that the pattern names.
func blobName(name, pattern, prefix string) string {
	if !isWild(pattern) && prefix != "" {
		return strings.TrimPrefix(prefix, "/")
	}
	folder, _ := doublestar.SplitPattern(pattern)
	if strings.HasPrefix(folder+"/", "wd/") {
		folder = "wd"
	}
	return strings.TrimPrefix(path.Join(prefix, strings.TrimPrefix(name, folder+"/")), "/")
}

func (a *Agent) uploadFile(
	ctx context.Context, client *container.Client, root *os.Root, owner uint32, name, blobName string, headers []batch.UploadHeader,
) error {
	if err := a.fetcher.take(ctx); err != nil {
		return err
	}
	defer a.fetcher.give()
	file, err := openRegular(root, name, owner)
	if err != nil {
		return err
	}
	defer file.Close()
	to := blockblob.UploadFileOptions{Concurrency: 2, HTTPHeaders: &blob.HTTPHeaders{}, Metadata: map[string]*string{}}
	setHeaders(&to, name, headers)
	_, err = client.NewBlockBlobClient(blobName).UploadFile(ctx, file, &to)
	return err
}

// setHeaders applies headers of the upload request as far as they describe the
// blob.
func setHeaders(to *blockblob.UploadFileOptions, name string, headers []batch.UploadHeader) {
	kind := mime.TypeByExtension(path.Ext(name))
	if kind == "" {
		kind = "application/octet-stream"
	}
	h := to.HTTPHeaders
	h.BlobContentType = &kind
	for _, header := range headers {
		lower := strings.ToLower(header.Name)
		if key, found := strings.CutPrefix(lower, "x-ms-meta-"); found {
			to.Metadata[key] = &header.Value
			continue
		}
		switch strings.TrimPrefix(lower, "x-ms-blob-") {
		case "content-type":
			h.BlobContentType = &header.Value
		case "content-encoding":
			h.BlobContentEncoding = &header.Value
		case "content-language":
			h.BlobContentLanguage = &header.Value
		case "content-disposition":
			h.BlobContentDisposition = &header.Value
		case "cache-control":
			h.BlobCacheControl = &header.Value
		}
	}
}

// uploadFailure puts a failed upload into the protocol's words.
func uploadFailure(err error, output batch.OutputFile, name string) error {
	if _, own := errors.AsType[*taskFailure](err); err == nil || own || errors.Is(err, context.Canceled) {
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
		detail("FileDestination", plainURL(output.Destination.Container.ContainerURL)), detail("Message", plainText(err)))
}
