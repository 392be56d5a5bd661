package run

import (
	"context"
	"time"
)

// Execution is one attempt at a task's command, whatever runs it: a process
// ([Process]) or, beside it, a container. Its identity is Spec.ID, so an agent
// that was restarted continues where the one before it stopped. None may outlive
// the keeper's lease.
type Execution interface {
	// Start runs the command. It may be repeated: an execution that already
	// runs, or has ended, answers how it was started. What the command itself
	// is to blame for is a *StartError.
	Start(ctx context.Context) (Started, error)

	// Wait blocks until the execution has ended and nothing of it is left. It
	// may be called by several goroutines, and again after it has returned.
	Wait(ctx context.Context) (Result, error)

	// Kill ends the execution: politely by SIGTERM to its process group if
	// grace is positive, and for good once grace has passed. It returns when
	// the wish has been noted, not when the execution has ended, and is no
	// error if it already has.
	Kill(ctx context.Context, grace time.Duration) error
}

// Spec says what to run and as whom.
type Spec struct {
	// ID names this attempt and no other, for instance "job/task/3". At most
	// 512 bytes.
	ID string `json:"id"`
	// Args is the command and its arguments, see SplitCommandLine. Args[0] is
	// looked up in the PATH of Env unless it contains a slash.
	Args []string `json:"args"`
	// Env is the whole environment as KEY=VALUE; nothing is added to it.
	Env []string `json:"env,omitempty"`
	// Dir is the absolute path of the working directory.
	Dir string `json:"dir"`
	// Stdout and Stderr are absolute paths of files that are created if they
	// are missing and appended to. No component of them may be a symbolic
	// link, because a task may write in the folders they are in. They may be
	// equal; an empty path discards.
	Stdout string `json:"stdout,omitempty"`
	Stderr string `json:"stderr,omitempty"`
	// User is who the process runs as; nil means the agent's own user.
	User *User `json:"user,omitempty"`
	// Admin allows the task to gain privileges, as sudo does.
	Admin bool `json:"admin,omitempty"`
	// Private gives the task temporary files, shared memory and IPC objects of
	// its own, which are gone when it has ended, where [Capabilities.Machine]
	// says so.
	Private bool `json:"private,omitempty"`
	// Limits are this task's own, below those of the node.
	Limits Limits `json:"limits,omitzero"`
	// Room is how many task slots the execution takes.
	Room int `json:"room,omitzero"`
	// Yields allows that another takes its room as soon as it has exited with
	// 0, without anybody being asked.
	Yields bool `json:"yields,omitzero"`
}

// User is a user of the compute node by its numbers.
type User struct {
	UID    uint32   `json:"uid"`
	GID    uint32   `json:"gid"`
	Groups []uint32 `json:"groups,omitempty"`
}

// Limits bound one task. Zero leaves a value at what the node allows.
type Limits struct {
	// MemoryBytes bounds memory and swap together.
	MemoryBytes int64 `json:"memoryBytes,omitzero"`
	// Processes bounds processes and threads.
	Processes int64 `json:"processes,omitzero"`
	// FileBytes bounds the size of each file that the task writes.
	FileBytes int64 `json:"fileBytes,omitzero"`
	// OpenFiles bounds the descriptors of each process.
	OpenFiles int64 `json:"openFiles,omitzero"`
}

// NodeLimits bound all tasks of the compute node together. Zero is no limit.
type NodeLimits struct {
	// MemoryBytes bounds memory and swap together.
	MemoryBytes int64 `json:"memoryBytes,omitzero"`
	// Cores bounds processor time, in cores; 0.5 is half of one.
	Cores float64 `json:"cores,omitzero"`
	// Processes bounds processes and threads.
	Processes int64 `json:"processes,omitzero"`
	// TaskProcesses bounds each task that names no limit of its own, so that
	// one task cannot use up the node's.
	TaskProcesses int64 `json:"taskProcesses,omitzero"`
	// FileBytes bounds each file of a task that names no limit of its own.
	FileBytes int64 `json:"fileBytes,omitzero"`
}

// Started says how an execution began.
type Started struct {
	// PID is the main process as the compute node numbers it.
	PID int `json:"pid"`
	// At is the date of that, Up what [BootTime] said.
	At time.Time `json:"at"`
	Up int64     `json:"up,omitzero"`
	// Age is how long ago that was when the keeper's client told, by a clock that
	// nobody sets.
	Age time.Duration `json:"-"`
}

// told is s with its age. A keeper of before says nothing of that clock.
func (s Started) told() Started {
	s.Age = max(0, time.Since(s.At))
	if s.Up != 0 {
		s.Age = max(0, time.Duration(BootTime()-s.Up))
	}
	return s
}

// Reason says why an execution has ended.
type Reason string

const (
	// Exited: by itself, with an exit code or by a signal that it got from
	// elsewhere.
	Exited Reason = "exited"
	// Killed: somebody called Kill before it ended.
	Killed Reason = "killed"
	// LeaseExpired: the keeper ended it because the agent's lease ran out.
	LeaseExpired Reason = "leaseExpired"
	// OOMKilled: the kernel ended it because it, or the node, was over its
	// memory limit.
	OOMKilled Reason = "oomKilled"
	// Lost: its keeper died, and so did it. Nothing is known of its end.
	Lost Reason = "lost"
)

// Result says how an execution ended.
type Result struct {
	Reason Reason `json:"reason"`
	// ExitCode is what the main process gave to exit, or -1 if a signal ended
	// it.
	ExitCode int `json:"exitCode"`
	// Signal is the number of the signal that ended the main process, or 0.
	Signal int `json:"signal,omitzero"`
	// Started and Ended are times of the node's clock. Ended is when the main
	// process ended, which may be a little before its leftovers were gone.
	Started time.Time `json:"started"`
	Ended   time.Time `json:"ended"`
	// UserCPU and SystemCPU are of the main process and of the children that
	// it waited for.
	UserCPU   time.Duration `json:"userCPU"`
	SystemCPU time.Duration `json:"systemCPU"`
	// MaxRSS is the largest resident set of any one of these processes, in
	// bytes.
	MaxRSS int64 `json:"maxRSS,omitzero"`
	// OOMKills counts the processes of the task that the kernel ended for lack
	// of memory. It may be positive although the task itself went on and
	// exited well.
	OOMKills int64 `json:"oomKills,omitzero"`
	// MemoryLimit is the limit that applied, and MemoryPeak the most that a task
	// used of which something was killed for it, in bytes; 0 where the host does
	// not tell.
	MemoryLimit int64 `json:"memoryLimit,omitzero"`
	MemoryPeak  int64 `json:"memoryPeak,omitzero"`
	// Leftovers is true if a process of the task could not be killed within
	// the time allowed, which happens only while the kernel itself holds it,
	// for instance on a dead network disk. Its slot stays out of use until it
	// is gone.
	Leftovers bool `json:"leftovers,omitzero"`
	// Next is the execution that was in line and has taken the room, or "".
	Next string `json:"next,omitempty"`
}

// Held is an execution that a keeper knows: running while Result is nil.
type Held struct {
	ID      string  `json:"id"`
	Started Started `json:"started"`
	Result  *Result `json:"result,omitempty"`
}

// Capabilities say what can be enforced on this host.
type Capabilities struct {
	// Root is true if tasks can run as users of their own.
	Root bool `json:"root"`
	// Groups is which control groups are in use: "v2", "hybrid" (limits by v1,
	// tracking by v2), "v1" or "none".
	Groups string `json:"groups"`
	// Memory, CPU and Processes say which limits are enforced.
	Memory    bool `json:"memory"`
	CPU       bool `json:"cpu"`
	Processes bool `json:"processes"`
	// Machine is true if tasks see a machine of the node's own, see
	// [Options.Machine].
	Machine bool `json:"machine,omitempty"`
	// MemoryGroup is the folder of the control group in which the memory of all
	// tasks is counted, also what those that have ended left, or "".
	MemoryGroup string `json:"memoryGroup,omitempty"`
	// KillAll is true if no process of a task can hide from being killed.
	KillAll bool `json:"killAll"`
	// Missing tells an operator in sentences what is not enforced, and why.
	Missing []string `json:"missing,omitempty"`
}
