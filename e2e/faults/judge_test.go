package faults_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/client"
)

// evidence is what a judge compares with what customers know: what the service answers when all
// is over, what the actors have logged, and which nodes could not keep their tasks.
type evidence struct {
	tasks map[batch.JobID][]client.Task // nil: there is no such job
	cues  []cue                         // in the order of the log
	// losses are moments at which a node lost all its tasks, by their true cause.
	losses map[string][]time.Time
}

// attempt is one run of a task as its actor tells it.
type attempt struct {
	number     int64
	node       string
	pid        int
	begin, end time.Time // end is zero if it was cut off
}

// judge compares. Each complaint is a promise that was not kept.
func judge(jobs []*jobRecord, found evidence) (complaints []string) {
	attempts, complaints := readAttempts(found.cues)
	for _, job := range jobs {
		tasks, exists := found.tasks[job.id]
		switch {
		case exists && job.deleted == sure:
			complaints = append(complaints, fmt.Sprintf("job %s was deleted and is there", job.id))
		case !exists && job.added == sure && job.deleted == never:
			complaints = append(complaints, fmt.Sprintf("job %s was added and is not there", job.id))
		}
		if exists && job.deleted == never {
			complaints = append(complaints, job.see(slices.DeleteFunc(slices.Clone(tasks), func(t client.Task) bool { return t.State != batch.TaskCompleted }))...)
		}
		known := map[batch.TaskID]client.Task{}
		for _, task := range tasks {
			known[task.ID] = task
		}
		for _, record := range job.tasks {
			key := taskKey{string(job.id), string(record.id)}
			var answered *client.Task
			if task, ok := known[record.id]; ok {
				answered = &task
			}
			for _, complaint := range record.judge(job, exists, answered, attempts[key], found.losses) {
				complaints = append(complaints, fmt.Sprintf("task %s/%s: %s%s", job.id, record.id, complaint, tell(attempts[key])))
			}
			delete(known, record.id)
			delete(attempts, key)
		}
		for id := range known {
			complaints = append(complaints, fmt.Sprintf("task %s/%s exists and nobody has added it", job.id, id))
		}
	}
	for key, runs := range attempts {
		if slices.ContainsFunc(jobs, func(j *jobRecord) bool { return string(j.id) == key.job }) {
			complaints = append(complaints, fmt.Sprintf("task %s/%s ran and nobody has added it%s", key.job, key.task, tell(runs)))
		}
	}
	return complaints
}

type taskKey struct{ job, task string }

// readAttempts puts the lines of each task together.
func readAttempts(cues []cue) (attempts map[taskKey][]attempt, complaints []string) {
	attempts = map[taskKey][]attempt{}
	for _, c := range cues {
		key := taskKey{c.job, c.task}
		runs := attempts[key]
		at := slices.IndexFunc(runs, func(a attempt) bool { return a.number == c.attempt && a.pid == c.pid })
		switch {
		case c.word == cueBegin:
			attempts[key] = append(runs, attempt{number: c.attempt, node: c.node, pid: c.pid, begin: c.at})
		case c.word == cueEnd && at >= 0 && runs[at].end.IsZero():
			runs[at].end = c.at
		case c.word == cueOverlap:
			complaints = append(complaints, fmt.Sprintf("task %s/%s: attempt %d on %s began while another lived%s", c.job, c.task, c.attempt, c.node, tell(runs)))
		default:
			complaints = append(complaints, fmt.Sprintf("task %s/%s: attempt %d says %q out of turn%s", c.job, c.task, c.attempt, c.word, tell(runs)))
		}
	}
	return attempts, complaints
}

// tell is what a complaint says about the runs of a task.
func tell(runs []attempt) string {
	var text strings.Builder
	for _, run := range runs {
		end := "cut off"
		if !run.end.IsZero() {
			end = run.end.Format(clockTime)
		}
		fmt.Fprintf(&text, "\n\tattempt %d on %s, process %d: %s to %s", run.number, run.node, run.pid, run.begin.Format(clockTime), end)
	}
	return text.String()
}

const clockTime = "15:04:05.000000"

func (r *taskRecord) judge(job *jobRecord, jobExists bool, task *client.Task, runs []attempt, losses map[string][]time.Time) (complaints []string) {
	complain := func(format string, arguments ...any) {
		complaints = append(complaints, fmt.Sprintf(format, arguments...))
	}
	r.judgeRuns(job, runs, losses, complain)
	untouched := r.deleted == never && job.deleted == never
	switch {
	case task == nil && r.added == sure && untouched:
		complain("was added and is not there")
	case task == nil && len(runs) > 0 && untouched:
		complain("ran and is not there")
	case task != nil && r.deleted == sure:
		complain("was deleted and is there")
	case task != nil && r.added == never:
		complain("was refused and is there")
	}
	if task == nil || !jobExists || job.deleted != never {
		return complaints
	}
	if task.State != batch.TaskCompleted {
		complain("has not ended: %s", describe(*task))
		return complaints
	}
	r.judgeEnd(job, task, runs, complain)
	return complaints
}

// judgeEnd looks at how a task ended: by itself or, if somebody asked for that, ended by others.
func (r *taskRecord) judgeEnd(job *jobRecord, task *client.Task, runs []attempt, complain func(string, ...any)) {
	info := task.ExecutionInfo
	endedByOthers := info.FailureInfo != nil && info.FailureInfo.Code == batch.FailureTaskEnded
	switch {
	case r.ended == sure && !endedByOthers:
		complain("was terminated and ended by itself: %s", describe(*task))
	case endedByOthers && r.ended == never && job.ended == never:
		complain("was ended, and nobody asked for that: %s", describe(*task))
	}
	if endedByOthers {
		return
	}
	if info.ExitCode == nil || *info.ExitCode != r.code || (info.Result == batch.ResultSuccess) != (r.code == 0) {
		complain("ended as %s, want exit code %d", describe(*task), r.code)
	}
	retries := 0
	if r.code != 0 {
		retries = r.retries
	}
	if info.RetryCount != retries {
		complain("was tried again %d times, want %d", info.RetryCount, retries)
	}
	ends := 0
	for _, run := range runs {
		if !run.end.IsZero() {
			ends++
		}
	}
	if len(runs) == 0 || runs[len(runs)-1].end.IsZero() || ends < retries+1 {
		complain("is completed, but has come to its end %d times, want %d", ends, retries+1)
	}
}

// dying is how long a process may live, and write that it begins, when its keeper was killed.
const dying = 200 * time.Millisecond

// judgeRuns: each run after the first needs a reason, and begins when the one before is over. An
// attempt may begin again when keeper and agent were killed before the server had heard of it.
func (r *taskRecord) judgeRuns(job *jobRecord, runs []attempt, losses map[string][]time.Time, complain func(string, ...any)) {
	retries := 0
	for i, run := range runs {
		for _, quiet := range job.quiet {
			if quiet.has(run.begin) {
				complain("attempt %d began while the job was disabled", run.number)
			}
		}
		if i == 0 {
			continue
		}
		before := runs[i-1]
		lost := slices.ContainsFunc(losses[before.node], func(at time.Time) bool { return at.Add(dying).After(before.begin) && at.Before(run.begin) })
		if run.number < before.number || run.number == before.number && !lost {
			complain("attempt %d follows attempt %d", run.number, before.number)
		}
		if run.begin.Before(before.end) {
			complain("attempt %d began before attempt %d had ended", run.number, before.number)
		}
		switch {
		case lost, job.requeued:
		case !before.end.IsZero() && r.code != 0 && retries < r.retries:
			retries++
		default:
			complain("attempt %d began although the node of attempt %d lived", run.number, before.number)
		}
	}
}

// TestJudge gives the judge a story without fault, and then the same with one fault each.
func TestJudge(t *testing.T) {
	t.Parallel()
	moment := func(seconds float64) time.Time {
		return time.Unix(1e9, 0).Add(time.Duration(seconds * float64(time.Second)))
	}
	line := func(word, task string, attempt int64, node string, at float64) cue {
		return cue{word: word, job: "job", task: task, attempt: attempt, node: node, pid: int(attempt), at: moment(at)}
	}
	completed := func(id batch.TaskID, code, retries int) client.Task {
		task := client.Task{ID: id, State: batch.TaskCompleted}
		task.ExecutionInfo = batch.ExecutionInfo{ExitCode: &code, RetryCount: retries, Result: batch.ResultSuccess}
		if code != 0 {
			task.ExecutionInfo.Result = batch.ResultFailure
		}
		return task
	}
	ended := func(id batch.TaskID) client.Task {
		task := client.Task{ID: id, State: batch.TaskCompleted}
		task.ExecutionInfo = batch.ExecutionInfo{Result: batch.ResultFailure, FailureInfo: &batch.FailureInfo{Code: batch.FailureTaskEnded}}
		return task
	}
	// story: "plain" ran once; "again" fails, and was tried twice; "lost" lost its node; "ended"
	// was terminated while it ran; "gone" was deleted; "lucky" was added without an answer.
	story := func() (*jobRecord, *evidence) {
		job := &jobRecord{id: "job", added: sure, quiet: []interval{{moment(50), moment(60)}}, tasks: []*taskRecord{
			{id: "plain", added: sure}, {id: "again", added: sure, code: 7, retries: 1}, {id: "lost", added: sure},
			{id: "ended", added: sure, ended: sure}, {id: "gone", added: sure, deleted: sure}, {id: "lucky", added: maybe},
			{id: "unlucky", added: maybe},
		}}
		return job, &evidence{
			tasks: map[batch.JobID][]client.Task{"job": {
				completed("plain", 0, 0), completed("again", 7, 1), completed("lost", 0, 0), ended("ended"), completed("lucky", 0, 0),
			}},
			losses: map[string][]time.Time{"n1": {moment(20)}},
			cues: []cue{
				line(cueBegin, "plain", 1, "n1", 1), line(cueEnd, "plain", 1, "n1", 2),
				line(cueBegin, "again", 1, "n2", 1), line(cueEnd, "again", 1, "n2", 2),
				line(cueBegin, "again", 2, "n2", 3), line(cueEnd, "again", 2, "n2", 4),
				line(cueBegin, "lost", 1, "n1", 19), line(cueBegin, "lost", 2, "n2", 21), line(cueEnd, "lost", 2, "n2", 22),
				line(cueBegin, "ended", 1, "n1", 5), line(cueBegin, "gone", 1, "n1", 5),
				line(cueBegin, "lucky", 1, "n1", 5), line(cueEnd, "lucky", 1, "n1", 6),
			},
		}
	}
	job, found := story()
	if complaints := judge([]*jobRecord{job}, *found); len(complaints) > 0 {
		t.Errorf("the judge complains about a story without fault: %q", complaints)
	}
	without := func(task batch.TaskID) func(*jobRecord, *evidence) {
		return func(_ *jobRecord, e *evidence) {
			e.tasks["job"] = slices.DeleteFunc(e.tasks["job"], func(t client.Task) bool { return t.ID == task })
		}
	}
	add := func(cues ...cue) func(*jobRecord, *evidence) {
		return func(_ *jobRecord, e *evidence) { e.cues = append(e.cues, cues...) }
	}
	for _, test := range []struct {
		name, want string
		change     func(*jobRecord, *evidence)
	}{
		{"a task that was added is not there", "plain: was added and is not there", without("plain")},
		{"a task that ran is not there", "lucky: ran and is not there", without("lucky")},
		{"a deleted task is there", "gone: was deleted and is there", func(_ *jobRecord, e *evidence) {
			e.tasks["job"] = append(e.tasks["job"], completed("gone", 0, 0))
		}},
		{"a task comes from nowhere", "stray exists and nobody has added it", func(_ *jobRecord, e *evidence) {
			e.tasks["job"] = append(e.tasks["job"], completed("stray", 0, 0))
		}},
		{"a task runs that comes from nowhere", "stray ran and nobody has added it", add(line(cueBegin, "stray", 1, "n1", 1))},
		{"a task has not ended", "plain: has not ended", func(_ *jobRecord, e *evidence) { e.tasks["job"][0].State = batch.TaskRunning }},
		{"a task has another's exit code", "plain: ended as", func(_ *jobRecord, e *evidence) { e.tasks["job"][0] = completed("plain", 3, 0) }},
		{"a failure counts as success", "again: ended as", func(_ *jobRecord, e *evidence) {
			e.tasks["job"][1].ExecutionInfo.Result = batch.ResultSuccess
		}},
		{"a retry is not made", "again: was tried again 0 times", func(_ *jobRecord, e *evidence) { e.tasks["job"][1] = completed("again", 7, 0) }},
		{"a completed task never came to its end", "plain: is completed, but", func(_ *jobRecord, e *evidence) { e.cues = slices.Delete(e.cues, 1, 2) }},
		{"a terminated task ends by itself", "ended: was terminated and ended by itself", func(_ *jobRecord, e *evidence) { e.tasks["job"][3] = completed("ended", 0, 0) }},
		{"a task is ended by nobody", "plain: was ended, and nobody asked", func(_ *jobRecord, e *evidence) { e.tasks["job"][0] = ended("plain") }},
		{"a task runs twice", "plain: attempt 2 began although the node of attempt 1 lived",
			add(line(cueBegin, "plain", 2, "n2", 3), line(cueEnd, "plain", 2, "n2", 4))},
		{"a task is tried once too often", "again: attempt 3 began although",
			add(line(cueBegin, "again", 3, "n2", 5), line(cueEnd, "again", 3, "n2", 6))},
		{"a lost task was not lost", "lost: attempt 2 began although", func(_ *jobRecord, e *evidence) { delete(e.losses, "n1") }},
		{"a node was lost before the task began", "lost: attempt 2 began although", func(_ *jobRecord, e *evidence) { e.losses["n1"][0] = moment(18) }},
		{"two attempts live at one time, as the lock knows", "attempt 2 on n2 began while another lived", add(line(cueOverlap, "plain", 2, "n2", 3))},
		{"two attempts live at one time, as the clock knows", "lost: attempt 2 began before attempt 1 had ended", add(line(cueEnd, "lost", 1, "n1", 21.5))},
		{"an attempt begins twice", "plain: attempt 1 follows attempt 1", add(cue{cueBegin, "job", "plain", 1, "n1", 99, moment(3)}, cue{cueEnd, "job", "plain", 1, "n1", 99, moment(4)})},
		{"an attempt ends twice", `plain: attempt 1 says "end" out of turn`, add(line(cueEnd, "plain", 1, "n1", 3))},
		{"a task begins in a disabled job", "lucky: attempt 2 began while the job was disabled", add(line(cueBegin, "lucky", 2, "n1", 55))},
		{"an ending changes", "plain was seen completed as", func(j *jobRecord, _ *evidence) { j.tasks[0].seen = "otherwise" }},
		{"a job is not there", "job job was added and is not there", func(_ *jobRecord, e *evidence) { delete(e.tasks, "job") }},
		{"a deleted job is there", "job job was deleted and is there", func(j *jobRecord, _ *evidence) { j.deleted = sure }},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			job, found := story()
			test.change(job, found)
			complaints := judge([]*jobRecord{job}, *found)
			if !slices.ContainsFunc(complaints, func(c string) bool { return strings.Contains(c, test.want) }) {
				t.Errorf("the judge says %q, want %q", complaints, test.want)
			}
		})
	}
}
