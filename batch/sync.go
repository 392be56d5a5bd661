package batch

// NodeReport is what an agent says in its one call: which orders it has seen,
// what each of its tasks is doing, and what it learned about itself. It is a
// state; sending it twice changes nothing.
type NodeReport struct {
	// Revision of the newest orders that the agent has applied; 0 at first.
	Revision int64 `json:"revision"`
	// Settings is the version of the node settings that the agent has.
	Settings int64 `json:"settings,omitzero"`
	// Instance is made anew by each agent process. A call of an older instance
	// is refused once a newer one was heard.
	Instance string `json:"instance"`
	// Number counts the reports of an instance. Calls overlap, so one may come
	// after a newer one; what it says is then out of date. 0: not counted.
	Number int64 `json:"number,omitzero"`
	// Changes tells that the agent takes orders of what changed, see
	// NodeOrders. Its reports then have those attempts of which there is news
	// since the last report that was answered, unless Whole is set. Epoch is
	// what the orders of Revision said.
	Changes bool   `json:"changes,omitzero"`
	Whole   bool   `json:"whole,omitzero"`
	Epoch   string `json:"epoch,omitempty"`
	// RemovalsTo is the highest number of the removals that the agent has got
	// in this epoch, and RemovalRoom how many more it takes.
	RemovalsTo  int64 `json:"removalsTo,omitzero"`
	RemovalRoom int   `json:"removalRoom,omitzero"`
	// Boot is the last boot (start task included) that the agent has finished.
	Boot int `json:"boot"`
	// Booting is set while a boot is under way: agent is up, start task not yet
	// done.
	Booting bool `json:"booting,omitzero"`
	// StartTask is the newest run of the start task, nil when there is none.
	StartTask *StartTaskInfo `json:"startTask,omitempty"`
	// Tasks are attempts that the agent holds: not started, running, or ended
	// and not yet accepted by the server. All of them, but see Changes.
	Tasks []TaskReport `json:"tasks,omitempty"`
	// Removed are the removals of the last orders that are done.
	Removed []int64 `json:"removed,omitempty"`
	// Errors are the troubles of the node as they are now, in words for whoever
	// looks at it.
	Errors []NodeError `json:"errors,omitempty"`
	// Unfit tells that because of them the node takes no tasks for now: those
	// that it had not begun are given back, those that run go on.
	Unfit bool `json:"unfit,omitzero"`
	// Left is set when the agent was ordered to leave and holds nothing more.
	Left bool `json:"left,omitzero"`
	// Agent describes the program and its machine; sent with revision 0 and
	// when it changes.
	Agent *AgentInfo `json:"agent,omitempty"`
	// NoWait asks for an answer at once.
	NoWait bool `json:"noWait,omitzero"`
}

// AgentInfo describes an agent and its machine.
type AgentInfo struct {
	Version string `json:"version"`
	// IPAddress is where other nodes of the pool reach this one.
	IPAddress string `json:"ipAddress"`
	Hostname  string `json:"hostname"`
	// Unenforced says in words which limits this machine cannot enforce.
	Unenforced []string `json:"unenforced,omitempty"`
}

// TaskPhase is where an attempt stands on its node.
type TaskPhase string

// Phases of an attempt. Held and Running are progress; Ended and Released are
// final and repeated until the orders no longer name the attempt.
const (
	// PhaseHeld: known, its command not begun.
	PhaseHeld TaskPhase = "held"
	// PhaseRunning: fetching resource files, running the command, or uploading.
	PhaseRunning TaskPhase = "running"
	// PhaseEnded: over, with a result.
	PhaseEnded TaskPhase = "ended"
	// PhaseReleased: given back on request; nothing of it runs any more.
	PhaseReleased TaskPhase = "released"
)

// TaskReport is one attempt on its node.
type TaskReport struct {
	Job     JobID     `json:"job"`
	Task    TaskID    `json:"task"`
	Attempt int       `json:"attempt"`
	Phase   TaskPhase `json:"phase"`
	// Start is when fetching or running began; set from PhaseRunning on.
	Start *Time `json:"start,omitempty"`
	// Died is set with PhaseReleased when the agent before this one died under
	// the attempt.
	Died Death `json:"died,omitempty"`
	// Outcome is set with PhaseEnded.
	Outcome *Outcome `json:"outcome,omitempty"`
}

// Death is how an agent died under an attempt.
type Death string

// Deaths of agents.
const (
	// DeathCrash: by itself, while it worked on the attempt.
	DeathCrash Death = "crash"
	// DeathLost: with all that ran on its node.
	DeathLost Death = "lost"
)

// Outcome is how a run of a task ended.
type Outcome struct {
	End Time `json:"end"`
	// ExitCode is nil when the command never ran.
	ExitCode *int         `json:"exitCode,omitempty"`
	Failure  *FailureInfo `json:"failure,omitempty"`
}

// NodeOrders is what a node should be doing at a revision.
//
// They are the whole of it unless Since is set: what they do not name, the agent
// ends and forgets. With Since they say what has changed since that revision of
// the same epoch: Tasks are new or other than before, Dropped are no longer to
// be held, and all others stay as they are. They say how things are, not what to
// do, so they fit any revision from Since to Revision, and may come twice.
//
// An answer with an epoch is the receipt for the report: final attempts that it
// named are over, unless Tasks still names them, and so are removals.
type NodeOrders struct {
	Revision int64  `json:"revision"`
	Epoch    string `json:"epoch,omitempty"`
	Since    int64  `json:"since,omitzero"`
	// More tells that not all fitted in: the agent asks for the rest at once,
	// with a whole report.
	More bool `json:"more,omitzero"`
	// Lease is how long the agent may keep tasks running, from the moment it
	// sent this call, without another answer. Then it kills them.
	Lease Duration `json:"lease"`
	// Boot and Image are the boots and images asked for so far. A higher one
	// than the agent's: end all tasks, (wipe,) run the start task again.
	Boot  int `json:"boot"`
	Image int `json:"image"`
	// Leave: end all tasks, report Left, exit.
	Leave bool `json:"leave,omitzero"`
	// Settings is set when the report named another version.
	Settings *NodeSettings `json:"settings,omitempty"`
	Tasks    []TaskOrder   `json:"tasks,omitempty"`
	Dropped  []AttemptRef  `json:"dropped,omitempty"`
	Removals []Removal     `json:"removals,omitempty"`
	// Ahead are removals whose turn among the others may not have come: of what
	// earlier tasks left in the directories of new ones. They must not come when
	// those have files there.
	Ahead []Removal     `json:"ahead,omitempty"`
	Files []FileRequest `json:"files,omitempty"`
}

// NodeSettings is what seldom changes about a node.
type NodeSettings struct {
	Version      int64         `json:"version"`
	Account      AccountName   `json:"account"`
	AccountURL   string        `json:"accountUrl"`
	Pool         PoolID        `json:"pool"`
	Node         NodeID        `json:"node"`
	Dedicated    bool          `json:"dedicated"`
	TaskSlots    int           `json:"taskSlots"`
	Size         Size          `json:"size"`
	StartTask    *StartTask    `json:"startTask,omitempty"`
	UserAccounts []UserAccount `json:"userAccounts,omitempty"`
	// AllowHosts are hosts that fetches for tasks may reach although they are
	// loopback or link-local addresses, as host:port.
	AllowHosts []string `json:"allowHosts,omitempty"`
}

// AttemptRef names an attempt.
type AttemptRef struct {
	Job     JobID  `json:"job"`
	Task    TaskID `json:"task"`
	Attempt int    `json:"attempt"`
}

// TaskOrder is one attempt that the node should hold.
type TaskOrder struct {
	Job     JobID  `json:"job"`
	Task    TaskID `json:"task"`
	Attempt int    `json:"attempt"`
	// Release asks for it back: ReleaseUnstarted unless it has begun,
	// ReleaseAlways even if it runs, after killing it.
	Release Release `json:"release,omitempty"`
	// Started tells that the attempt was reported as running before: a node
	// that holds nothing of it any more gives it back and does not begin anew.
	Started bool `json:"started,omitzero"`
	// Run is set when the report did not name the attempt.
	Run *TaskRun `json:"run,omitempty"`
}

// Release is whether and how an attempt is asked back.
type Release string

// Ways to ask back.
const (
	ReleaseUnstarted Release = "unstarted"
	ReleaseAlways    Release = "always"
)

// TaskRun is all that a node needs to run a task.
type TaskRun struct {
	CommandLine         string               `json:"commandLine"`
	ResourceFiles       []ResourceFile       `json:"resourceFiles,omitempty"`
	OutputFiles         []OutputFile         `json:"outputFiles,omitempty"`
	EnvironmentSettings []EnvironmentSetting `json:"environmentSettings,omitempty"`
	UserIdentity        *UserIdentity        `json:"userIdentity,omitempty"`
	RequiredSlots       int                  `json:"requiredSlots"`
	MaxWallClockTime    Duration             `json:"maxWallClockTime"`
	RetentionTime       Duration             `json:"retentionTime"`
}

// Removal asks for the directory of a task (or of a whole job when Task is
// empty) to be deleted. It is repeated until reported as done.
type Removal struct {
	ID   int64  `json:"id"`
	Job  JobID  `json:"job"`
	Task TaskID `json:"task,omitempty"`
}

// FileOp is what is asked of a file of a node.
type FileOp string

// File operations.
const (
	FileList   FileOp = "list"
	FileRead   FileOp = "read"
	FileStat   FileOp = "stat"
	FileDelete FileOp = "delete"
)

// FileRequest is a caller of the API that waits for a file of the node. The
// agent answers by posting to the server under the request's id.
type FileRequest struct {
	ID string `json:"id"`
	Op FileOp `json:"op"`
	// Job and Task name a task's directory; both empty: the node's root.
	Job  JobID  `json:"job,omitempty"`
	Task TaskID `json:"task,omitempty"`
	// Path is relative to that directory; empty for a listing of all.
	Path      string `json:"path,omitempty"`
	Recursive bool   `json:"recursive,omitzero"`
	// Offset and Length select bytes of a read; Length -1 is to the end.
	Offset int64 `json:"offset,omitzero"`
	Length int64 `json:"length,omitzero"`
	// After and Max page a listing: names greater than After, at most Max.
	After string `json:"after,omitempty"`
	Max   int    `json:"max,omitzero"`
	// Prefix limits a listing to names that start with it.
	Prefix string `json:"prefix,omitempty"`
}

// FileAnswer is what the agent says about a file request before the bytes of a
// read, if any.
type FileAnswer struct {
	// Error is set instead of the rest, save the File whose range was not there.
	Error *FileError `json:"error,omitempty"`
	// File describes what was read or asked about.
	File *File `json:"file,omitempty"`
	// Files are the entries of a listing, sorted by name; More tells that the
	// page was full.
	Files []File `json:"files,omitempty"`
	More  bool   `json:"more,omitzero"`
}

// FileError is an error of a file operation that the API's caller sees.
type FileError struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`
}
