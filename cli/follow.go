package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/client"
)

// Bounds of how often the service is asked for news of a task.
const (
	soonest = 50 * time.Millisecond
	latest  = time.Second
)

// taskLog is a file of a task that is copied as it grows.
type taskLog struct {
	session *session
	path    string
	to      io.Writer
	// at is how much of the file of the present run was copied.
	at int64
}

// log is a file of a task, to be copied to a writer from its beginning.
func (s *session) log(job batch.JobID, task batch.TaskID, name string, to io.Writer) *taskLog {
	return &taskLog{session: s, path: taskPath(job, task) + "/files/" + url.PathEscape(name), to: to}
}

// whole copies the file as it is now.
func (l *taskLog) whole(ctx context.Context) error {
	body, err := l.session.Stream(ctx, l.path, 0)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	_, err = io.Copy(l.to, body)
	return err
}

// more copies what the file has grown by, and tells whether that was anything.
// A file that is not there is not an error: the task may be on its way to a node.
func (l *taskLog) more(ctx context.Context) (bool, error) {
	body, err := l.session.Stream(ctx, l.path, l.at)
	if refused, ok := errors.AsType[*client.Refusal](err); ok {
		switch refused.Err.Code {
		case batch.CodeFileNotFound, batch.CodeInvalidRange, batch.CodeTaskFilesUnavailable, batch.CodeTaskFilesCleanedup:
			return false, nil
		}
	}
	if err != nil {
		return false, err
	}
	defer func() { _ = body.Close() }()
	n, err := io.Copy(l.to, cutShort{body})
	l.at += n
	return n > 0, err
}

// cutShort is an answer of which the end may not arrive.
type cutShort struct{ io.Reader }

// cutError tells that it did not, from what is wrong with where it is copied to.
type cutError struct{ error }

func (c cutShort) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = cutError{err}
	}
	return n, err
}

// patience is how long a task is followed although the service does not answer,
// or the task's node: who is started again is there again within it, and the
// task runs on meanwhile.
const patience = 2 * time.Minute

// passes tells whether an error may be over in a while.
func passes(err error) bool {
	if refused, ok := errors.AsType[*client.Refusal](err); ok {
		return refused.Status >= http.StatusInternalServerError || refused.Status == http.StatusTooManyRequests ||
			refused.Err.Code == batch.CodeNodeNotReady
	}
	_, unreachable := errors.AsType[*url.Error](err)
	_, cut := errors.AsType[cutError](err)
	return unreachable || cut || errors.Is(err, io.ErrUnexpectedEOF)
}

// follow copies logs of a task until it has ended, and returns it as it is then.
// A run that begins anew, on the same node or another, is copied from its start.
func (s *session) follow(ctx context.Context, job batch.JobID, task batch.TaskID, logs ...*taskLog) (client.Task, error) {
	var before client.Task
	waiting, answered := s.waitNote(job, task), time.Now()
	for pause := soonest; ; {
		now, news, err := s.look(ctx, job, task, before, logs)
		tired := time.Since(answered) > patience
		switch completed := now.State == batch.TaskCompleted; {
		case err == nil && completed:
			return now, nil
		case err == nil:
			answered = time.Now()
			waiting(ctx, now)
		case ctx.Err() != nil, !passes(err):
			return now, err
		case tired && completed:
			s.note("batchyard: what %s/%s wrote last cannot be read: %s", job, task, explain(err))
			return now, nil
		case tired:
			s.note("batchyard: %s/%s may still run", job, task)
			return now, err
		}
		before = now
		pause = min(pause*3/2, latest)
		if news {
			pause = soonest
		}
		select {
		case <-ctx.Done():
			return now, ctx.Err()
		case <-time.After(pause):
		}
	}
}

// look looks at a task, which it returns as it is, and copies what its logs have
// grown by. That they cannot be read now matters when nothing more will come.
func (s *session) look(
	ctx context.Context, job batch.JobID, task batch.TaskID, before client.Task, logs []*taskLog,
) (now client.Task, news bool, err error) {
	now, err = s.Task(ctx, job, task)
	if err != nil {
		return before, false, err
	}
	if runs(now) != runs(before) {
		for _, log := range logs {
			log.at = 0
		}
	}
	news = now.State != before.State
	if now.State == batch.TaskActive {
		return now, news, nil
	}
	for _, log := range logs {
		some, err := log.more(ctx)
		if err != nil && (now.State == batch.TaskCompleted || !passes(err)) {
			return now, news, err
		}
		news = news || some
	}
	return now, news, nil
}

// runs is how often a task was begun anew.
func runs(t client.Task) [2]int {
	return [2]int{t.ExecutionInfo.RetryCount, t.ExecutionInfo.RequeueCount}
}

// waitNote says once, on standard error, that a task has been waiting for a while, and
// how its pool is.
func (s *session) waitNote(job batch.JobID, task batch.TaskID) func(context.Context, client.Task) {
	begin, said := time.Now(), false
	return func(ctx context.Context, now client.Task) {
		if said || now.State != batch.TaskActive || time.Since(begin) < 3*time.Second {
			return
		}
		said = true
		s.note("%s/%s waits for a free slot; %s", job, task, s.poolNote(ctx, job))
	}
}

// poolNote says in a few words how the pool of a job is.
func (s *session) poolNote(ctx context.Context, job batch.JobID) string {
	var of struct {
		PoolInfo struct {
			PoolID batch.PoolID `json:"poolId"`
		} `json:"poolInfo"`
	}
	if _, err := s.Call(ctx, http.MethodGet, jobPath(job), nil, nil, &of); err != nil {
		return "its job cannot be read now"
	}
	pool, err := s.Pool(ctx, of.PoolInfo.PoolID)
	if err != nil {
		return fmt.Sprintf("pool %s cannot be read: %v", of.PoolInfo.PoolID, err)
	}
	note := fmt.Sprintf("pool %s is %s with %s", pool.ID, pool.AllocationState,
		many(int64(pool.CurrentDedicatedNodes+pool.CurrentLowPriorityNodes), "compute node"))
	for _, e := range pool.ResizeErrors {
		note += fmt.Sprintf(" (%s: %s)", e.Code, e.Message)
	}
	return note
}
