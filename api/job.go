package api

import (
	"net/http"
	"net/url"

	"github.com/batchyard/batchyard/batch"
)

// jobAnswer is a job as the protocol shows it.
type jobAnswer struct {
	Metadata string `json:"odata.metadata,omitempty"`
	*batch.JobSpecification
	resource
	State                       batch.JobState `json:"state"`
	StateTransitionTime         batch.Time     `json:"stateTransitionTime"`
	PreviousState               batch.JobState `json:"previousState,omitempty"`
	PreviousStateTransitionTime *batch.Time    `json:"previousStateTransitionTime,omitempty"`
	ExecutionInfo               jobExecution   `json:"executionInfo"`
}

// jobExecution is the run of a job, of which each has one.
type jobExecution struct {
	StartTime       batch.Time         `json:"startTime"`
	EndTime         *batch.Time        `json:"endTime,omitempty"`
	PoolID          batch.PoolID       `json:"poolId"`
	SchedulingError *batch.FailureInfo `json:"schedulingError,omitempty"`
	TerminateReason string             `json:"terminateReason,omitempty"`
}

// showJob shows the specification as it was sent, with defaults filled in, and what
// became of it beside it.
func showJob(c *call, j *batch.Job) any {
	return &jobAnswer{
		JobSpecification: &j.JobSpecification,
		resource:         c.resource(jobPath(j.ID), j.Stamp, j.CreationTime),
		State:            j.State, StateTransitionTime: batch.At(j.StateTransitionTime),
		PreviousState: j.PreviousState, PreviousStateTransitionTime: optionalTime(batch.At(j.PreviousStateTransitionTime)),
		ExecutionInfo: jobExecution{
			StartTime: batch.At(j.StartTime), EndTime: optionalTime(batch.At(j.EndTime)),
			PoolID: j.PoolInfo.PoolID, SchedulingError: j.SchedulingError, TerminateReason: j.TerminateReason,
		},
	}
}

func jobPath(id batch.JobID) string { return "jobs/" + url.PathEscape(string(id)) }

// addedJob is what an added job is called in the headers of the answer: the
// service names its run there, which is always the first, and not the job.
const addedJob = "jobs/job-1"

func addJob(c *call) error {
	var spec batch.JobSpecification
	if err := c.decode(kindJob, &spec); err != nil {
		return err
	}
	stamp, err := c.Control.AddJob(c.context(), c.account, spec)
	if err != nil {
		return err
	}
	return c.created(addedJob, stamp)
}

func getJob(c *call) error {
	if err := c.checkExpand(); err != nil {
		return err
	}
	job, err := c.Control.Job(c.context(), c.account, c.job())
	if err != nil {
		return err
	}
	if err := c.fresh(job.Stamp); err != nil {
		return err
	}
	answer := showJob(c, &job).(*jobAnswer)
	answer.Metadata = c.metadata("jobs/@Element")
	c.setStamp(job.Stamp)
	return c.element(kindJob, answer)
}

func listJobs(c *call) error {
	q, err := c.page(maxPage)
	if err != nil {
		return err
	}
	page, err := c.Control.Jobs(c.context(), c.account, q)
	if err != nil {
		return err
	}
	return list(c, kindJob, "jobs", page, showJob)
}

// patchJob changes what the body has and leaves the rest.
func patchJob(c *call) error {
	var patch batch.JobPatch
	conditions, err := c.decodeConditional(kindJob, &patch)
	if err != nil {
		return err
	}
	stamp, err := c.Control.PatchJob(c.context(), c.account, c.job(), patch, conditions)
	if err != nil {
		return err
	}
	return c.changed(http.StatusOK, stamp)
}

// replaceJob sets what the body leaves out to its default. The body is that of a
// patch; what a member that is not there means is all that differs.
func replaceJob(c *call) error {
	var patch batch.JobPatch
	conditions, err := c.decodeConditional(kindJob, &patch)
	if err != nil {
		return err
	}
	stamp, err := c.Control.ReplaceJob(c.context(), c.account, c.job(), patch, conditions)
	if err != nil {
		return err
	}
	return c.changed(http.StatusOK, stamp)
}

// deleteJob has a force parameter: not to wait for what nodes say about the
// job's tasks. No deletion waits for them here.
func deleteJob(c *call) error {
	if _, err := c.flag("force"); err != nil {
		return err
	}
	conditions, err := c.conditions()
	if err != nil {
		return err
	}
	if err := c.Control.DeleteJob(c.context(), c.account, c.job(), conditions); err != nil {
		return err
	}
	return c.writeDone(http.StatusAccepted)
}

// disableJob must be told what to do with running tasks: the protocol has no
// default for it.
func disableJob(c *call) error {
	var body struct {
		Tasks batch.DisableTasks `json:"disableTasks"`
	}
	conditions, err := c.decodeConditional(kindOther, &body)
	if err != nil {
		return err
	}
	stamp, err := c.Control.DisableJob(c.context(), c.account, c.job(), body.Tasks, conditions)
	if err != nil {
		return err
	}
	return c.changed(http.StatusAccepted, stamp)
}

// enableJob lets the tasks of a job run again. It has no body.
func enableJob(c *call) error {
	conditions, err := c.conditions()
	if err != nil {
		return err
	}
	stamp, err := c.Control.EnableJob(c.context(), c.account, c.job(), conditions)
	if err != nil {
		return err
	}
	return c.changed(http.StatusAccepted, stamp)
}

// terminateJob has the force parameter of deleteJob, to the same effect.
func terminateJob(c *call) error {
	if _, err := c.flag("force"); err != nil {
		return err
	}
	conditions, err := c.conditions()
	if err != nil {
		return err
	}
	var body struct {
		Reason string `json:"terminateReason"`
	}
	if err := c.decodeOptional(kindOther, &body); err != nil {
		return err
	}
	stamp, err := c.Control.TerminateJob(c.context(), c.account, c.job(), body.Reason, conditions)
	if err != nil {
		return err
	}
	return c.changed(http.StatusAccepted, stamp)
}

// countsAnswer is how many tasks of a job are in which state, and how many
// slots they take.
type countsAnswer struct {
	Metadata       string     `json:"odata.metadata"`
	TaskCounts     taskCounts `json:"taskCounts"`
	TaskSlotCounts taskCounts `json:"taskSlotCounts"`
}

// taskCounts are tasks, or slots, by state. Completed is the sum of the last two,
// and running has those that are preparing among it.
type taskCounts struct {
	Active    int64 `json:"active"`
	Running   int64 `json:"running"`
	Completed int64 `json:"completed"`
	Succeeded int64 `json:"succeeded"`
	Failed    int64 `json:"failed"`
}

// getTaskCounts reads counts that are kept with the job: clients ask for them
// again and again while tasks run, however many there are.
func getTaskCounts(c *call) error {
	n, err := c.Control.TaskCounts(c.context(), c.account, c.job())
	if err != nil {
		return err
	}
	return c.element(kindTaskCounts, &countsAnswer{
		Metadata:       c.metadata(taskCountsName(c.version) + "/@Element"),
		TaskCounts:     taskCounts{n.Active, n.Running, n.Succeeded + n.Failed, n.Succeeded, n.Failed},
		TaskSlotCounts: taskCounts{n.ActiveSlots, n.RunningSlots, n.SucceededSlots + n.FailedSlots, n.SucceededSlots, n.FailedSlots},
	})
}

// preparationStatus is true of every job: none has such tasks.
func preparationStatus(c *call) error {
	if _, err := c.Control.Job(c.context(), c.account, c.job()); err != nil {
		return err
	}
	return batch.Errorf(codeNoPreparation, "The specified job has neither a job preparation task nor a job release task.")
}

// taskCountsName is what task counts were called.
func taskCountsName(v *version) string {
	if v.before("2020-09-01") {
		return "taskcounts"
	}
	return "taskcountsresult"
}
