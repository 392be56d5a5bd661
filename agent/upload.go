package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"mime"
	"net/http"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
	"github.com/batchyard/batchyard/agent/run"
	"github.com/batchyard/batchyard/batch"
	"golang.org/x/sync/errgroup"
)

// upload brings the output files of a command to their containers, leaves word
// of it in the task's directory and says what failed first, if anything did.
// What fails does not keep the others back.
func (a *Agent) upload(ctx context.Context, c *command, outputs []batch.OutputFile, success bool) *batch.FailureInfo {
	outputs = slices.DeleteFunc(slices.Clone(outputs), func(o batch.OutputFile) bool {
		return !o.UploadOptions.UploadCondition.Applies(success)
	})
	if len(outputs) == 0 {
		return nil
	}
	folder, err := a.tree.root.OpenRoot(c.place)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // nothing was ever made there
	}
	if err != nil {
		return failureOf(err)
	}
	defer folder.Close()
	user, err := a.users.resolve(a.settings.Load().UserAccounts, c.user, c.slot, c.number)
	if err != nil {
		return failureOf(err)
	}
	owner := a.tree.fileOwner(c.place)
	u := &uploading{
		agent: a, place: c.place, user: user.run, owner: owner, env: c.variables(), log: openUploadLog(folder, owner, a.now), silent: map[string]bool{},
	}
	for _, output := range outputs {
		u.failed(u.pattern(ctx, output))
	}
	if err := u.log.close(); err != nil {
		a.Log.Warn("word of uploads not left", "place", c.place, "err", err)
	}
	if u.failure == nil || ctx.Err() != nil {
		return nil
	}
	return failureOf(u.failure)
}

// uploading is the upload of a command's output files.
type uploading struct {
	agent *Agent
	place string
	user  *run.User // with whose rights files are looked for and opened
	owner uint32    // of the task's files
	env   []string
	log   *uploadLog

	mu      sync.Mutex // guards all below
	failure error      // the first
	// silent are containers that could not be reached for as long as an upload
	// is tried: the next one is not given that time again.
	silent map[string]bool
}

func (u *uploading) failed(err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.failure == nil {
		u.failure = err
	}
}

// options are those of the storage client for a container.
func (u *uploading) options(container string) azcore.ClientOptions {
	options := u.agent.fetcher.options()
	options.Retry = uploadRetries
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.silent[container] {
		options.Retry.MaxRetries = -1
	}
	return options
}

// uploadRetries have a node try for about two minutes to bring a file to a
// storage that is not there or busy: the command is not run again for it.
var uploadRetries = policy.RetryOptions{MaxRetries: 9, RetryDelay: 400 * time.Millisecond, MaxRetryDelay: 30 * time.Second}

// pattern uploads the files of one output.
func (u *uploading) pattern(ctx context.Context, output batch.OutputFile) error {
	to := output.Destination.Container
	client, err := container.NewClientWithNoCredential(to.ContainerURL, &container.ClientOptions{ClientOptions: u.options(to.ContainerURL)})
	if err != nil {
		return u.miss(output, "", userFailure(batch.FailureUpload, "The container's URL cannot be used", detail("Message", plainText(err))))
	}
	pattern, err := expand(output.FilePattern, u.env)
	if err != nil {
		return u.miss(output, "", err)
	}
	folder, pattern, err := u.agent.tree.aim(u.place, pattern)
	if err != nil {
		return u.miss(output, "", err)
	}
	root, err := u.agent.tree.root.OpenRoot(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // nothing was ever made there
	}
	if err != nil {
		return u.miss(output, "", err)
	}
	defer root.Close()
	var files []string
	err = as(u.user, func() (err error) {
		files, err = u.find(root, pattern, output)
		return err
	})
	if err != nil {
		return err
	}
	return u.files(ctx, root, files, pattern, output, client)
}

// find lists the files of a pattern. One that is named and cannot be uploaded
// is a failure; what wildcards find beside files is left, with a word.
func (u *uploading) find(root *os.Root, pattern string, output batch.OutputFile) (files []string, err error) {
	if isWild(pattern) {
		var shut []string
		files, shut, err = match(root.FS(), pattern)
		if err != nil {
			return nil, u.miss(output, "", err)
		}
		for _, folder := range shut {
			u.log.missed(folder, errTooDeep)
		}
		files = slices.DeleteFunc(files, func(name string) bool {
			err := isOutput(root, name)
			if err != nil {
				u.log.missed(name, err)
			}
			return err != nil
		})
	} else {
		switch err := isOutput(root, pattern); {
		case err == nil:
			files = []string{pattern}
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, errFolder):
		default:
			return nil, u.miss(output, pattern, err)
		}
	}
	if len(files) == 0 {
		u.log.missed(output.FilePattern, errNoMatch)
	}
	return files, nil
}

var (
	errNoMatch  = errors.New("the pattern matches no file")
	errTooDeep  = fmt.Errorf("there are more than %d folders above it", maxDeep)
	errNotTried = errors.New("not tried, since another file could not be brought to this container")
)

// files uploads files of one output. What is wrong with one of them leaves the
// others; what is wrong with their container, or on the way to it, does not.
func (u *uploading) files(
	ctx context.Context, root *os.Root, files []string, pattern string, output batch.OutputFile, client *container.Client,
) error {
	to := output.Destination.Container
	group, limited := errgroup.WithContext(ctx)
	group.SetLimit(transfers)
	for _, name := range files {
		group.Go(func() error {
			select {
			case <-limited.Done():
				u.log.missed(name, errNotTried)
				return nil
			default:
			}
			blob := blobName(name, pattern, to.Path)
			var transfer bool
			err := u.agent.guard("upload of an output file", func() (err error) {
				transfer, err = u.file(limited, root, name, client.NewBlockBlobClient(blob), to.UploadHeaders)
				return err
			})
			if err == nil {
				u.log.uploaded(name, strings.TrimSuffix(plainURL(to.ContainerURL), "/")+"/"+blob)
				return nil
			}
			if limited.Err() != nil && ctx.Err() == nil && errors.Is(err, context.Canceled) {
				u.log.missed(name, errNotTried) // or given up on the way
				return nil
			}
			err = u.miss(output, name, err)
			u.failed(err)
			if !transfer {
				return nil
			}
			return err
		})
	}
	err := group.Wait()
	if err != nil && ctx.Err() == nil {
		u.mu.Lock()
		u.silent[to.ContainerURL] = true
		u.mu.Unlock()
	}
	return err
}

// file uploads one file. An error with transfer is of the storage, or of the
// way to it; without, of the file.
func (u *uploading) file(
	ctx context.Context, root *os.Root, name string, to *blockblob.Client, headers []batch.UploadHeader,
) (transfer bool, err error) {
	fetcher := u.agent.fetcher
	if err := fetcher.take(ctx); err != nil {
		return true, err
	}
	defer fetcher.give()
	var file *os.File
	err = as(u.user, func() (err error) {
		file, err = openRegular(root, name, u.owner)
		return err
	})
	if err != nil {
		return false, err
	}
	defer file.Close()
	options := blockblob.UploadFileOptions{Concurrency: 2, HTTPHeaders: &blob.HTTPHeaders{}, Metadata: map[string]*string{}}
	setHeaders(&options, name, headers)
	_, err = to.UploadFile(ctx, file, &options)
	return true, err
}

// miss leaves word of what was not uploaded and puts it into the protocol's
// words. Without a name it is all of the pattern.
func (u *uploading) miss(output batch.OutputFile, name string, err error) error {
	u.log.missed(cmp.Or(name, output.FilePattern), err)
	return uploadFailure(err, output, name)
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
