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
	"time"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/disk"
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
	var answer batch.FileAnswer
	var body io.ReadCloser
	err := d.agent.guard("answer to a file request", func() (err error) {
		answer, body, err = d.agent.tree.serve(r)
		return err
	})
	if err != nil {
		answer = batch.FileAnswer{Error: fileError(err), File: answer.File}
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
	if _, broken := errors.AsType[*batch.Panic](err); broken {
		return &batch.FileError{Code: batch.CodeInternalError, Message: "The compute node encountered an internal error."}
	}
	if errors.Is(err, fs.ErrNotExist) {
		return &batch.FileError{Code: batch.CodeFileNotFound, Message: "The specified file does not exist."}
	}
	// What is left is a path that leads out through a link, a name that is too
	// long, or a file in the way of a folder: none names a file.
	return &batch.FileError{Code: batch.CodeFileNotFound, Message: "The specified file cannot be read."}
}

// shelf is the directory that a file request is about, of a task or of the
// node. Nothing outside of it is reached by way of it.
type shelf struct {
	root *os.Root
	// owner is the user of the task; its files may have further names.
	owner uint32
}

// serve does what a request asks. The body, if any, is the caller's to close.
func (t *tree) serve(r batch.FileRequest) (batch.FileAnswer, io.ReadCloser, error) {
	s := shelf{root: t.root}
	if r.Job != "" {
		place := taskPlace(r.Job, r.Task)
		root, err := t.root.OpenRoot(place)
		if errors.Is(err, fs.ErrNotExist) && r.Op == batch.FileList {
			err = batch.Errorf(batch.CodeTaskFilesCleanedup, "The files of the task are no longer on the node.")
		}
		if err != nil {
			return batch.FileAnswer{}, nil, err
		}
		defer root.Close()
		s = shelf{root, t.owner(place + "/wd")}
	}
	name := path.Join(".", path.Clean("/" + r.Path)[1:])
	switch r.Op {
	case batch.FileList:
		answer, err := s.list(name, r)
		return answer, nil, err
	case batch.FileStat:
		info, err := s.root.Stat(name)
		if err != nil {
			return batch.FileAnswer{}, nil, err
		}
		file := describe(r.Path, info)
		return batch.FileAnswer{File: &file}, nil, nil
	case batch.FileRead:
		return s.read(name, r)
	case batch.FileDelete:
		return batch.FileAnswer{}, nil, t.delete(s, name, r)
	}
	return batch.FileAnswer{}, nil, batch.Errorf(batch.CodeNotImplemented, "The file operation %q is not known to this node.", r.Op)
}

func (s shelf) read(name string, r batch.FileRequest) (batch.FileAnswer, io.ReadCloser, error) {
	file, err := openRegular(s.root, name, s.owner)
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
		return batch.FileAnswer{File: &described}, nil, batch.Errorf(batch.CodeInvalidRange, "The range starts behind the end of the file, which has %d bytes.", described.Size)
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
// place: no pipe that would block, no device, and no further name of a file of
// somebody else, which some kernels let everybody make. Owner is the user of
// the task.
func openRegular(root *os.Root, name string, owner uint32) (*os.File, error) {
	file, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	switch {
	case err != nil:
	case info.IsDir():
		err = batch.Errorf(batch.CodeUnsupportedOnDirectory, "The operation is not supported on a directory.")
	case !info.Mode().IsRegular(), isForeign(info, owner):
		err = errNotRegular
	default:
		return file, nil
	}
	file.Close()
	return nil, err
}

// isForeign tells that a file has several names and is not the owner's.
func isForeign(info fs.FileInfo, owner uint32) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && stat.Nlink > 1 && stat.Uid != owner
}

func (t *tree) delete(s shelf, name string, r batch.FileRequest) (err error) {
	if name == "." {
		return batch.Errorf(batch.CodeUnsupportedOnDirectory, "The directory of a task or a node cannot be deleted as a file.")
	}
	info, err := s.root.Lstat(name)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return s.root.Remove(name)
	}
	if r.Job == "" && !strings.Contains(name, "/") {
		defer func() { err = errors.Join(err, t.prepare()) }() // tasks count on what every node has
	}
	if r.Recursive {
		return disk.Raze(s.root, name)
	}
	if err := s.root.Remove(name); err != nil {
		return batch.Errorf(batch.CodeUnsupportedOnDirectory, "The directory is not empty; deleting it needs recursive=true.")
	}
	return nil
}

const (
	// maxListed bounds a page of a listing.
	maxListed = 1000
	// maxDeep bounds the folders in each other that a listing goes into. Each
	// costs the more the deeper it is, and a task can make them by the million.
	maxDeep = 200
	// listTime bounds the search for the entries of a page.
	listTime = 20 * time.Second
)

// list pages through a directory. Names are relative to the shelf and sorted by
// their parts, folders before what is in them.
func (s shelf) list(start string, r batch.FileRequest) (batch.FileAnswer, error) {
	answer := batch.FileAnswer{Files: []batch.File{}}
	most := maxListed
	if r.Max > 0 {
		most = min(r.Max, maxListed)
	}
	if info, err := s.root.Stat(start); err != nil || !info.IsDir() {
		return answer, batch.Errorf(batch.CodeFilePathNotFound, "The specified directory does not exist.")
	}
	if below, ok := folderOf(r); ok {
		if info, err := s.root.Stat(below); err != nil || !info.IsDir() {
			return answer, nil // nothing has a name that begins so
		}
		start = below
	}
	begun := time.Now()
	err := fs.WalkDir(s.root.FS(), start, func(shown string, entry fs.DirEntry, err error) error {
		if err != nil {
			return skipGone(entry)
		}
		if shown == start {
			return nil
		}
		if time.Since(begun) > listTime {
			answer.More = true
			return fs.SkipAll
		}
		if comesAfter(shown, r.After) && strings.HasPrefix(shown, r.Prefix) {
			if len(answer.Files) == most {
				answer.More = true
				return fs.SkipAll
			}
			if info, err := entry.Info(); err == nil {
				answer.Files = append(answer.Files, describe(shown, info))
			}
		}
		if entry.IsDir() && (!r.Recursive || outside(shown, r) || strings.Count(shown, "/") >= maxDeep) {
			return fs.SkipDir
		}
		return nil
	})
	if err != nil {
		return answer, fmt.Errorf("list directory: %w", err)
	}
	if answer.More && len(answer.Files) == 0 {
		return answer, batch.Errorf(batch.CodeOperationTimedOut, "The directory has too many entries to find those that were asked for in time.")
	}
	return answer, nil
}

// folderOf is the folder whose direct children a list is of that does not go
// into folders and whose names begin with the path of one: so tools open
// folders, startswith(name,'wd/out/').
func folderOf(r batch.FileRequest) (string, bool) {
	end := strings.LastIndexByte(r.Prefix, '/')
	if r.Recursive || r.Path != "" || end < 0 || !fs.ValidPath(r.Prefix[:end]) {
		return "", false
	}
	return r.Prefix[:end], true
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
