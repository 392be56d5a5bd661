package conversation

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/batchyard/batchyard/auth"
	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/control"
	"github.com/batchyard/batchyard/store"
)

const (
	// fileTimeout is how long a caller waits for the node to answer.
	fileTimeout = 30 * time.Second
	// fileResend is when a node is told again of a request that it has not
	// begun to answer: the orders that named it may be lost.
	fileResend = 2 * time.Second
	// maxFileRequests bounds the callers that wait for one node.
	maxFileRequests = 64
)

// FileStream is a node's answer to a file request.
type FileStream struct {
	Answer batch.FileAnswer
	// Body has the bytes of a read, and is nil otherwise. The node sends them
	// while they are read; close it, whether or not it was read to the end.
	Body io.ReadCloser
}

// files are the callers that wait for files, in the memory of the server that
// they called. Requests are in no database: they die with their callers.
type files struct {
	mu      sync.Mutex
	waiting map[batch.NodeID][]*fileWait // guarded by mu
}

// fileWait is one caller.
type fileWait struct {
	request batch.FileRequest
	told    time.Time        // when the node was told; guarded by files.mu
	answer  chan *FileStream // receives one, without anybody having to wait
}

// OpenFile asks a node about a file and waits for its answer. The caller fills
// the request but for its ID, Job and Task.
//
// TaskFilesUnavailable: the task has not run, or its node is gone.
// TaskFilesCleanedup: the retention of its files is over. NodeNotReady: the
// node is not in contact. OperationTimedOut: it did not answer.
func (r *Room) OpenFile(ctx context.Context, target control.FileTarget, request batch.FileRequest) (*FileStream, error) {
	node, err := r.control.FileHome(ctx, target, &request)
	if err != nil {
		return nil, err
	}
	request.ID = rand.Text()
	w, err := r.files.ask(node, request)
	if err != nil {
		return nil, err
	}
	r.memory.wake(node)
	timer := time.NewTimer(fileTimeout)
	defer timer.Stop()
	select {
	case stream := <-w.answer:
		return stream, nil
	case <-timer.C:
		err = batch.Errorf(batch.CodeOperationTimedOut, "The compute node did not answer in time.")
	case <-ctx.Done():
		err = ctx.Err()
	}
	if r.files.take(node, request.ID) != nil {
		r.memory.wake(node) // which need not look any further
	} else if stream := <-w.answer; stream.Body != nil { // its sender was faster
		stream.Body.Close()
	}
	return nil, err
}

// AnswerFile takes a node's answer to a request and hands it to the caller who
// waits. For a read it returns when the caller has taken all of body, or does
// not want more. ResourceNotFound if nobody waits.
func (r *Room) AnswerFile(ctx context.Context, node batch.NodeID, token, id string, answer batch.FileAnswer, body io.Reader) error {
	if err := r.CheckToken(ctx, node, token); err != nil {
		return err
	}
	node = batch.NodeID(batch.Key(node))
	w := r.files.take(node, id)
	if w == nil {
		return batch.Errorf(batch.CodeResourceNotFound, "Nobody waits for this answer.")
	}
	if w.request.Op != batch.FileRead || answer.Error != nil {
		w.answer <- &FileStream{Answer: answer}
		return nil
	}
	read, write := io.Pipe()
	defer context.AfterFunc(ctx, func() { write.CloseWithError(ctx.Err()) })()
	w.answer <- &FileStream{Answer: answer, Body: read}
	_, err := io.Copy(write, body)
	write.CloseWithError(err)
	if errors.Is(err, io.ErrClosedPipe) {
		return nil // the caller has read enough
	}
	return err
}

// CheckToken tells whether a call is the node's own, for those who want to know
// before they read what it brings. NodeNotFound, AuthenticationFailed: it is
// not.
func (r *Room) CheckToken(ctx context.Context, node batch.NodeID, token string) error {
	node = batch.NodeID(batch.Key(node))
	return r.db.View(ctx, func(tx *store.Tx) error {
		n, err := tx.Node(node)
		if errors.Is(err, store.ErrNotFound) {
			return batch.NotFound("compute node", node)
		}
		if err == nil && !auth.CheckToken(token, string(n.TokenHash)) {
			return badToken()
		}
		return err
	})
}

// ask adds a caller.
func (f *files) ask(node batch.NodeID, request batch.FileRequest) (*fileWait, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.waiting[node]) >= maxFileRequests {
		return nil, batch.Errorf(batch.CodeServerBusy, "Too many requests for files of this compute node are waiting.")
	}
	if f.waiting == nil {
		f.waiting = make(map[batch.NodeID][]*fileWait)
	}
	w := &fileWait{request: request, answer: make(chan *FileStream, 1)}
	f.waiting[node] = append(f.waiting[node], w)
	return w, nil
}

// take removes a caller, to answer it or because it gives up: whoever gets it
// has the right to do so alone. Nil if it is taken already.
func (f *files) take(node batch.NodeID, id string) *fileWait {
	f.mu.Lock()
	defer f.mu.Unlock()
	at := slices.IndexFunc(f.waiting[node], func(w *fileWait) bool { return w.request.ID == id })
	if at < 0 {
		return nil
	}
	w := f.waiting[node][at]
	f.waiting[node] = slices.Delete(f.waiting[node], at, at+1)
	if len(f.waiting[node]) == 0 {
		delete(f.waiting, node)
	}
	return w
}

// fresh tells whether the node should be told of a request now.
func (f *files) fresh(node batch.NodeID, now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.ContainsFunc(f.waiting[node], func(w *fileWait) bool { return now.Sub(w.told) >= fileResend })
}

// patience is how long a call of the node may be held.
func (f *files) patience(node batch.NodeID, longest time.Duration) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.waiting[node]) > 0 {
		return fileResend
	}
	return longest
}

// tell returns the requests for a node's orders.
func (f *files) tell(node batch.NodeID, now time.Time) []batch.FileRequest {
	f.mu.Lock()
	defer f.mu.Unlock()
	var requests []batch.FileRequest
	for _, w := range f.waiting[node] {
		w.told = now
		requests = append(requests, w.request)
	}
	slices.SortFunc(requests, func(a, b batch.FileRequest) int { return strings.Compare(a.ID, b.ID) })
	return requests
}
