package faults_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/client"
)

// certainty is what a customer knows of something it has asked for.
type certainty int

const (
	never certainty = iota // not asked, or refused
	maybe                  // asked, and no answer came
	sure                   // the service has said yes
)

// A customer asks for one thing after the other and keeps what was answered. A request without an
// answer, because something was killed, is repeated until it has one, or given up at times; then
// it may have happened or not.
type customer struct {
	*storm
	name string
	dice *rand.Rand
	// number of the customer's next task; the numbers of a storm's customers are apart.
	number int
	jobs   []*jobRecord
	blobs  []*blobRecord
	waiter *taskRecord // runs until it is ended
}

// jobRecord is a job and what was asked about it.
type jobRecord struct {
	id       batch.JobID
	added    certainty
	ended    certainty // by a terminate
	deleted  certainty
	closing  certainty // it completes when its tasks have
	requeued bool      // disabled by requeue: its tasks may begin again
	tasks    []*taskRecord
	quiet    []interval // when it was seen disabled, and nothing of it may begin
}

// taskRecord is a task and what was asked about it.
type taskRecord struct {
	id      batch.TaskID
	number  int
	code    int
	retries int
	length  time.Duration
	added   certainty
	ended   certainty
	deleted certainty
	seen    string // how it ended, when the customer saw that first
}

// interval is a stretch of time.
type interval struct{ from, to time.Time }

func (i interval) has(at time.Time) bool { return at.After(i.from) && at.Before(i.to) }

// live asks until the storm's customers are to stop, and leaves nothing that never ends.
func (c *customer) live(ctx context.Context) {
	for ctx.Err() == nil {
		c.one()
		pause(ctx, time.Duration(c.dice.IntN(120))*time.Millisecond)
	}
	if c.waiter != nil {
		c.endWaiter()
	}
}

// pause waits, but not longer than ctx.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// one asks for one thing.
func (c *customer) one() {
	job := c.job()
	switch n := c.dice.IntN(100); {
	case n < 45:
		c.addTask(job)
	case n < 55:
		c.addTasks(job)
	case n < 60:
		c.endTask(job)
	case n < 64:
		c.deleteTask(job)
	case n < 66:
		c.disableJob(job)
	case n < 68:
		c.takeTurnsWithWaiter(job)
	case n < 84:
		c.useBlob()
	default:
		c.look(job)
	}
}

// ask makes a request until it is answered or the customer gives it up. Refusals in already mean
// that an earlier request has happened, of which no answer came.
func (c *customer) ask(what string, already []batch.Code, call func(context.Context) error) certainty {
	for unanswered := false; ; unanswered = true {
		if answer, answered := c.try(what, already, unanswered, call); answered {
			return answer
		}
		if c.dice.IntN(5) == 0 || c.life.Err() != nil {
			return maybe
		}
		pause(c.life, time.Duration(20+c.dice.IntN(100))*time.Millisecond)
	}
}

// insist asks for something that may have been asked for before, until there is an answer.
func (c *customer) insist(what string, already []batch.Code, call func(context.Context) error) certainty {
	for c.life.Err() == nil {
		if answer, answered := c.try(what, already, true, call); answered {
			return answer
		}
		pause(c.life, 50*time.Millisecond)
	}
	return maybe
}

// try makes one request.
func (c *customer) try(what string, already []batch.Code, unanswered bool, call func(context.Context) error) (answer certainty, answered bool) {
	limited, cancel := context.WithTimeout(c.life, patience/4)
	defer cancel()
	err := call(limited)
	c.note(c.name, what, err)
	code := batch.CodeOf(err)
	switch {
	case err == nil, unanswered && slices.Contains(already, code):
		return sure, true
	case code != "" && !slices.Contains(noAnswers, code):
		c.violated("%s: %s was refused: %v", c.name, what, err)
		return never, true
	}
	return maybe, false
}

// noAnswers are refusals of a service that says it cannot tell. A request with one may have
// happened.
var noAnswers = []batch.Code{batch.CodeInternalError, batch.CodeServerBusy, batch.CodeOperationTimedOut}

// job is the customer's present job. It leaves a job when that has some tasks, in one of the ways
// there are.
func (c *customer) job() *jobRecord {
	const enough = 40
	if n := len(c.jobs); n > 0 {
		job := c.jobs[n-1]
		if len(job.tasks) < enough {
			return job
		}
		c.leave(job)
	}
	for {
		job := &jobRecord{id: batch.JobID(fmt.Sprintf("%s-%d", c.name, len(c.jobs)))}
		c.jobs = append(c.jobs, job)
		job.added = c.ask("add job "+string(job.id), []batch.Code{batch.CodeJobExists}, func(ctx context.Context) error {
			return c.AddJob(ctx, job.id, c.pool)
		})
		if job.added != maybe || c.life.Err() != nil {
			return job
		}
	}
}

func (c *customer) leave(job *jobRecord) {
	if c.waiter != nil {
		c.endWaiter()
	}
	switch c.dice.IntN(5) {
	case 0:
		job.ended = c.ask("terminate job "+string(job.id), []batch.Code{batch.CodeJobBeingTerminated, batch.CodeJobCompleted}, func(ctx context.Context) error {
			return c.act(ctx, "POST", "/jobs/"+string(job.id)+"/terminate", map[string]any{"terminateReason": "enough"})
		})
	case 1:
		job.deleted = c.ask("delete job "+string(job.id), []batch.Code{batch.CodeJobBeingDeleted, batch.CodeJobNotFound}, func(ctx context.Context) error {
			return c.DeleteJob(ctx, job.id)
		})
	case 2:
		job.closing = c.ask("close job "+string(job.id), nil, func(ctx context.Context) error {
			return c.act(ctx, "PATCH", "/jobs/"+string(job.id), map[string]any{"onAllTasksComplete": "terminatejob"})
		})
	}
}

// act makes a call that the client has no method for.
func (c *customer) act(ctx context.Context, method, path string, body any) error {
	_, err := c.Call(ctx, method, path, nil, body, nil)
	return err
}

// newTask makes up a task.
func (c *customer) newTask(job *jobRecord) *taskRecord {
	c.number++
	task := &taskRecord{
		id: batch.TaskID(fmt.Sprintf("task-%d", c.number)), number: c.number,
		length: time.Duration(c.dice.IntN(400)) * time.Millisecond,
	}
	if c.dice.IntN(4) == 0 {
		task.code = 1 + c.dice.IntN(90)
		task.retries = c.dice.IntN(3)
	}
	job.tasks = append(job.tasks, task)
	return task
}

// spec is what the service is told of a task.
func (c *customer) spec(task *taskRecord) map[string]any {
	var environment []map[string]any
	for name, value := range map[string]string{
		stageVariable: c.stage, markVariable: c.mark, "NUMBER": fmt.Sprint(task.number),
		"CODE": fmt.Sprint(task.code), "LENGTH": task.length.String(),
	} {
		environment = append(environment, map[string]any{"name": name, "value": value})
	}
	return map[string]any{
		"id": task.id, "commandLine": c.actor, "environmentSettings": environment,
		"constraints": map[string]any{"maxTaskRetryCount": task.retries},
	}
}

func (c *customer) addTask(job *jobRecord) {
	task := c.newTask(job)
	task.added = c.ask(c.adding(job, task))
}

// adding is the request that adds a task.
func (c *customer) adding(job *jobRecord, task *taskRecord) (what string, already []batch.Code, call func(context.Context) error) {
	return fmt.Sprintf("add task %s/%s", job.id, task.id), []batch.Code{batch.CodeTaskExists}, func(ctx context.Context) error {
		return c.AddTask(ctx, job.id, c.spec(task))
	}
}

// addTasks adds a collection, of which each task has an answer of its own.
func (c *customer) addTasks(job *jobRecord) {
	records := map[batch.TaskID]*taskRecord{}
	var specs []map[string]any
	for range 2 + c.dice.IntN(12) {
		task := c.newTask(job)
		records[task.id] = task
		specs = append(specs, c.spec(task))
	}
	asked := 0
	all := c.ask(fmt.Sprintf("add %d tasks to %s up to %d", len(specs), job.id, c.number), nil, func(ctx context.Context) error {
		asked++
		results, err := c.AddTasks(ctx, job.id, specs)
		if err != nil {
			return err
		}
		return c.take(records, results, asked > 1)
	})
	for _, task := range records {
		if task.added != sure {
			task.added = min(all, maybe)
		}
	}
}

// take reads the answers of a collection. Tasks may exist if an earlier request had no answer.
func (c *customer) take(records map[batch.TaskID]*taskRecord, results []client.AddStatus, again bool) error {
	var open error
	for _, result := range results {
		task := records[result.TaskID]
		switch {
		case task == nil:
			c.violated("%s: the answer names task %q, which was not asked for", c.name, result.TaskID)
		case result.Error == nil, again && result.Error.Code == batch.CodeTaskExists:
			task.added = sure
		case slices.Contains(noAnswers, result.Error.Code):
			open = &batch.Error{Code: result.Error.Code, Message: "a task of a collection was not added"}
		default:
			c.violated("%s: task %s of a collection was refused: %s", c.name, task.id, result.Error.Code)
		}
	}
	if len(results) != len(records) {
		return errors.New("the answer is not about all tasks")
	}
	return open
}

// any is one of the job's tasks that exists and that nobody has touched; nil if there is none.
func (c *customer) any(job *jobRecord) *taskRecord {
	var tasks []*taskRecord
	for _, task := range job.tasks[max(0, len(job.tasks)-20):] {
		if task.added == sure && task.ended == never && task.deleted == never && task != c.waiter {
			tasks = append(tasks, task)
		}
	}
	if len(tasks) == 0 {
		return nil
	}
	return tasks[c.dice.IntN(len(tasks))]
}

func (c *customer) endTask(job *jobRecord) {
	if task := c.any(job); task != nil {
		c.end(job, task)
	}
}

// end terminates a task. It may have ended by itself before, and then stays as it is.
func (c *customer) end(job *jobRecord, task *taskRecord) {
	completed := false
	task.ended = c.ask(fmt.Sprintf("terminate task %s/%s", job.id, task.id), nil, func(ctx context.Context) error {
		err := c.terminate(ctx, job, task)
		if batch.CodeOf(err) == batch.CodeTaskCompleted {
			completed, err = true, nil
		}
		return err
	})
	if completed {
		task.ended = maybe
	}
}

func (c *customer) terminate(ctx context.Context, job *jobRecord, task *taskRecord) error {
	return c.act(ctx, "POST", fmt.Sprintf("/jobs/%s/tasks/%s/terminate", job.id, task.id), nil)
}

func (c *customer) deleteTask(job *jobRecord) {
	task := c.any(job)
	if task == nil {
		return
	}
	task.deleted = c.ask(fmt.Sprintf("delete task %s/%s", job.id, task.id), []batch.Code{batch.CodeTaskNotFound}, func(ctx context.Context) error {
		return c.act(ctx, "DELETE", fmt.Sprintf("/jobs/%s/tasks/%s", job.id, task.id), nil)
	})
}

// takeTurnsWithWaiter adds a task that runs until it is ended, or ends it.
func (c *customer) takeTurnsWithWaiter(job *jobRecord) {
	if c.waiter != nil {
		c.endWaiter()
		return
	}
	task := c.newTask(job)
	task.length, task.code, task.retries = time.Hour, 0, 0
	task.added = c.ask(c.adding(job, task))
	c.waiter = task
}

// endWaiter does not give up: nothing else ends the task.
func (c *customer) endWaiter() {
	task, job := c.waiter, c.jobs[len(c.jobs)-1]
	c.waiter = nil
	if task.added == maybe {
		task.added = c.insist(c.adding(job, task))
	}
	task.ended = c.insist(fmt.Sprintf("terminate task %s/%s", job.id, task.id), []batch.Code{batch.CodeTaskCompleted}, func(ctx context.Context) error {
		return c.terminate(ctx, job, task)
	})
}

// disableJob disables the job, looks whether it is, and enables it again.
func (c *customer) disableJob(job *jobRecord) {
	if job.added != sure {
		return
	}
	how := []string{"requeue", "wait"}[c.dice.IntN(2)]
	if c.waiter != nil {
		how = "requeue" // the waiter does not end by itself
	}
	job.requeued = job.requeued || how == "requeue"
	path := "/jobs/" + string(job.id)
	c.insist("disable job "+string(job.id)+" by "+how, []batch.Code{batch.CodeJobDisabled}, func(ctx context.Context) error {
		return c.act(ctx, "POST", path+"/disable", map[string]any{"disableTasks": how})
	})
	limited, cancel := context.WithTimeout(c.life, 3*time.Second)
	defer cancel()
	quiet := interval{}
	err := poll(limited, func(ctx context.Context) (bool, error) {
		got, err := c.Job(ctx, job.id)
		quiet.from = time.Now()
		return got.State == batch.JobDisabled, err
	})
	pause(c.life, time.Duration(c.dice.IntN(300))*time.Millisecond)
	quiet.to = time.Now()
	if err == nil {
		job.quiet = append(job.quiet, quiet)
	}
	c.insist("enable job "+string(job.id), nil, func(ctx context.Context) error {
		return c.act(ctx, "POST", path+"/enable", nil)
	})
}

// look reads the job's completed tasks: what the customer has seen completed must stay so.
func (c *customer) look(job *jobRecord) {
	limited, cancel := context.WithTimeout(c.life, patience/4)
	defer cancel()
	tasks, err := c.Tasks(limited, job.id, "state eq 'completed'")
	if code := batch.CodeOf(err); err != nil {
		if code != "" && job.added == sure && !slices.Contains(noAnswers, code) {
			c.violated("%s: tasks of %s cannot be listed: %v", c.name, job.id, err)
		}
		return
	}
	c.note(c.name, fmt.Sprintf("see %d tasks of %s completed", len(tasks), job.id), nil)
	for _, complaint := range job.see(tasks) {
		c.violated("%s: %s", c.name, complaint)
	}
}

// see compares completed tasks with what was seen of them before.
func (j *jobRecord) see(completed []client.Task) (complaints []string) {
	listed := map[batch.TaskID]string{}
	for _, task := range completed {
		listed[task.ID] = lastWord(task)
	}
	for _, task := range j.tasks {
		now := listed[task.id]
		if task.seen != "" && now != task.seen && (now != "" || task.deleted == never) {
			complaints = append(complaints, fmt.Sprintf("task %s/%s was seen completed as %q and is now %q", j.id, task.id, task.seen, now))
		}
		if now != "" {
			task.seen = now
		}
	}
	return complaints
}

// lastWord is all that may not change once a task is completed.
func lastWord(task client.Task) string {
	end := ""
	if e := task.ExecutionInfo.EndTime; e != nil {
		end = e.Format(time.RFC3339Nano)
	}
	return describe(task) + ", at " + end + ", on " + string(task.NodeInfo.Node)
}
