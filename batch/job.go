package batch

import (
	"math"
	"slices"
	"time"
)

// JobSpecification is what a client sends to add a job.
type JobSpecification struct {
	ID                        JobID                `json:"id"`
	DisplayName               string               `json:"displayName,omitempty"`
	Priority                  int                  `json:"priority"`
	AllowTaskPreemption       bool                 `json:"allowTaskPreemption"`
	MaxParallelTasks          *int                 `json:"maxParallelTasks,omitempty"`
	Constraints               *JobConstraints      `json:"constraints,omitempty"`
	CommonEnvironmentSettings []EnvironmentSetting `json:"commonEnvironmentSettings,omitzero"`
	PoolInfo                  PoolInfo             `json:"poolInfo"`
	OnAllTasksComplete        OnAllTasksComplete   `json:"onAllTasksComplete,omitempty"`
	OnTaskFailure             OnTaskFailure        `json:"onTaskFailure,omitempty"`
	UsesTaskDependencies      bool                 `json:"usesTaskDependencies"`
	Metadata                  []MetadataItem       `json:"metadata,omitzero"`

	// Kept and given back.
	NetworkConfiguration Opaque `json:"networkConfiguration,omitempty"`

	// Refused unless empty.
	JobManagerTask     Opaque `json:"jobManagerTask,omitempty"`
	JobPreparationTask Opaque `json:"jobPreparationTask,omitempty"`
	JobReleaseTask     Opaque `json:"jobReleaseTask,omitempty"`
}

// JobConstraints bound a job and give its tasks their default retries.
type JobConstraints struct {
	MaxWallClockTime  *Duration `json:"maxWallClockTime,omitempty"`
	MaxTaskRetryCount *int      `json:"maxTaskRetryCount,omitempty"`
}

// PoolInfo binds a job to a pool.
type PoolInfo struct {
	PoolID                PoolID `json:"poolId,omitempty"`
	AutoPoolSpecification Opaque `json:"autoPoolSpecification,omitempty"`
}

// OnAllTasksComplete says what happens when no task is left to run.
type OnAllTasksComplete string

// Actions when all tasks are complete.
const (
	AllTasksNoAction     OnAllTasksComplete = "noaction"
	AllTasksTerminateJob OnAllTasksComplete = "terminatejob"
)

// OnTaskFailure says whether the exit conditions of a failed task act on the
// job.
type OnTaskFailure string

// Actions on task failure.
const (
	TaskFailureNoAction OnTaskFailure = "noaction"
	TaskFailurePerform  OnTaskFailure = "performexitoptionsjobaction"
)

// DisableTasks says what becomes of running tasks of a disabled job.
type DisableTasks string

// Options of disabling a job.
const (
	DisableTasksRequeue   DisableTasks = "requeue"
	DisableTasksTerminate DisableTasks = "terminate"
	DisableTasksWait      DisableTasks = "wait"
)

// JobState is the life of a job.
type JobState string

// States of a job.
const (
	JobActive      JobState = "active"
	JobDisabling   JobState = "disabling"
	JobDisabled    JobState = "disabled"
	JobEnabling    JobState = "enabling"
	JobTerminating JobState = "terminating"
	JobCompleted   JobState = "completed"
	JobDeleting    JobState = "deleting"
)

// jobMoves are the legal moves. A deleting job ends by being gone.
var jobMoves = map[JobState][]JobState{
	JobActive:      {JobDisabling, JobTerminating, JobDeleting},
	JobDisabling:   {JobDisabled, JobTerminating, JobDeleting},
	JobDisabled:    {JobEnabling, JobTerminating, JobDeleting},
	JobEnabling:    {JobActive, JobTerminating, JobDeleting},
	JobTerminating: {JobCompleted, JobDeleting},
	JobCompleted:   {JobDeleting},
	JobDeleting:    nil,
}

// Terminate reasons that the service gives.
const (
	ReasonUserTerminate     = "UserTerminate"
	ReasonAllTasksCompleted = "AllTasksCompleted"
	ReasonTaskFailed        = "TaskFailed"
	ReasonMaxWallClock      = "MaxWallClockTimeExpired"
)

// Job is a job as the service knows it.
type Job struct {
	JobSpecification
	Account                     AccountName
	Stamp                       Stamp
	CreationTime                time.Time
	State                       JobState
	StateTransitionTime         time.Time
	PreviousState               JobState
	PreviousStateTransitionTime time.Time
	StartTime                   time.Time
	// DatesSet is by how much dates have been set on since the job began, which does
	// not shorten the time that it has.
	DatesSet        time.Duration
	EndTime         time.Time
	TerminateReason string
	Counts          TaskCounts
	// Bound is how many of its tasks are bound to a node, begun or not.
	Bound int64
	// Disable is what the running disable does with tasks.
	Disable DisableTasks
	// SchedulingError says what keeps the job's tasks from being scheduled as
	// things are now; it is not kept.
	SchedulingError *FailureInfo
}

// TaskCounts are kept with every change, never computed by scanning. Running
// includes preparing tasks, as the protocol counts them.
type TaskCounts struct {
	Active, Running, Succeeded, Failed                     int64
	ActiveSlots, RunningSlots, SucceededSlots, FailedSlots int64
}

// JobPatch changes what is present.
type JobPatch struct {
	Priority             *int                `json:"priority,omitempty"`
	AllowTaskPreemption  *bool               `json:"allowTaskPreemption,omitempty"`
	MaxParallelTasks     *int                `json:"maxParallelTasks,omitempty"`
	Constraints          *JobConstraints     `json:"constraints,omitempty"`
	PoolInfo             *PoolInfo           `json:"poolInfo,omitempty"`
	OnAllTasksComplete   *OnAllTasksComplete `json:"onAllTasksComplete,omitempty"`
	Metadata             *[]MetadataItem     `json:"metadata,omitempty"`
	NetworkConfiguration Opaque              `json:"networkConfiguration,omitempty"`
}

// Normalize fills defaults and refuses what is not legal or not supported.
func (s *JobSpecification) Normalize() error {
	if reason := checkID(string(s.ID)); reason != "" {
		return InvalidValue("id", s.ID, "%s", reason)
	}
	for _, refuse := range []struct {
		property string
		given    bool
		reason   string
	}{
		{"jobManagerTask", present(s.JobManagerTask), "Job manager tasks are not supported by this release; add the task after the job"},
		{"jobPreparationTask", present(s.JobPreparationTask), "Job preparation tasks are not supported by this release; use the pool's start task"},
		{"jobReleaseTask", present(s.JobReleaseTask), "Job release tasks are not supported by this release"},
		{"poolInfo.autoPoolSpecification", present(s.PoolInfo.AutoPoolSpecification), "Auto pools are not supported by this release; add a pool and name it in poolInfo.poolId"},
		{"usesTaskDependencies", s.UsesTaskDependencies, "Task dependencies are not supported by this release"},
	} {
		if refuse.given {
			return NotSupported(refuse.property, refuse.reason)
		}
	}
	if err := checkDisplayName(s.DisplayName); err != nil {
		return err
	}
	if err := checkEnvironment("commonEnvironmentSettings", s.CommonEnvironmentSettings); err != nil {
		return err
	}
	if err := word("onTaskFailure", &s.OnTaskFailure, TaskFailureNoAction, TaskFailurePerform); err != nil {
		return err
	}
	return s.normalizeChangeable()
}

// normalizeChangeable covers what updates may change too.
func (s *JobSpecification) normalizeChangeable() error {
	if s.PoolInfo.PoolID == "" {
		return Missing("poolInfo.poolId")
	}
	if reason := checkID(string(s.PoolInfo.PoolID)); reason != "" { // no pool will ever have it
		return InvalidValue("poolInfo.poolId", s.PoolInfo.PoolID, "%s", reason)
	}
	if s.Priority < -1000 || s.Priority > 1000 {
		return InvalidValue("priority", s.Priority, "It is -1000 to 1000")
	}
	if s.MaxParallelTasks == nil {
		unlimited := -1
		s.MaxParallelTasks = &unlimited
	}
	if n := *s.MaxParallelTasks; n < -1 || n == 0 || n > math.MaxInt32 {
		return InvalidValue("maxParallelTasks", n, "It is -1 (no limit) or 1 to %d", math.MaxInt32)
	}
	if s.AllowTaskPreemption {
		return NotSupported("allowTaskPreemption", "Tasks are not preempted by this release")
	}
	if err := s.normalizeConstraints(); err != nil {
		return err
	}
	if err := word("onAllTasksComplete", &s.OnAllTasksComplete, AllTasksNoAction, AllTasksTerminateJob); err != nil {
		return err
	}
	return checkMetadata(s.Metadata)
}

func (s *JobSpecification) normalizeConstraints() error {
	c := JobConstraints{}
	if s.Constraints != nil {
		c = *s.Constraints
	}
	if c.MaxWallClockTime == nil {
		unlimited := Unlimited
		c.MaxWallClockTime = &unlimited
	}
	if *c.MaxWallClockTime <= 0 {
		return InvalidValue("constraints.maxWallClockTime", *c.MaxWallClockTime, "It is longer than nothing")
	}
	if c.MaxTaskRetryCount == nil {
		c.MaxTaskRetryCount = new(int)
	}
	if err := checkRetries("constraints.maxTaskRetryCount", *c.MaxTaskRetryCount); err != nil {
		return err
	}
	s.Constraints = &c
	return nil
}

// NewJob makes the job of a normalized specification.
func NewJob(account AccountName, s JobSpecification, now time.Time) Job {
	return Job{
		JobSpecification: s, Account: account, Stamp: Stamp(now.UnixMicro()), CreationTime: now,
		State: JobActive, StateTransitionTime: now, StartTime: now,
	}
}

// move changes the state or says why it may not.
func (j *Job) move(to JobState, now time.Time) error {
	if !slices.Contains(jobMoves[j.State], to) {
		return j.refusal()
	}
	j.PreviousState, j.PreviousStateTransitionTime = j.State, j.StateTransitionTime
	j.State, j.StateTransitionTime = to, now
	j.Stamp = j.Stamp.Next(now)
	return nil
}

// refusal is the protocol's word for an operation that the state forbids.
func (j *Job) refusal() error {
	switch j.State {
	case JobDeleting:
		return Errorf(CodeJobBeingDeleted, "The specified job is being deleted.")
	case JobTerminating:
		return Errorf(CodeJobBeingTerminated, "The specified job is being terminated.")
	case JobCompleted:
		return Errorf(CodeJobCompleted, "The specified job is already in a completed state.")
	case JobDisabled, JobDisabling:
		return Errorf(CodeJobDisabled, "The specified job is disabled.")
	}
	return Errorf(CodeOperationInvalidForState, "The operation is invalid for the state %s of the job.", j.State)
}

// AwaitPool notes that tasks of the job wait for a pool that is not there.
func (j *Job) AwaitPool() {
	j.SchedulingError = &FailureInfo{
		Category: UserError, Code: FailureCode(CodePoolNotFound),
		Message: "The pool of the job does not exist. Its tasks wait until there is a pool of that id.",
		Details: []NameValue{{Name: "PoolId", Value: string(j.PoolInfo.PoolID)}},
	}
}

// AcceptsTasks refuses while the job ends or is deleted; a disabled job takes
// tasks and keeps them.
func (j *Job) AcceptsTasks() error {
	switch j.State {
	case JobTerminating, JobCompleted, JobDeleting:
		return j.refusal()
	}
	return nil
}

// RunsTasks tells whether the scheduler may start tasks of the job.
func (j *Job) RunsTasks() bool { return j.State == JobActive }

// MayStart tells whether the job may start one more task: it runs tasks, and
// nodes hold fewer of them than its limit of parallel tasks.
func (j *Job) MayStart() bool {
	return j.RunsTasks() && (*j.MaxParallelTasks < 0 || j.Bound < int64(*j.MaxParallelTasks))
}

// BeginDisable stops the job from starting tasks; it is Disabled once nothing
// of it runs.
func (j *Job) BeginDisable(option DisableTasks, now time.Time) error {
	if option == "" {
		return Missing("disableTasks")
	}
	if err := word("disableTasks", &option, DisableTasksRequeue, DisableTasksTerminate, DisableTasksWait); err != nil {
		return err
	}
	if err := j.move(JobDisabling, now); err != nil {
		return err
	}
	j.Disable = option
	return nil
}

// Disabled ends the disabling.
func (j *Job) Disabled(now time.Time) error { return j.move(JobDisabled, now) }

// Enable lets a disabled job run again. Enabling an active job is no error.
func (j *Job) Enable(now time.Time) error {
	switch j.State {
	case JobActive:
		return nil
	case JobDisabling:
		if err := j.move(JobDisabled, now); err != nil {
			return err
		}
	}
	if err := j.move(JobEnabling, now); err != nil {
		return err
	}
	j.Disable = ""
	return j.move(JobActive, now)
}

// BeginTerminate ends the job's tasks; it is completed when they are gone.
func (j *Job) BeginTerminate(reason string, now time.Time) error {
	if err := j.move(JobTerminating, now); err != nil {
		return err
	}
	j.TerminateReason = reason
	return nil
}

// Complete ends a terminating job.
func (j *Job) Complete(now time.Time) error {
	if err := j.move(JobCompleted, now); err != nil {
		return err
	}
	j.EndTime = now
	return nil
}

// BeginDelete marks the job; it is gone when its tasks are.
func (j *Job) BeginDelete(now time.Time) error { return j.move(JobDeleting, now) }

// AllDone tells whether the job must end because every task has completed.
func (j *Job) AllDone() bool {
	return j.OnAllTasksComplete == AllTasksTerminateJob && (j.State == JobActive || j.State == JobDisabled || j.State == JobDisabling) &&
		j.Counts.Active == 0 && j.Counts.Running == 0
}

// Settle makes the moves that follow from the job's counts, and tells whether
// there were any: a job without work ends if it is to, a disabling one is
// disabled and a terminating one complete once nothing of it is left to do.
func (j *Job) Settle(now time.Time) bool {
	before := j.State
	if j.AllDone() {
		_ = j.BeginTerminate(ReasonAllTasksCompleted, now) // legal in every state that AllDone accepts
	}
	switch {
	case j.State == JobDisabling && j.Bound == 0:
		_ = j.Disabled(now)
	case j.State == JobTerminating && j.Counts.Active+j.Counts.Running == 0:
		_ = j.Complete(now)
	}
	return j.State != before
}

// Expires is when the job's wall clock limit ends it; the zero time if never.
func (j *Job) Expires() time.Time {
	if *j.Constraints.MaxWallClockTime == Unlimited {
		return time.Time{}
	}
	return j.StartTime.Add(j.Constraints.MaxWallClockTime.Std()).Add(j.DatesSet)
}

// Patch changes what the patch carries.
func (j *Job) Patch(p JobPatch, now time.Time) error {
	next := j.JobSpecification
	setIf(&next.Priority, p.Priority)
	setIf(&next.AllowTaskPreemption, p.AllowTaskPreemption)
	setIf(&next.OnAllTasksComplete, p.OnAllTasksComplete)
	setIf(&next.Metadata, p.Metadata)
	setIf(&next.PoolInfo, p.PoolInfo)
	if p.MaxParallelTasks != nil {
		next.MaxParallelTasks = p.MaxParallelTasks
	}
	if p.Constraints != nil {
		next.Constraints = p.Constraints
	}
	if present(p.NetworkConfiguration) {
		next.NetworkConfiguration = p.NetworkConfiguration
	}
	return j.change(next, p.PoolInfo, now)
}

// Replace puts what the patch does not carry back to its default.
func (j *Job) Replace(p JobPatch, now time.Time) error {
	next := j.JobSpecification
	next.Priority, next.MaxParallelTasks, next.Constraints = 0, nil, nil
	next.AllowTaskPreemption, next.OnAllTasksComplete, next.Metadata = false, "", nil
	replaced := *j
	replaced.JobSpecification = next
	if err := replaced.Patch(p, now); err != nil {
		return err
	}
	*j = replaced
	return nil
}

func (j *Job) change(next JobSpecification, pool *PoolInfo, now time.Time) error {
	switch j.State {
	case JobTerminating, JobCompleted, JobDeleting:
		return j.refusal()
	}
	if pool != nil && present(pool.AutoPoolSpecification) {
		return NotSupported("poolInfo.autoPoolSpecification", "Auto pools are not supported by this release")
	}
	if pool != nil && Key(pool.PoolID) != Key(j.PoolInfo.PoolID) && j.State != JobDisabled {
		return Errorf(CodeOperationInvalidForState, "The pool of a job can be changed only while the job is disabled.")
	}
	if err := next.normalizeChangeable(); err != nil {
		return err
	}
	j.JobSpecification = next
	j.Stamp = j.Stamp.Next(now)
	return nil
}
