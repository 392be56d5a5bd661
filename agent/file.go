package agent

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"mime"
	"os"
	"path"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/disk"
)

// Bounds of the file requests that are worked on at a time: all others wait.
// Lists look at many files; a read takes as long as its caller likes.
const (
	maxLists = 2
	maxReads = 16
)

// fileDesk answers file requests, each once if that goes well.
type fileDesk struct {
	agent *Agent
	lists chan struct{} // has one for each list under way
	reads chan struct{} // and for each other request

	mu        sync.Mutex
	answering map[string]*answering // guarded by mu
}

// answering is a request that is worked on.
type answering struct {
	named  time.Time // when the call was sent whose answer named it last
	cancel context.CancelFunc
	// found is set when the answer is being sent. From then on the server, which
	// has it, no longer names the request.
	found bool
}

func newFileDesk(a *Agent) *fileDesk {
	return &fileDesk{
		agent: a, lists: make(chan struct{}, maxLists), reads: make(chan struct{}, maxReads), answering: map[string]*answering{},
	}
}

// take starts answers to the requests that are new, of a call that was sent at
// some time. Those no longer named are answered, or given up by whoever asked;
// then nobody looks any further for an answer.
func (d *fileDesk) take(requests []batch.FileRequest, sent time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	named := make(map[string]bool, len(requests))
	for _, r := range requests {
		named[r.ID] = true
		if known := d.answering[r.ID]; known != nil {
			known.named = sent
			continue
		}
		ctx, cancel := context.WithCancel(d.agent.working)
		d.answering[r.ID] = &answering{named: sent, cancel: cancel}
		d.agent.work.Go(func() { d.answer(ctx, r) })
	}
	for id, a := range d.answering {
		if named[id] || sent.Before(a.named) {
			continue
		}
		if !a.found {
			a.cancel()
		}
		delete(d.answering, id)
	}
}

// answer sends an answer. One that did not arrive is sent again if the request
// is named again.
func (d *fileDesk) answer(ctx context.Context, r batch.FileRequest) {
	places := d.reads
	if r.Op == batch.FileList {
		places = d.lists
	}
	select {
	case places <- struct{}{}:
		defer func() { <-places }()
	case <-ctx.Done():
		return
	}
	answer, body := d.find(ctx, r)
	if body != nil {
		defer body.Close()
	}
	if ctx.Err() != nil || !d.sends(r.ID) {
		return
	}
	var content io.Reader
	if body != nil {
		content = body
	}
	err := d.agent.guard("answer to a file request", func() error { return d.agent.Server.AnswerFile(ctx, r.ID, answer, content) })
	if err == nil || ctx.Err() != nil {
		return
	}
	d.agent.Log.Debug("file request not answered", "request", r.ID, "err", err)
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.answering, r.ID)
}

// find does what a request asks for.
func (d *fileDesk) find(ctx context.Context, r batch.FileRequest) (answer batch.FileAnswer, body io.ReadCloser) {
	err := d.agent.guard("file request", func() (err error) {
		answer, body, err = d.agent.tree.serve(ctx, r)
		return err
	})
	if err != nil {
		answer = batch.FileAnswer{Error: fileError(err), File: answer.File}
	}
	if err == nil && r.Op == batch.FileDelete {
		d.agent.disk.removed()
	}
	return answer, body
}

// sends notes that an answer is about to be sent, false if nobody asks for it
// any more.
func (d *fileDesk) sends(id string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	a := d.answering[id]
	if a != nil {
		a.found = true
	}
	return a != nil
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
	// owner is the user of the task, or nobody; its files may have further names.
	owner uint32
}

// serve does what a request asks. The body, if any, is the caller's to close.
func (t *tree) serve(ctx context.Context, r batch.FileRequest) (batch.FileAnswer, io.ReadCloser, error) {
	name := path.Join(".", path.Clean("/" + r.Path)[1:])
	s := shelf{t.root, t.commandOwner(name)}
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
		s = shelf{root, t.fileOwner(place)}
	}
	switch r.Op {
	case batch.FileList:
		answer, err := s.list(ctx, name, r)
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

// describe is a file in the protocol's terms.
func describe(name string, info fs.FileInfo) batch.File {
	f := batch.File{
		Name: name, IsDirectory: info.IsDir(), Size: info.Size(), Modified: batch.At(info.ModTime()), Created: batch.At(info.ModTime()),
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		f.Mode = uint32(stat.Mode) //nolint:unconvert // 16 bits wide elsewhere
	}
	if !f.IsDirectory {
		f.ContentType = mime.TypeByExtension(path.Ext(name))
		if f.ContentType == "" {
			f.ContentType = "application/octet-stream"
		}
	}
	return f
}
