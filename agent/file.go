package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"mime"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/batchyard/batchyard/batch"
)

// fileDesk answers file requests, each once if that goes well.
type fileDesk struct {
	agent *Agent

	mu        sync.Mutex
	answering map[string]bool
}

// take starts answers to the requests that are new. Those no longer named are
// answered or given up by whoever asked.
func (d *fileDesk) take(requests []batch.FileRequest) {
	d.mu.Lock()
	defer d.mu.Unlock()
	named := make(map[string]bool, len(requests))
	for _, r := range requests {
		named[r.ID] = true
		if !d.answering[r.ID] {
			d.answering[r.ID] = true
			d.agent.work.Go(func() { d.answer(d.agent.working, r) })
		}
	}
	for id := range d.answering {
		if !named[id] {
			delete(d.answering, id)
		}
	}
}

// answer sends an answer. One that did not arrive is sent again if the request
// is named again.
func (d *fileDesk) answer(ctx context.Context, r batch.FileRequest) {
	answer, body, err := d.agent.tree.serve(r)
	if err != nil {
		answer = batch.FileAnswer{Error: fileError(err)}
	}
	var content io.Reader
	if body != nil {
		defer body.Close()
		content = body
	}
	err = d.agent.Server.AnswerFile(ctx, r.ID, answer, content)
	if err == nil || ctx.Err() != nil {
		return
	}
	d.agent.Log.Debug("file request not answered", "request", r.ID, "err", err)
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.answering, r.ID)
}

func fileError(err error) *batch.FileError {
	if known, ok := errors.AsType[*batch.Error](err); ok {
		return &batch.FileError{Code: known.Code, Message: known.Message}
	}
	if errors.Is(err, fs.ErrNotExist) {
		return &batch.FileError{Code: batch.CodeFileNotFound, Message: "The specified file does not exist."}
	}
	// What is left is a path that leads out through a link, a name that is too
	// long, or a file in the way of a folder: none names a file.
	return &batch.FileError{Code: batch.CodeFileNotFound, Message: "The specified file cannot be read."}
}

// serve does what a request asks. The body, if any, is the caller's to close.
func (t *tree) serve(r batch.FileRequest) (batch.FileAnswer, io.ReadCloser, error) {
	place := "."
	if r.Job != "" {
		place = taskPlace(r.Job, r.Task)
	}
	name := path.Join(place, path.Clean("/" + r.Path)[1:])
	switch r.Op {
	case batch.FileList:
		answer, err := t.list(place, r)
		return answer, nil, err
	case batch.FileStat:
		info, err := t.root.Stat(name)
		if err != nil {
			return batch.FileAnswer{}, nil, err
		}
		file := describe(r.Path, info)
		return batch.FileAnswer{File: &file}, nil, nil
	case batch.FileRead:
		return t.read(name, r)
	case batch.FileDelete:
		return batch.FileAnswer{}, nil, t.delete(name, r)
	}
	return batch.FileAnswer{}, nil, batch.Errorf(batch.CodeNotImplemented, "The file operation %q is not known to this node.", r.Op)
}

func (t *tree) read(name string, r batch.FileRequest) (batch.FileAnswer, io.ReadCloser, error) {
	file, err := openRegular(t.root, name)
	if errors.Is(err, errNotRegular) {
		err = batch.Errorf(batch.CodeFileNotFound, "The specified name is not a regular file.")
	}
	if err != nil {
		return batch.FileAnswer{}, nil, err
	}
	info, err := file.Stat()
	if err != nil {
		file.Close()
		return batch.FileAnswer{}, nil, err
	}
	described := describe(r.Path, info)
	length := described.Size - r.Offset
	if r.Length >= 0 {
		length = min(length, r.Length)
	}
	if r.Offset < 0 || length < 0 || (length == 0 && r.Offset > 0) {
		file.Close()
		return batch.FileAnswer{}, nil, batch.Errorf(batch.CodeInvalidRange, "The range starts behind the end of the file, which has %d bytes.", described.Size)
	}
	return batch.FileAnswer{File: &described}, section{io.NewSectionReader(file, r.Offset, length), file}, nil
}

// section is a part of an open file.
type section struct {
	io.Reader
	io.Closer
}

// errNotRegular is the error of opening what is neither file nor directory.
var errNotRegular = errors.New("not a regular file")

// openRegular opens a file for reading, and nothing that a task put in its
// place: no pipe that would block, no device.
func openRegular(root *os.Root, name string) (*os.File, error) {
	file, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	switch {
	case err != nil:
	case info.IsDir():
		err = batch.Errorf(batch.CodeUnsupportedOnDirectory, "The operation is not supported on a directory.")
	case !info.Mode().IsRegular():
		err = errNotRegular
	default:
		return file, nil
	}
	file.Close()
	return nil, err
}

func (t *tree) delete(name string, r batch.FileRequest) (err error) {
	if path.Clean("/"+r.Path) == "/" {
		return batch.Errorf(batch.CodeUnsupportedOnDirectory, "The directory of a task or a node cannot be deleted as a file.")
	}
	info, err := t.root.Lstat(name)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return t.root.Remove(name)
	}
	if !strings.Contains(name, "/") {
		defer func() { err = errors.Join(err, t.prepare()) }() // tasks count on what every node has
	}
	if r.Recursive {
		return t.root.RemoveAll(name)
	}
	if err := t.root.Remove(name); err != nil {
		return batch.Errorf(batch.CodeUnsupportedOnDirectory, "The directory is not empty; deleting it needs recursive=true.")
	}
	return nil
}

// maxListed bounds a page of a listing.
const maxListed = 1000

// list pages through a directory. Names are relative to place and sorted by
// their parts, folders before what is in them.
func (t *tree) list(place string, r batch.FileRequest) (batch.FileAnswer, error) {
	answer := batch.FileAnswer{Files: []batch.File{}}
	most := maxListed
	if r.Max > 0 {
		most = min(r.Max, maxListed)
	}
	start := path.Join(place, path.Clean("/" + r.Path)[1:])
	if info, err := t.root.Stat(start); err != nil || !info.IsDir() {
		if errors.Is(err, fs.ErrNotExist) && r.Path == "" && r.Job != "" {
			return answer, batch.Errorf(batch.CodeTaskFilesCleanedup, "The files of the task are no longer on the node.")
		}
		return answer, batch.Errorf(batch.CodeFilePathNotFound, "The specified directory does not exist.")
	}
	err := fs.WalkDir(t.root.FS(), start, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return skipGone(entry)
		}
		if name == start {
			return nil
		}
		shown := strings.TrimPrefix(name, place+"/")
		if comesAfter(shown, r.After) && strings.HasPrefix(shown, r.Prefix) {
			if len(answer.Files) == most {
				answer.More = true
				return fs.SkipAll
			}
			if info, err := entry.Info(); err == nil {
				answer.Files = append(answer.Files, describe(shown, info))
			}
		}
		if entry.IsDir() && (!r.Recursive || outside(shown, r)) {
			return fs.SkipDir
		}
		return nil
	})
	if err != nil {
		return answer, fmt.Errorf("list directory: %w", err)
	}
	return answer, nil
}

// outside tells that nothing in a folder can be on the page.
func outside(folder string, r batch.FileRequest) bool {
	inside := folder + "/"
	if !strings.HasPrefix(inside, r.Prefix) && !strings.HasPrefix(r.Prefix, inside) {
		return true
	}
	return r.After != "" && !strings.HasPrefix(r.After, inside) && !comesAfter(inside, r.After)
}

// comesAfter compares paths part by part, as the walk goes.
func comesAfter(name, after string) bool {
	if after == "" {
		return true
	}
	return slices.Compare(strings.Split(name, "/"), strings.Split(after, "/")) > 0
}

// skipGone passes over what a task removed or closed while we looked.
func skipGone(entry fs.DirEntry) error {
	if entry != nil && entry.IsDir() {
		return fs.SkipDir
	}
	return nil
}

// describe is a file in the protocol's terms.
func describe(name string, info fs.FileInfo) batch.File {
	f := batch.File{
		Name: name, IsDirectory: info.IsDir(), Size: info.Size(), Modified: batch.At(info.ModTime()), Created: batch.At(info.ModTime()),
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		f.Mode = stat.Mode
	}
	if !f.IsDirectory {
		f.ContentType = mime.TypeByExtension(path.Ext(name))
		if f.ContentType == "" {
			f.ContentType = "application/octet-stream"
		}
	}
	return f
}
