package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/batchyard/batchyard/auth"
	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/client"
)

// tally counts what clients did and what came of it.
type tally struct {
	mu     sync.Mutex
	counts map[string]int // guarded by mu
}

func newTally() *tally { return &tally{counts: map[string]int{}} }

func (t *tally) add(what string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.counts[what]++
}

func (t *tally) get(what string) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.counts[what]
}

// pause waits unless ctx ends.
func pause(ctx context.Context, length time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(length):
	}
}

// stayIdle keeps a connection, asks once, and again when the server may be about to close it.
func (s *server) stayIdle(ctx context.Context, t *tally, number int) {
	pause(ctx, time.Duration(number)*5*time.Millisecond) // not all at a time
	c := s.newClient()
	defer c.HTTP.CloseIdleConnections()
	for ctx.Err() == nil {
		_, err := c.Job(ctx, pageJob)
		t.result(ctx, "idle", err)
		pause(ctx, 100*time.Second)
	}
}

// result counts an answer: what was refused is not wrong, all else is.
func (t *tally) result(ctx context.Context, what string, err error) (refused bool) {
	switch {
	case err == nil:
		t.add(what)
	case ctx.Err() != nil:
	case batch.CodeOf(err) == batch.CodeServerBusy:
		t.add("refused")
		return true
	default:
		t.add("wrong: " + what + ": " + clip(err.Error()))
	}
	return false
}

func clip(s string) string { return strings.ReplaceAll(s[:min(len(s), 200)], "\n", " ") }

// readSlowly reads a page of a thousand tasks, or a blob, at a kilobyte a second through a small
// window, and begins again when the server has had enough of it.
func (s *server) readSlowly(ctx context.Context, t *tally, number int) {
	for round := 0; ctx.Err() == nil; round++ {
		pause(ctx, time.Duration(rand.N(5000))*time.Millisecond)
		err := s.readOnce(ctx, number%2 == 0)
		switch {
		case ctx.Err() != nil:
		case errors.Is(err, io.EOF):
			t.add("slow, to the end")
		case err != nil:
			t.add("slow, cut off")
		}
	}
}

func (s *server) readOnce(ctx context.Context, page bool) error {
	address, path, sign := s.storage, "/"+storage+"/"+container+"/"+bigBlob, auth.SignBlob
	name := storage
	if page {
		address, path, sign, name = s.address, "/jobs/"+string(pageJob)+"/tasks?api-version="+client.Version, auth.SignBatch, account
	}
	dialer := net.Dialer{Timeout: 10 * time.Second, Control: func(_, _ string, conn syscall.RawConn) error {
		return conn.Control(func(fd uintptr) { _ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4096) })
	}}
	plain, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer plain.Close()
	defer context.AfterFunc(ctx, func() { plain.Close() })()
	config := s.trust.Clone()
	config.ServerName = "127.0.0.1"
	conn := tls.Client(plain, config)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+address+path, nil)
	if err != nil {
		return err
	}
	if !page {
		r.Header.Set("X-Ms-Version", "2021-12-02")
		r.Header.Set("X-Ms-Date", time.Now().UTC().Format(http.TimeFormat))
	}
	if err := sign(r, name, s.key, time.Now()); err != nil {
		return err
	}
	if err := r.Write(conn); err != nil {
		return err
	}
	buffer := make([]byte, 1024)
	for {
		if _, err := io.ReadFull(conn, buffer); err != nil {
			return err
		}
		pause(ctx, time.Second)
	}
}

// worker is a client at full speed. What it adds it deletes.
type worker struct {
	*client.Client
	server *server
	tally  *tally
	number int
	job    batch.JobID
	jobs   int
	tasks  []batch.TaskID // that are there
	added  int
	blobs  *http.Client
}

func newWorker(s *server, t *tally, number int) *worker {
	return &worker{Client: s.newClient(), server: s, tally: t, number: number, blobs: &http.Client{Transport: s.transport()}}
}

// Tasks and jobs that a worker keeps.
const (
	keptTasks   = 20
	tasksPerJob = 2000 // then it goes on in another job
)

func (w *worker) run(ctx context.Context) {
	defer w.HTTP.CloseIdleConnections()
	defer w.blobs.CloseIdleConnections()
	for ctx.Err() == nil {
		what, err := w.step(ctx)
		if w.tally.result(ctx, what, err) {
			pause(ctx, time.Second) // as it was told
		}
	}
}

// step does one thing.
func (w *worker) step(ctx context.Context) (what string, err error) {
	if w.job == "" || w.added >= tasksPerJob {
		return "job", w.nextJob(ctx)
	}
	switch dice := rand.N(100); {
	case dice < 25:
		return "add task", w.addTask(ctx)
	case dice < 50 && len(w.tasks) > 0:
		_, err := w.Task(ctx, w.job, w.tasks[rand.N(len(w.tasks))])
		return "get task", err
	case dice < 75 && len(w.tasks) > 0:
		return "delete task", w.deleteTask(ctx)
	case dice < 80:
		_, err := w.TaskCounts(ctx, w.job)
		return "counts", err
	case dice < 83:
		_, err := w.Tasks(ctx, pageJob, "startswith(id,'t00')")
		return "list of 100", err
	case dice < 84:
		_, err := w.Tasks(ctx, pageJob, "")
		return "list of 1000", err
	case dice < 85:
		return "add 100 tasks", w.addMany(ctx)
	case dice < 90:
		return "put blob", w.blob(ctx, http.MethodPut, w.blobName(), make([]byte, 1<<rand.N(18)))
	case dice < 98:
		return "get blob", w.blob(ctx, http.MethodGet, w.blobName(), nil)
	default:
		return "delete blob", w.blob(ctx, http.MethodDelete, w.blobName(), nil)
	}
}

func (w *worker) blobName() string { return fmt.Sprintf("/w%d-%d", w.number, rand.N(4)) }

func (w *worker) nextJob(ctx context.Context) error {
	if w.job != "" {
		if err := w.DeleteJob(ctx, w.job); err != nil && batch.CodeOf(err) != batch.CodeJobNotFound {
			return err
		}
		w.job = ""
	}
	w.jobs++
	next := batch.JobID(fmt.Sprintf("w%d-%d", w.number, w.jobs))
	if err := w.AddJob(ctx, next, idlePool); err != nil {
		return err
	}
	w.job, w.tasks, w.added = next, nil, 0
	return nil
}

func (w *worker) addTask(ctx context.Context) error {
	if len(w.tasks) >= keptTasks {
		return w.deleteTask(ctx)
	}
	w.added++
	id := batch.TaskID(fmt.Sprintf("t%d", w.added))
	err := w.AddTask(ctx, w.job, map[string]any{"id": id, "commandLine": "/bin/true"})
	if err == nil {
		w.tasks = append(w.tasks, id)
	}
	return err
}

func (w *worker) deleteTask(ctx context.Context) error {
	id := w.tasks[0]
	_, err := w.Call(ctx, http.MethodDelete, "/jobs/"+string(w.job)+"/tasks/"+string(id), nil, nil, nil)
	if err == nil || batch.CodeOf(err) == batch.CodeTaskNotFound {
		w.tasks = w.tasks[1:]
		return nil
	}
	return err
}

// addMany adds a hundred tasks to the job, which go with it.
func (w *worker) addMany(ctx context.Context) error {
	tasks := make([]map[string]any, 100)
	for i := range tasks {
		w.added++
		tasks[i] = map[string]any{"id": fmt.Sprintf("m%d", w.added), "commandLine": "/bin/true"}
	}
	_, err := w.AddTasks(ctx, w.job, tasks)
	return err
}

// blob makes a call of the storage; what is not there is no error.
func (w *worker) blob(ctx context.Context, method, path string, body []byte) error {
	r, err := http.NewRequestWithContext(ctx, method, "https://"+w.server.storage+"/"+storage+"/"+container+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("X-Ms-Version", "2021-12-02")
	r.Header.Set("X-Ms-Date", time.Now().UTC().Format(http.TimeFormat))
	if body != nil {
		r.Header.Set("X-Ms-Blob-Type", "BlockBlob")
	}
	if err := auth.SignBlob(r, storage, w.server.key, time.Now()); err != nil {
		return err
	}
	response, err := w.blobs.Do(r)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	_, err = io.Copy(io.Discard, response.Body)
	switch {
	case response.StatusCode == http.StatusServiceUnavailable:
		return &batch.Error{Code: batch.CodeServerBusy, Message: response.Status}
	case response.StatusCode >= 300 && response.StatusCode != http.StatusNotFound:
		return fmt.Errorf("storage answers %s", response.Status)
	}
	return err
}
