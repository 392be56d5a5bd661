package batch

import (
	"slices"
	"time"
)

// NodeState is what a compute node is doing.
type NodeState string

// States of a compute node.
const (
	NodeCreating        NodeState = "creating"
	NodeStarting        NodeState = "starting"
	NodeWaitingForStart NodeState = "waitingforstarttask"
	NodeStartTaskFailed NodeState = "starttaskfailed"
	NodeIdle            NodeState = "idle"
	NodeRunning         NodeState = "running"
	NodeRebooting       NodeState = "rebooting"
	NodeReimaging       NodeState = "reimaging"
	NodeLeavingPool     NodeState = "leavingpool"
	NodeOffline         NodeState = "offline"
	NodeUnknown         NodeState = "unknown"
	NodeUnusable        NodeState = "unusable"
	NodePreempted       NodeState = "preempted"
)

// NodeStates are all of them, in the order of a node's life.
var NodeStates = []NodeState{
	NodeCreating, NodeStarting, NodeWaitingForStart, NodeStartTaskFailed, NodeIdle, NodeRunning, NodeRebooting,
	NodeReimaging, NodeLeavingPool, NodeOffline, NodeUnknown, NodeUnusable, NodePreempted,
}

// nodeMoves are the legal moves. Unknown remembers nothing: a node that comes
// back reports what it is. A node in service starts again without a reboot if
// its agent has lost its folder.
var nodeMoves = map[NodeState][]NodeState{
	NodeCreating:        {NodeStarting, NodeWaitingForStart, NodeStartTaskFailed, NodeIdle, NodeRunning, NodeOffline, NodeLeavingPool, NodeUnknown, NodeUnusable},
	NodeStarting:        {NodeWaitingForStart, NodeStartTaskFailed, NodeIdle, NodeRunning, NodeOffline, NodeLeavingPool, NodeUnknown, NodeUnusable, NodeRebooting, NodeReimaging},
	NodeWaitingForStart: {NodeStartTaskFailed, NodeIdle, NodeRunning, NodeOffline, NodeLeavingPool, NodeUnknown, NodeUnusable, NodeRebooting, NodeReimaging},
	NodeStartTaskFailed: {NodeStarting, NodeWaitingForStart, NodeRunning, NodeOffline, NodeIdle, NodeRebooting, NodeReimaging, NodeLeavingPool, NodeUnknown, NodeUnusable},
	NodeIdle:            {NodeStarting, NodeWaitingForStart, NodeStartTaskFailed, NodeRunning, NodeOffline, NodeRebooting, NodeReimaging, NodeLeavingPool, NodeUnknown, NodeUnusable, NodePreempted},
	NodeRunning:         {NodeStarting, NodeWaitingForStart, NodeStartTaskFailed, NodeIdle, NodeOffline, NodeRebooting, NodeReimaging, NodeLeavingPool, NodeUnknown, NodeUnusable, NodePreempted},
	NodeRebooting:       {NodeStarting, NodeWaitingForStart, NodeStartTaskFailed, NodeIdle, NodeRunning, NodeOffline, NodeLeavingPool, NodeUnknown, NodeUnusable, NodeReimaging},
	NodeReimaging:       {NodeStarting, NodeWaitingForStart, NodeStartTaskFailed, NodeIdle, NodeRunning, NodeOffline, NodeLeavingPool, NodeUnknown, NodeUnusable, NodeRebooting},
	NodeOffline:         {NodeStarting, NodeWaitingForStart, NodeStartTaskFailed, NodeIdle, NodeRunning, NodeRebooting, NodeReimaging, NodeLeavingPool, NodeUnknown, NodeUnusable},
	NodeUnknown:         {NodeStarting, NodeWaitingForStart, NodeStartTaskFailed, NodeIdle, NodeRunning, NodeOffline, NodeRebooting, NodeReimaging, NodeLeavingPool, NodeUnusable},
	NodeUnusable:        {NodeStarting, NodeWaitingForStart, NodeStartTaskFailed, NodeIdle, NodeRunning, NodeOffline, NodeRebooting, NodeReimaging, NodeLeavingPool, NodeUnknown},
	NodePreempted:       {NodeLeavingPool, NodeUnknown, NodeStarting},
	NodeLeavingPool:     nil,
}

// SchedulingState tells whether a node takes new tasks.
type SchedulingState string

// Scheduling states.
const (
	SchedulingEnabled  SchedulingState = "enabled"
	SchedulingDisabled SchedulingState = "disabled"
)

// DisableSchedulingOption says what becomes of the tasks of a node whose
// scheduling is disabled.
type DisableSchedulingOption string

// Options of disabling.
const (
	DisableRequeue        DisableSchedulingOption = "requeue"
	DisableTerminate      DisableSchedulingOption = "terminate"
	DisableTaskCompletion DisableSchedulingOption = "taskcompletion"
)

// RebootOption says what becomes of tasks when a node is rebooted or reimaged.
type RebootOption string

// Options of reboot and reimage; see NodeDeallocationOption for the meanings.
const (
	RebootRequeue        RebootOption = "requeue"
	RebootTerminate      RebootOption = "terminate"
	RebootTaskCompletion RebootOption = "taskcompletion"
	RebootRetainedData   RebootOption = "retaineddata"
)

// NormalizeRebootOption brings the word to its casing; requeue is the default.
func NormalizeRebootOption(property string, o *RebootOption) error {
	return word(property, o, RebootRequeue, RebootTerminate, RebootTaskCompletion, RebootRetainedData)
}

// NormalizeDisableOption brings the word to its casing; requeue is the default.
func NormalizeDisableOption(o *DisableSchedulingOption) error {
	return word("nodeDisableSchedulingOption", o, DisableRequeue, DisableTerminate, DisableTaskCompletion)
}

// Node is a compute node as the service knows it.
type Node struct {
	ID                  NodeID
	Account             AccountName
	Pool                PoolID
	State               NodeState
	SchedulingState     SchedulingState
	StateTransitionTime time.Time
	LastBootTime        time.Time
	AllocationTime      time.Time
	IPAddress           string
	VMSize              string
	Dedicated           bool
	// Slots is how many task slots it has, its pool's taskSlotsPerNode.
	Slots               int
	TotalTasksRun       int
	TotalTasksSucceeded int
	// Running counts are of tasks that are bound to the node and have started.
	RunningTasks, RunningSlots int
	// BoundTasks and BoundSlots are of all tasks bound to the node, begun or
	// not; more slots than the node has are tasks that wait there for a slot.
	BoundTasks, BoundSlots int
	// Ahead is how many slots of tasks were worth having wait on the node at
	// AheadTime, so that it does not idle. It fades from then on.
	Ahead         float64
	AheadTime     time.Time
	StartTask     *StartTask
	StartTaskInfo *StartTaskInfo
	// Errors are its troubles as its agent told them last. Unfit tells that it
	// takes no tasks because of them: it is unusable, but in contact.
	// Notices are what the server has to say of it.
	Errors       []NodeError
	Notices      []NodeError
	Unfit        bool
	AgentVersion string
	AgentTime    time.Time
	Recent       []RecentTask

	// Revision is the number of the orders that the node should be at.
	Revision int64
	// Settings is the version of the settings that the node should have.
	Settings int64
	// Boot and Image count requested reboots and reimages; BootDone is the
	// boot that the agent last reported as finished.
	Boot, Image, BootDone int
	// PendingReboot is set while tasks finish before a reboot, or before a
	// reimage if PendingReimage.
	PendingReboot  RebootOption
	PendingReimage bool
	// Leaving says what becomes of its tasks while the node leaves its pool.
	Leaving NodeDeallocationOption
	// HoldUntil is when the retention of the last files on the node is over, if
	// it waits for that before it leaves or boots and holds no task any more.
	HoldUntil time.Time
	// Kept tells that there are files without a limit of retention, so that the
	// node stays until task or node are removed; HoldUntil is then when that is
	// looked at again.
	Kept bool
	// TokenHash is the hash of the secret that the node's agent shows.
	TokenHash []byte
	// Instance is the agent process that was heard last.
	Instance string
}

// RecentTask is one of the last ten tasks of a node.
type RecentTask struct {
	Job           JobID         `json:"jobId"`
	Task          TaskID        `json:"taskId"`
	State         TaskState     `json:"taskState"`
	ExecutionInfo ExecutionInfo `json:"executionInfo"`
}

// MaxRecentTasks is how many recent tasks a node shows.
const MaxRecentTasks = 10

// NodeError is a trouble of a node in words.
type NodeError struct {
	Code         string      `json:"code"`
	Message      string      `json:"message"`
	ErrorDetails []NameValue `json:"errorDetails,omitempty"`
}

// StartTaskState is running or completed.
type StartTaskState string

// States of a start task.
const (
	StartTaskRunning   StartTaskState = "running"
	StartTaskCompleted StartTaskState = "completed"
)

// StartTaskInfo is the newest run of a node's start task.
type StartTaskInfo struct {
	State         StartTaskState `json:"state"`
	StartTime     Time           `json:"startTime"`
	EndTime       *Time          `json:"endTime,omitempty"`
	ExitCode      *int           `json:"exitCode,omitempty"`
	FailureInfo   *FailureInfo   `json:"failureInfo,omitempty"`
	RetryCount    int            `json:"retryCount"`
	LastRetryTime *Time          `json:"lastRetryTime,omitempty"`
	Result        TaskResult     `json:"result,omitempty"`
}

// NewNode makes a node of the pool that nobody has heard of yet. Its first boot
// is asked for from the start.
func NewNode(p *Pool, id NodeID, dedicated bool, now time.Time) Node {
	return Node{
		ID: id, Account: p.Account, Pool: p.ID, State: NodeCreating, StateTransitionTime: now,
		SchedulingState: SchedulingEnabled, AllocationTime: now, VMSize: p.VMSize, Dedicated: dedicated,
		Slots: p.TaskSlotsPerNode, StartTask: p.StartTask, Revision: 1, Settings: int64(p.Stamp), Boot: 1,
	}
}

// Reboot asks for one more boot, with the start task that the pool has now;
// a reimage wipes the node first. Settings is the new version of its settings.
func (n *Node) Reboot(p *Pool, reimage bool, settings int64, now time.Time) {
	state := NodeRebooting
	if reimage {
		state = NodeReimaging
		n.Image++
	}
	n.Boot++
	n.PendingReboot, n.PendingReimage, n.HoldUntil, n.Kept = "", false, time.Time{}, false
	n.Settle(NoticeRetained)
	n.StartTask, n.StartTaskInfo, n.Settings = p.StartTask, nil, settings
	n.Move(state, now)
}

// Retains tells whether the node waits for the retention of files before it
// leaves or boots.
func (n *Node) Retains() bool {
	return n.Leaving == DeallocateRetainedData || n.PendingReboot == RebootRetainedData
}

// Vacant tells whether a node that waits before it leaves or boots may do so.
func (n *Node) Vacant(now time.Time) bool {
	return n.BoundTasks == 0 && (!n.Retains() || !n.Kept && !n.HoldUntil.IsZero() && !now.Before(n.HoldUntil))
}

// HoldIsDue tells whether the node waits for the retention of files of which
// nothing is known yet, or which are kept and may have been removed since.
func (n *Node) HoldIsDue(now time.Time) bool {
	return n.BoundTasks == 0 && n.Retains() && (n.HoldUntil.IsZero() || n.Kept && !now.Before(n.HoldUntil))
}

// keptPause is how often it is asked whether files without a limit of retention
// are still there.
const keptPause = time.Minute

// Hold notes until when files are retained, the zero time if there are none;
// kept tells that some have no limit.
func (n *Node) Hold(until time.Time, kept bool, now time.Time) {
	n.Kept = kept
	switch {
	case kept:
		n.HoldUntil = now.Add(keptPause)
		n.Notice(NodeError{Code: NoticeRetained, Message: "The node stays because it has files of tasks whose retention has no limit: " +
			"delete the tasks, or remove the node with another option."})
		return
	case until.IsZero():
		until = now
	}
	n.HoldUntil = until
	n.Settle(NoticeRetained)
}

// Codes of what the server has to say about a node.
const (
	NoticeRetained = "RetainedData"
	NoticeNotHeard = "AgentNotHeard"
)

// Notice notes something that the server has to say about the node, and tells
// whether that is new.
func (n *Node) Notice(e NodeError) bool {
	e = e.Bounded()
	for i := range n.Notices {
		if n.Notices[i].Code == e.Code {
			changed := n.Notices[i].Message != e.Message
			n.Notices[i] = e
			return changed
		}
	}
	n.Notices = append(n.Notices, e)
	return true
}

// Settle takes back what was said, and tells whether there was anything.
func (n *Node) Settle(code string) bool {
	before := len(n.Notices)
	n.Notices = slices.DeleteFunc(n.Notices, func(e NodeError) bool { return e.Code == code })
	return len(n.Notices) < before
}

// Troubles are the errors that the node shows: its own and what the server has
// to say.
func (n *Node) Troubles() []NodeError { return slices.Concat(n.Errors, n.Notices) }

// InContact tells whether the node's own reports say what its state is, rather
// than somebody's judgement about it.
func (n *Node) InContact() bool {
	switch n.State {
	case NodeCreating, NodeUnknown, NodePreempted:
		return false
	case NodeUnusable:
		return n.Unfit
	}
	return true
}

// Lose notes that nobody is in contact with the node any more, so that what it
// said of its troubles counts no longer; to is unknown or unusable. It tells
// whether anything changed.
func (n *Node) Lose(to NodeState, now time.Time) bool {
	unfit := n.Unfit
	n.Unfit = false
	return n.Move(to, now) || unfit
}

// Move changes the state if that is legal and tells whether it did; moving to
// the present state is no change.
func (n *Node) Move(to NodeState, now time.Time) bool {
	if n.State == to || !slices.Contains(nodeMoves[n.State], to) {
		return false
	}
	n.State, n.StateTransitionTime = to, now
	return true
}

// Settled is the state that follows from what a node reported and what is
// wanted of it; it is the one rule for nodes that are in contact.
func (n *Node) Settled() NodeState {
	wait := n.StartTask != nil && n.StartTask.WaitForSuccess != nil && *n.StartTask.WaitForSuccess
	switch {
	case n.State == NodeLeavingPool || n.Leaving != "":
		return NodeLeavingPool
	case n.BootDone < n.Boot && (n.State == NodeRebooting || n.State == NodeReimaging):
		return n.State
	case n.Unfit:
		return NodeUnusable
	case n.BootDone < n.Boot && wait && n.StartTaskInfo != nil:
		return NodeWaitingForStart
	case n.BootDone < n.Boot:
		return NodeStarting
	case wait && n.StartTaskInfo != nil && n.StartTaskInfo.State == StartTaskRunning:
		return NodeWaitingForStart
	case wait && n.StartTaskInfo != nil && n.StartTaskInfo.Result == ResultFailure:
		return NodeStartTaskFailed
	case n.RunningTasks > 0:
		return NodeRunning
	case n.SchedulingState == SchedulingDisabled:
		return NodeOffline
	}
	return NodeIdle
}

// TakesTasks tells whether the scheduler may bind tasks to the node.
func (n *Node) TakesTasks() bool {
	return n.SchedulingState == SchedulingEnabled && n.PendingReboot == "" && n.Leaving == "" &&
		(n.State == NodeIdle || n.State == NodeRunning)
}

// NodeCounts are the nodes of a pool by state, as the node counts operation
// shows them.
type NodeCounts map[NodeState]int

// PoolNodeCounts are the counts of one pool.
type PoolNodeCounts struct {
	Pool                   PoolID
	Dedicated, LowPriority NodeCounts
}
