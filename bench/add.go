package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/batchyard/batchyard/batch"
	"golang.org/x/sync/errgroup"
)

// longLine makes a task of about 500 bytes.
func longLine() string { return "/bin/sh -c '" + strings.Repeat("x", 440) + "'" }

// load is tasks to be added.
type load struct {
	job         batch.JobID
	tasks       int
	size        int // tasks a call
	connections int
	line        string // command line
	prefix      string // of the tasks' names
	rate        float64
	// acknowledged is called with the first number and the count of tasks that
	// the server has confirmed; it may be nil.
	acknowledged func(first, count int)
}

// taskID names the n-th task, so that the order of names is that of adding.
func taskID(n int) string { return fmt.Sprintf("task-%07d", n) }

// addTasks adds the tasks of a load over its connections, as fast as they are
// taken or at the load's rate.
func (s *server) addTasks(ctx context.Context, l load) error {
	var next atomic.Int64
	begun := time.Now()
	group, ctx := errgroup.WithContext(ctx)
	for range l.connections {
		group.Go(func() error {
			line, err := s.line(ctx)
			if err != nil {
				return err
			}
			defer line.close()
			for {
				first := int(next.Add(int64(l.size))) - l.size
				if first >= l.tasks || !l.await(ctx, begun, first) {
					return ctx.Err()
				}
				count := min(l.size, l.tasks-first)
				if err := l.send(ctx, line, first, count); err != nil {
					return err
				}
				if l.acknowledged != nil {
					l.acknowledged(first, count)
				}
			}
		})
	}
	return group.Wait()
}

// await waits until the task's time has come, if the load has a rate; false
// when ctx is done.
func (l load) await(ctx context.Context, begun time.Time, first int) bool {
	if l.rate == 0 {
		return ctx.Err() == nil
	}
	due := begun.Add(time.Duration(float64(first) / l.rate * float64(time.Second)))
	select {
	case <-ctx.Done():
		return false
	case <-time.After(time.Until(due)):
		return true
	}
}

// send adds some tasks in one call.
func (l load) send(ctx context.Context, line *line, first, count int) error {
	if l.size == 1 {
		body := fmt.Appendf(nil, `{"id":"%s%s","commandLine":"%s"}`, l.prefix, taskID(first), l.line)
		return line.call(ctx, http.MethodPost, "/jobs/"+string(l.job)+"/tasks", body)
	}
	body := make([]byte, 0, count*(len(l.line)+64))
	body = append(body, `{"value":[`...)
	for n := first; n < first+count; n++ {
		if n > first {
			body = append(body, ',')
		}
		body = fmt.Appendf(body, `{"id":"%s%s","commandLine":"%s"}`, l.prefix, taskID(n), l.line)
	}
	body = append(body, "]}"...)
	if err := line.call(ctx, http.MethodPost, "/jobs/"+string(l.job)+"/addtaskcollection", body); err != nil {
		return err
	}
	if taken := bytes.Count(line.body, []byte(`"status":"success"`)); taken != count {
		return fmt.Errorf("%d of %d tasks were taken: %.300s", taken, count, line.body)
	}
	return nil
}
