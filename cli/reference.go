package cli

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/client"
)

// last names the newest job, or the newest task of a job.
const last = "last"

// isAddress tells an address of the API from what a person writes. What it names
// is never 'last', but a job or a task that has that id.
func isAddress(text string) bool { return strings.Contains(text, "://") }

// parseReference reads how a person names a job or a task: JOB, JOB/TASK, or the
// address of either in the API. Task is empty where only a job is named.
func parseReference(text string) (job batch.JobID, task batch.TaskID, err error) {
	path := text
	if isAddress(text) {
		u, err := url.Parse(text)
		if err != nil {
			return "", "", fmt.Errorf("%q is no address: %w", text, err)
		}
		_, found, ok := strings.Cut(u.Path, "/jobs/")
		if !ok {
			return "", "", fmt.Errorf("%q is no address of a job or a task", text)
		}
		path = strings.Replace(found, "/tasks/", "/", 1)
	}
	parts := strings.Split(path, "/")
	if len(parts) > 2 || parts[0] == "" || len(parts) == 2 && parts[1] == "" {
		return "", "", fmt.Errorf("%q names no job and no task: write JOB, JOB/TASK or 'last'", text)
	}
	if len(parts) == 2 {
		task = batch.TaskID(parts[1])
	}
	return batch.JobID(parts[0]), task, nil
}

// job finds the job that a word names.
func (s *session) job(ctx context.Context, text string) (batch.JobID, error) {
	job, task, err := parseReference(text)
	if err == nil && task != "" {
		err = fmt.Errorf("%q names a task, and a job is asked for", text)
	}
	if err != nil {
		return "", usageError{err}
	}
	if isAddress(text) {
		return job, nil
	}
	return s.newestJob(ctx, job)
}

// task finds the task that a word names.
func (s *session) task(ctx context.Context, text string) (batch.JobID, batch.TaskID, error) {
	job, task, err := parseReference(text)
	if err == nil && task == "" && (job != last || isAddress(text)) {
		err = fmt.Errorf("%q names a job, and a task is asked for: write %s/TASK, or %s/last for its newest", text, job, job)
	}
	if err != nil {
		return "", "", usageError{err}
	}
	if isAddress(text) {
		return job, task, nil
	}
	if job, err = s.newestJob(ctx, job); err != nil {
		return "", "", err
	}
	if task == "" || task == last {
		task, err = s.newestTask(ctx, job)
	}
	return job, task, err
}

// created is what 'last' is found by.
type created struct {
	ID   string    `json:"id"`
	Time time.Time `json:"creationTime"`
}

// errNone is the answer to 'last' where there is nothing.
var errNone = errors.New("there is none")

// newestJob puts the id of a job in the place of 'last', and leaves any other.
func (s *session) newestJob(ctx context.Context, job batch.JobID) (batch.JobID, error) {
	if job != last {
		return job, nil
	}
	id, err := s.newest(ctx, "/jobs")
	if errors.Is(err, errNone) {
		return "", batch.Errorf(batch.CodeJobNotFound, "The account has no job, so there is no last one.")
	}
	return batch.JobID(id), err
}

// newestTask is the id of the task of a job that was added last.
func (s *session) newestTask(ctx context.Context, job batch.JobID) (batch.TaskID, error) {
	id, err := s.newest(ctx, "/jobs/"+url.PathEscape(string(job))+"/tasks")
	if errors.Is(err, errNone) {
		return "", batch.Errorf(batch.CodeTaskNotFound, "Job %s has no task, so there is no last one.", job)
	}
	return batch.TaskID(id), err
}

// newest looks through a whole list, since the protocol has lists in no order but
// that of ids. Of things added at the same moment it is the first in the list.
func (s *session) newest(ctx context.Context, path string) (string, error) {
	var newest created
	query := url.Values{"$select": {"id,creationTime"}}
	for c, err := range client.Each[created](ctx, s.Client, path, query) {
		if err != nil {
			return "", err
		}
		if newest.ID == "" || c.Time.After(newest.Time) {
			newest = c
		}
	}
	if newest.ID == "" {
		return "", errNone
	}
	return newest.ID, nil
}

// jobPath is the path of a job in the protocol, whatever is in its id.
func jobPath(job batch.JobID) string { return "/jobs/" + url.PathEscape(string(job)) }

func taskPath(job batch.JobID, task batch.TaskID) string {
	return jobPath(job) + "/tasks/" + url.PathEscape(string(task))
}
