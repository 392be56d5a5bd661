package batch

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"
)

// TaskSpecification is what a client sends to add a task.
type TaskSpecification struct {
	ID                  TaskID               `json:"id"`
	DisplayName         string               `json:"displayName,omitempty"`
	CommandLine         string               `json:"commandLine"`
	ResourceFiles       []ResourceFile       `json:"resourceFiles,omitzero"`
	OutputFiles         []OutputFile         `json:"outputFiles,omitzero"`
	EnvironmentSettings []EnvironmentSetting `json:"environmentSettings,omitzero"`
	AffinityInfo        *AffinityInfo        `json:"affinityInfo,omitempty"`
	Constraints         *TaskConstraints     `json:"constraints,omitempty"`
	RequiredSlots       int                  `json:"requiredSlots"`
	UserIdentity        *UserIdentity        `json:"userIdentity,omitempty"`
	ExitConditions      *ExitConditions      `json:"exitConditions,omitempty"`

	// Refused unless empty.
	ContainerSettings            Opaque                       `json:"containerSettings,omitempty"`
	MultiInstanceSettings        Opaque                       `json:"multiInstanceSettings,omitempty"`
	DependsOn                    Opaque                       `json:"dependsOn,omitempty"`
	ApplicationPackageReferences []Opaque                     `json:"applicationPackageReferences,omitzero"`
	AuthenticationTokenSettings  *AuthenticationTokenSettings `json:"authenticationTokenSettings,omitempty"`
}

// AuthenticationTokenSettings asks for a token inside the task.
type AuthenticationTokenSettings struct {
	Access []string `json:"access,omitzero"`
}

// AffinityInfo names a node near which a task likes to run; it is a wish.
type AffinityInfo struct {
	AffinityID string `json:"affinityId"`
}

// TaskConstraints bound the runs of a task.
type TaskConstraints struct {
	// MaxWallClockTime bounds one run.
	MaxWallClockTime *Duration `json:"maxWallClockTime,omitempty"`
	// RetentionTime is how long files are kept after the task completed.
	RetentionTime *Duration `json:"retentionTime,omitempty"`
	// MaxTaskRetryCount n allows n+1 runs; -1 has no limit.
	MaxTaskRetryCount *int `json:"maxTaskRetryCount,omitempty"`
}

// ExitConditions say what an outcome does to the job.
type ExitConditions struct {
	ExitCodes          []ExitCodeMapping      `json:"exitCodes,omitempty"`
	ExitCodeRanges     []ExitCodeRangeMapping `json:"exitCodeRanges,omitempty"`
	PreProcessingError *ExitOptions           `json:"preProcessingError,omitempty"`
	FileUploadError    *ExitOptions           `json:"fileUploadError,omitempty"`
	Default            *ExitOptions           `json:"default,omitempty"`
}

// ExitCodeMapping is one exit code and what it does.
type ExitCodeMapping struct {
	Code        int         `json:"code"`
	ExitOptions ExitOptions `json:"exitOptions"`
}

// ExitCodeRangeMapping is a range of exit codes, ends included.
type ExitCodeRangeMapping struct {
	Start       int         `json:"start"`
	End         int         `json:"end"`
	ExitOptions ExitOptions `json:"exitOptions"`
}

// ExitOptions is what an outcome does.
type ExitOptions struct {
	JobAction JobAction `json:"jobAction,omitempty"`
	// DependencyAction acts on dependants, of which this release has none.
	DependencyAction string `json:"dependencyAction,omitempty"`
}

// JobAction is what a failed task does to its job.
type JobAction string

// Job actions.
const (
	JobActionNone      JobAction = "none"
	JobActionDisable   JobAction = "disable"
	JobActionTerminate JobAction = "terminate"
)

// TaskState is the life of a task.
type TaskState string

// States of a task.
const (
	TaskActive    TaskState = "active"
	TaskPreparing TaskState = "preparing"
	TaskRunning   TaskState = "running"
	TaskCompleted TaskState = "completed"
)

// taskMoves are the legal moves.
var taskMoves = map[TaskState][]TaskState{
	TaskActive:    {TaskPreparing, TaskRunning, TaskCompleted},
	TaskPreparing: {TaskRunning, TaskCompleted, TaskActive},
	TaskRunning:   {TaskCompleted, TaskActive},
	TaskCompleted: {TaskActive},
}

// TaskResult is success or failure.
type TaskResult string

// Results.
const (
	ResultSuccess TaskResult = "success"
	ResultFailure TaskResult = "failure"
)

// FailureInfo says why a task failed. Both the user and the service can be at
// fault.
type FailureInfo struct {
	Category FailureCategory `json:"category"`
	Code     FailureCode     `json:"code,omitempty"`
	Message  string          `json:"message,omitempty"`
	Details  []NameValue     `json:"details,omitempty"`
}

// FailureCategory is UserError or ServerError.
type FailureCategory string

// Categories of failures.
const (
	UserError   FailureCategory = "UserError"
	ServerError FailureCategory = "ServerError"
)

// FailureCode is the protocol's word for why a task failed.
type FailureCode string

// Failure codes of tasks (semantics: life cycles).
const (
	FailureExitCode              FailureCode = "FailureExitCode"
	FailureProgramNotFound       FailureCode = "CommandProgramNotFound"
	FailureCommandLaunch         FailureCode = "CommandLaunchFailed"
	FailureTaskEnded             FailureCode = "TaskEnded"
	FailureWallClock             FailureCode = "MaxWallClockTimeExpired"
	FailureBlobNotFound          FailureCode = "BlobNotFound"
	FailureBlobAccessDenied      FailureCode = "BlobAccessDenied"
	FailureBlobDownload          FailureCode = "BlobDownloadMiscError"
	FailureContainerAccessDenied FailureCode = "ResourceContainerAccessDenied"
	FailureContainerNotFound     FailureCode = "ResourceContainerNotFound"
	FailureUploadAccessDenied    FailureCode = "FileUploadAccessDenied"
	FailureUploadNoContainer     FailureCode = "FileUploadContainerNotFound"
	FailureUpload                FailureCode = "FileUploadMiscError"
	FailureDiskFull              FailureCode = "DiskFull"
	FailureOutOfMemory           FailureCode = "OutOfMemory"
	FailureUserNotFound          FailureCode = "UserAccountNotFound"
	FailureElevation             FailureCode = "ElevationNotAvailable"
	FailureNodeLost              FailureCode = "NodeLost"
	FailureResultUnknown         FailureCode = "ResultUnknown"
	// FailureMisfit is of a task that no node of its pool has slots enough for.
	// It is what the protocol says of such a task when it is added.
	FailureMisfit FailureCode = FailureCode(CodeInvalidPropertyValue)
)

// uploadFailures meet the fileUploadError exit condition.
var uploadFailures = []FailureCode{FailureUploadAccessDenied, FailureUploadNoContainer, FailureUpload}

// ExecutionInfo is the newest run of a task and its history in numbers.
type ExecutionInfo struct {
	StartTime       *Time        `json:"startTime,omitempty"`
	EndTime         *Time        `json:"endTime,omitempty"`
	ExitCode        *int         `json:"exitCode,omitempty"`
	FailureInfo     *FailureInfo `json:"failureInfo,omitempty"`
	RetryCount      int          `json:"retryCount"`
	LastRetryTime   *Time        `json:"lastRetryTime,omitempty"`
	RequeueCount    int          `json:"requeueCount"`
	LastRequeueTime *Time        `json:"lastRequeueTime,omitempty"`
	Result          TaskResult   `json:"result,omitempty"`
}

// Task is a task as the service knows it.
type Task struct {
	TaskSpecification
	Account                     AccountName
	Job                         JobID
	Stamp                       Stamp
	CreationTime                time.Time
	State                       TaskState
	StateTransitionTime         time.Time
	PreviousState               TaskState
	PreviousStateTransitionTime time.Time
	ExecutionInfo               ExecutionInfo
	// Sequence orders the tasks of a server by when they were added.
	Sequence int64
	// Pool and Node are where the task runs or ran; Node is empty before the
	// first run. Bound tells that the node holds the current attempt, also
	// before the task has started and while it is asked back.
	Pool  PoolID
	Node  NodeID
	Bound bool
	// Attempt grows with each binding and reactivation; reports of another attempt
	// are refused, and a node keeps the directory of one for the next alone.
	// It starts at Sequence, so that an attempt of an earlier task of the same
	// id is never taken for one of this.
	Attempt int
	// Release is set while the node is asked to give the attempt back.
	Release Release
	// FilesRemoved is set once the node was told to remove the task's files
	// because their retention is over.
	FilesRemoved bool
}

// TaskUpdate is the body of the update operation: constraints only.
type TaskUpdate struct {
	Constraints *TaskConstraints `json:"constraints,omitempty"`
}

const defaultRetention = 7 * Day

// Normalize fills defaults, which partly come from the job, and refuses what
// is not legal or not supported.
func (s *TaskSpecification) Normalize(job *JobSpecification) error {
	if reason := checkID(string(s.ID)); reason != "" {
		return InvalidValue("id", s.ID, "%s", reason)
	}
	if err := checkDisplayName(s.DisplayName); err != nil {
		return err
	}
	if err := checkCommandLine("commandLine", s.CommandLine); err != nil {
		return err
	}
	if err := s.refuseUnsupported(); err != nil {
		return err
	}
	if err := checkResourceFiles("resourceFiles", s.ResourceFiles); err != nil {
		return err
	}
	if err := normalizeOutputFiles("outputFiles", s.OutputFiles); err != nil {
		return err
	}
	if err := checkEnvironment("environmentSettings", s.EnvironmentSettings); err != nil {
		return err
	}
	if s.RequiredSlots == 0 {
		s.RequiredSlots = 1
	}
	if s.RequiredSlots < 1 || s.RequiredSlots > maxTaskSlots {
		return InvalidValue("requiredSlots", s.RequiredSlots, "It is 1 to %d and not more than the pool's taskSlotsPerNode", maxTaskSlots)
	}
	if err := s.normalizeConstraints(job); err != nil {
		return err
	}
	if err := s.ExitConditions.normalize(job.OnTaskFailure); err != nil {
		return err
	}
	var err error
	s.UserIdentity, err = normalizeUser("userIdentity", s.UserIdentity, ScopePool)
	return err
}

func (s *TaskSpecification) refuseUnsupported() error {
	switch {
	case present(s.ContainerSettings):
		return NotSupported("containerSettings", "Containers are not supported by this release")
	case present(s.MultiInstanceSettings):
		return NotSupported("multiInstanceSettings", "Multi-instance tasks are not supported by this release")
	case present(s.DependsOn):
		return NotSupported("dependsOn", "Task dependencies are not supported by this release")
	case len(s.ApplicationPackageReferences) > 0:
		return NotSupported("applicationPackageReferences", "Application packages are not supported by this release; use resourceFiles")
	case s.AuthenticationTokenSettings != nil && len(s.AuthenticationTokenSettings.Access) > 0:
		return NotSupported("authenticationTokenSettings", "Tokens inside tasks are not supported by this release")
	}
	return nil
}

func (s *TaskSpecification) normalizeConstraints(job *JobSpecification) error {
	c := TaskConstraints{}
	if s.Constraints != nil {
		c = *s.Constraints
	}
	if c.MaxWallClockTime == nil {
		unlimited := Unlimited
		c.MaxWallClockTime = &unlimited
	}
	if c.RetentionTime == nil {
		retention := defaultRetention
		c.RetentionTime = &retention
	}
	if c.MaxTaskRetryCount == nil {
		retries := *job.Constraints.MaxTaskRetryCount
		c.MaxTaskRetryCount = &retries
	}
	switch {
	case *c.MaxWallClockTime <= 0:
		return InvalidValue("constraints.maxWallClockTime", *c.MaxWallClockTime, "It is longer than nothing")
	case *c.RetentionTime < 0:
		return InvalidValue("constraints.retentionTime", *c.RetentionTime, "It is not negative")
	}
	if err := checkRetries("constraints.maxTaskRetryCount", *c.MaxTaskRetryCount); err != nil {
		return err
	}
	s.Constraints = &c
	return nil
}

// checkRetries refuses counts of retries that are none, or that the 32 bits of
// clients do not hold: one such task would keep them from reading a list.
func checkRetries(property string, n int) error {
	if n < -1 || n > math.MaxInt32 {
		return InvalidValue(property, n, "It is -1 (no limit) or 0 to %d", math.MaxInt32)
	}
	return nil
}

func (c *ExitConditions) normalize(act OnTaskFailure) error {
	if c == nil {
		return nil
	}
	for i := range c.ExitCodes {
		if err := c.ExitCodes[i].ExitOptions.normalize(act, fmt.Sprintf("exitConditions.exitCodes[%d].exitOptions", i)); err != nil {
			return err
		}
	}
	for i := range c.ExitCodeRanges {
		r := &c.ExitCodeRanges[i]
		at := fmt.Sprintf("exitConditions.exitCodeRanges[%d]", i)
		if r.End < r.Start {
			return InvalidValue(at+".end", r.End, "It is not below the start %d", r.Start)
		}
		if err := r.ExitOptions.normalize(act, at+".exitOptions"); err != nil {
			return err
		}
	}
	for name, o := range map[string]*ExitOptions{"preProcessingError": c.PreProcessingError, "fileUploadError": c.FileUploadError, "default": c.Default} {
		if err := o.normalize(act, "exitConditions."+name); err != nil {
			return err
		}
	}
	return nil
}

// normalize refuses an action that the job would not take.
func (o *ExitOptions) normalize(act OnTaskFailure, at string) error {
	if o == nil {
		return nil
	}
	if o.DependencyAction != "" {
		return NotSupported(at+".dependencyAction", "Task dependencies are not supported by this release")
	}
	if o.JobAction == "" {
		return nil
	}
	if err := word(at+".jobAction", &o.JobAction, JobActionNone, JobActionDisable, JobActionTerminate); err != nil {
		return err
	}
	if act != TaskFailurePerform {
		return InvalidValue(at+".jobAction", o.JobAction, "It needs a job whose onTaskFailure is %s", TaskFailurePerform)
	}
	return nil
}

// NewTask makes the task of a normalized specification; sequence orders it
// among the tasks of the server.
func NewTask(job *Job, s TaskSpecification, sequence int64, now time.Time) Task {
	return Task{
		TaskSpecification: s, Account: job.Account, Job: job.ID, Stamp: Stamp(now.UnixMicro()),
		CreationTime: now, State: TaskActive, StateTransitionTime: now, Pool: job.PoolInfo.PoolID,
		Sequence: sequence, Attempt: int(sequence),
	}
}

// FilesExpire is when the files of a completed task may be removed from its
// node; the zero time while there are none to remove or no end to their stay. It
// counts from when the service knows of the end: clocks of nodes differ.
func (t *Task) FilesExpire() time.Time {
	retention := *t.Constraints.RetentionTime
	if t.State != TaskCompleted || t.Node == "" || t.FilesRemoved || retention == Unlimited {
		return time.Time{}
	}
	return t.StateTransitionTime.Add(retention.Std())
}

// KeepsFiles tells whether the files of a completed task stay on its node until
// somebody removes task or node.
func (t *Task) KeepsFiles() bool {
	return t.State == TaskCompleted && t.Node != "" && !t.FilesRemoved && *t.Constraints.RetentionTime == Unlimited
}

// Run is what a node needs to run the task; common settings of the job come
// first, the task's own win.
func (s *TaskSpecification) Run(job *JobSpecification) *TaskRun {
	settings := slices.Clone(job.CommonEnvironmentSettings)
	settings = append(settings, s.EnvironmentSettings...)
	return &TaskRun{
		CommandLine: s.CommandLine, ResourceFiles: s.ResourceFiles, OutputFiles: s.OutputFiles,
		EnvironmentSettings: settings, UserIdentity: s.UserIdentity, RequiredSlots: s.RequiredSlots,
		MaxWallClockTime: *s.Constraints.MaxWallClockTime, RetentionTime: *s.Constraints.RetentionTime,
	}
}

// move changes the state or says that it may not.
func (t *Task) move(to TaskState, now time.Time) error {
	if !slices.Contains(taskMoves[t.State], to) {
		if t.State == TaskCompleted {
			return Errorf(CodeTaskCompleted, "The specified task is already in a completed state.")
		}
		return Errorf(CodeOperationInvalidForState, "The operation is invalid for the state %s of the task.", t.State)
	}
	t.PreviousState, t.PreviousStateTransitionTime = t.State, t.StateTransitionTime
	t.State, t.StateTransitionTime = to, now
	t.Stamp = t.Stamp.Next(now)
	return nil
}

// Bind gives the task to a node as a new attempt. It stays active until the
// node reports that it has begun.
func (t *Task) Bind(node NodeID) error {
	if !t.Waits() {
		return Errorf(CodeOperationInvalidForState, "The task is not waiting for a node.")
	}
	t.Node, t.Bound, t.Release = node, true, ""
	t.Attempt++
	return nil
}

// Waits tells whether the task waits for a node.
func (t *Task) Waits() bool { return t.State == TaskActive && !t.Bound }

// unbind frees the task from its node; where it ran stays known.
func (t *Task) unbind() { t.Bound, t.Release = false, "" }

// Start notes that the bound attempt has begun, as its node says, whose clock may
// be another: not before the task was queued, and not later than now.
func (t *Task) Start(start, now time.Time) error {
	if t.State == TaskRunning {
		return nil
	}
	if err := t.move(TaskRunning, now); err != nil {
		return err
	}
	begun := At(within(t.PreviousStateTransitionTime, start, now))
	t.FilesRemoved = false // those of an earlier run: now there are new ones
	t.ExecutionInfo.StartTime, t.ExecutionInfo.EndTime = &begun, nil
	t.ExecutionInfo.ExitCode, t.ExecutionInfo.FailureInfo, t.ExecutionInfo.Result = nil, nil, ""
	return nil
}

// Finish takes the outcome of the bound attempt: completed, or active again
// while retries remain. The second value is the number of retries used, which
// is only of interest to logs.
func (t *Task) Finish(start time.Time, o Outcome, now time.Time) error {
	if err := t.Start(start, now); err != nil {
		return err
	}
	info := &t.ExecutionInfo
	end := At(within(info.StartTime.Time, o.End.Time, now))
	info.EndTime, info.ExitCode, info.FailureInfo = &end, o.ExitCode, o.Failure
	t.unbind()
	if o.Failure == nil {
		info.Result = ResultSuccess
		return t.move(TaskCompleted, now)
	}
	info.Result = ResultFailure
	if limit := *t.Constraints.MaxTaskRetryCount; retryable(o.Failure) && (limit < 0 || info.RetryCount < limit) {
		info.RetryCount++
		retried := At(now)
		info.LastRetryTime = &retried
		return t.move(TaskActive, now)
	}
	return t.move(TaskCompleted, now)
}

// within is a time of another clock, put between two times of ours.
func within(first, t, last time.Time) time.Time {
	switch {
	case t.Before(first):
		return first
	case t.After(last):
		return last
	}
	return t
}

// retryable tells whether a failure is one for which the command runs again: an
// exit code, a launch or a fetch. Not one of them is an end that somebody asked
// for, nor output that could not be uploaded, which the node has tried again
// itself: the command has done its part.
func retryable(f *FailureInfo) bool {
	return f.Code != FailureTaskEnded && !slices.Contains(uploadFailures, f.Code)
}

// Requeue puts the task back after its node gave it back or was lost. A task
// that had begun counts it; its retries stay. One that is completed stays so.
func (t *Task) Requeue(now time.Time) error {
	if t.State == TaskCompleted {
		return Errorf(CodeTaskCompleted, "The specified task is already in a completed state.")
	}
	t.unbind()
	if t.State == TaskActive {
		t.Stamp = t.Stamp.Next(now)
		return nil
	}
	if err := t.move(TaskActive, now); err != nil {
		return err
	}
	requeued := At(now)
	t.ExecutionInfo.RequeueCount++
	t.ExecutionInfo.LastRequeueTime = &requeued
	return nil
}

// End completes a task that somebody ended: a user, or the end of its job.
func (t *Task) End(message string, now time.Time) error {
	if err := t.move(TaskCompleted, now); err != nil {
		return err
	}
	t.unbind()
	ended := At(now)
	info := &t.ExecutionInfo
	info.EndTime, info.ExitCode, info.Result = &ended, nil, ResultFailure
	info.FailureInfo = &FailureInfo{Category: UserError, Code: FailureTaskEnded, Message: message}
	return nil
}

// Misfit completes a task that waits and needs more slots than a node of its
// job's pool has: it failed, before anything of it was run.
func (t *Task) Misfit(pool PoolID, nodeSlots int, now time.Time) error {
	if !t.Waits() {
		return Errorf(CodeOperationInvalidForState, "The task is not waiting for a node.")
	}
	if err := t.move(TaskCompleted, now); err != nil {
		return err
	}
	t.unbind()
	ended := At(now)
	info := &t.ExecutionInfo
	info.EndTime, info.ExitCode, info.Result = &ended, nil, ResultFailure
	info.FailureInfo = &FailureInfo{
		Category: UserError, Code: FailureMisfit,
		Message: "The task needs more task slots than the compute nodes of its pool have.",
		Details: []NameValue{
			{Name: "PropertyName", Value: "requiredSlots"}, {Name: "PropertyValue", Value: strconv.Itoa(t.RequiredSlots)},
			{Name: "Reason", Value: fmt.Sprintf("The compute nodes of pool %s have %d task slots each", pool, nodeSlots)},
		},
	}
	return nil
}

// Bounds of how often agents may die under a task before it is set aside: on so
// many nodes, or so often by themselves wherever that was. One node may be to
// blame itself; a pool may have no more than one.
const (
	maxDeadNodes = 3
	maxCrashes   = 5
)

// Poisonous tells whether a task under which agents died, on some nodes and some
// of them by themselves, is to be set aside.
func Poisonous(nodes, crashes int) bool { return nodes >= maxDeadNodes || crashes >= maxCrashes }

// SetAside completes a task under which the agents of so many nodes died, so that
// it ends no more of them.
func (t *Task) SetAside(nodes int, now time.Time) error {
	message := fmt.Sprintf("The agents of %d compute nodes ended while they worked on the task", nodes)
	if nodes == 1 {
		message = "The agent of the compute node ended again and again while it worked on the task"
	}
	if err := t.End(message, now); err != nil {
		return err
	}
	t.ExecutionInfo.FailureInfo = &FailureInfo{
		Category: ServerError, Code: FailureNodeLost, Message: message,
		Details: []NameValue{{Name: "Message", Value: "It was set aside so that it ends no others; reactivate it to have it tried again."}},
	}
	return nil
}

// Reactivate queues a completed, failed task again and clears its retries. What
// made it fail may have been mended since, in its resource files above all: its
// next attempt follows no other, so that it begins anew on every node.
func (t *Task) Reactivate(now time.Time) error {
	if t.State != TaskCompleted {
		return Errorf(CodeTaskNotCompleted, "The specified task is not in a completed state.")
	}
	if t.ExecutionInfo.Result == ResultSuccess {
		return Errorf(CodeTaskCompleted, "The specified task completed successfully and cannot be reactivated.")
	}
	if err := t.move(TaskActive, now); err != nil {
		return err
	}
	t.Attempt++
	info := &t.ExecutionInfo
	info.RetryCount, info.LastRetryTime = 0, nil
	info.ExitCode, info.FailureInfo, info.Result, info.EndTime = nil, nil, "", nil
	return nil
}

// Update changes constraints; what is missing goes back to its default.
func (t *Task) Update(u TaskUpdate, job *JobSpecification, now time.Time) error {
	if t.State == TaskCompleted {
		return Errorf(CodeTaskCompleted, "The specified task is already in a completed state.")
	}
	next := t.TaskSpecification
	next.Constraints = u.Constraints
	if err := next.normalizeConstraints(job); err != nil {
		return err
	}
	t.TaskSpecification = next
	t.Stamp = t.Stamp.Next(now)
	return nil
}

// JobAction is what the completed task does to its job, by its exit
// conditions: codes, ranges, pre-processing error, upload error, default. A
// condition that names no action terminates the job, unless the task
// succeeded; one that succeeded meets only conditions that list its code.
func (t *Task) JobAction() JobAction {
	c, info := t.ExitConditions, t.ExecutionInfo
	if c == nil {
		return JobActionNone
	}
	switch o := c.match(info); {
	case o == nil, o.JobAction == "" && info.Result == ResultSuccess:
		return JobActionNone
	case o.JobAction == "":
		return JobActionTerminate
	default:
		return o.JobAction
	}
}

func (c *ExitConditions) match(info ExecutionInfo) *ExitOptions {
	upload := info.FailureInfo != nil && slices.Contains(uploadFailures, info.FailureInfo.Code)
	switch {
	case info.ExitCode != nil && !upload:
		for i := range c.ExitCodes {
			if c.ExitCodes[i].Code == *info.ExitCode {
				return &c.ExitCodes[i].ExitOptions
			}
		}
		for i := range c.ExitCodeRanges {
			if r := &c.ExitCodeRanges[i]; r.Start <= *info.ExitCode && *info.ExitCode <= r.End {
				return &r.ExitOptions
			}
		}
	case upload && c.FileUploadError != nil:
		return c.FileUploadError
	case info.ExitCode == nil && c.PreProcessingError != nil:
		return c.PreProcessingError
	}
	if info.Result == ResultSuccess {
		return nil
	}
	return c.Default
}
