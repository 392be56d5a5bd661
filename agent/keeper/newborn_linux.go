package keeper

import (
	"os"
	"syscall"

	"github.com/batchyard/batchyard/agent/run"
)

// newborn says what a child is when its program begins.
type newborn struct {
	args, env []string
	dir       string
	files     [3]uintptr
	// session: it has a session of its own, else a process group of its own in
	// the keeper's session.
	session bool
	// group is the descriptor of the group into which it is born, or -1.
	group int
	// user is who it becomes, nil for the keeper's own.
	user *syscall.Credential
}

// newborn describes the process of a task: a process group of its own, so that
// it can be signalled as a whole; death together with the keeper; the task's user
// with no groups but its own.
//
// Where control groups find a task's processes they are in the keeper's session,
// which has no terminal: a session of its own costs more than all else that is
// done in the child. Where they do not, a session keeps processes of one task
// from joining groups of another, by which they are killed.
func (f *forker) newborn(t *task) *newborn {
	b := &newborn{
		args: t.spec.Args, env: t.spec.Env, dir: t.spec.Dir, files: t.outputs.files,
		session: f.mark != 0, group: t.slot.tracker.BornInto(),
	}
	if os.Geteuid() == 0 {
		b.user = credential(t.spec.User)
	}
	return b
}

func credential(u *run.User) *syscall.Credential {
	if u == nil {
		return &syscall.Credential{Gid: uint32(os.Getegid())}
	}
	return &syscall.Credential{Uid: u.UID, Gid: u.GID, Groups: u.Groups}
}

// forkSlowly has the Go runtime fork.
func (b *newborn) forkSlowly(file string) (int, error) {
	sys := &syscall.SysProcAttr{Setsid: b.session, Setpgid: !b.session, Pdeathsig: syscall.SIGKILL, Credential: b.user}
	if b.group >= 0 {
		sys.UseCgroupFD, sys.CgroupFD = true, b.group
	}
	return syscall.ForkExec(file, b.args, &syscall.ProcAttr{Dir: b.dir, Env: b.env, Files: b.files[:], Sys: sys})
}
