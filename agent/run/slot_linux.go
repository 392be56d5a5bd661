package run

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A slot runs one task at a time. It owns the groups that the task is in and
// the threads that fork.
//
// The threads live as long as the keeper: the parent death signal of a process
// is sent when the thread that forked it ends (https://go.dev/issue/27505). One
// forks tasks that may never gain privileges, and has given up that right for
// itself, which children inherit and nothing can undo; another, made when first
// needed, forks those of administrators.
type slot struct {
	number  int
	groups  *groups
	tracker tracker
	limiter limiter
	orphan  chan struct{} // size one: an orphan of some slot was reaped

	plain, admin chan *task
	threads      sync.WaitGroup
}

func newSlot(g *groups, n int) (*slot, error) {
	t, l, err := g.slot(n)
	if err != nil {
		return nil, err
	}
	return &slot{number: n, groups: g, tracker: t, limiter: l, orphan: make(chan struct{}, 1)}, nil
}

// thread returns the channel to the forking thread for a task. The caller holds
// the keeper's lock.
func (s *slot) thread(admin bool, fork func(*task, error)) chan<- *task {
	which := &s.plain
	if admin {
		which = &s.admin
	}
	if *which == nil {
		*which = make(chan *task, 1)
		tasks := *which
		s.threads.Go(func() { s.serve(tasks, !admin, fork) })
	}
	return *which
}

// close ends the threads, once no task of the slot is left.
func (s *slot) close() {
	for _, tasks := range []chan *task{s.plain, s.admin} {
		if tasks != nil {
			close(tasks)
		}
	}
	s.threads.Wait()
	s.tracker.close()
	s.limiter.close()
}

// serve forks one task after another on a thread of its own.
func (s *slot) serve(tasks <-chan *task, noNewPrivileges bool, fork func(*task, error)) {
	runtime.LockOSThread()
	err := s.limiter.enter()
	if err == nil && noNewPrivileges {
		err = unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
	}
	if err != nil {
		err = fmt.Errorf("prepare thread of slot %d: %w", s.number, err)
	}
	for t := range tasks {
		fork(t, err)
	}
	s.groups.leave()
}

// forker is what all slots share to start processes.
type forker struct {
	birth *birth
	mark  uint64 // 0 where groups tell tasks apart
	null  int    // the null device
}

// start starts the process of a task. It runs on the slot's thread.
func (f *forker) start(t *task) (pid int, at time.Time, err error) {
	s := t.slot
	if err := s.limiter.begin(t.limits); err != nil {
		return 0, at, fmt.Errorf("set limits of slot %d: %w", s.number, err)
	}
	files, done, err := openOutputs(t.spec, f.null)
	defer done()
	if err != nil {
		return 0, at, err
	}
	if err := f.birth.hold(f.limits(t)); err != nil {
		return 0, at, err
	}
	defer f.birth.release()
	if err := s.tracker.enter(); err != nil {
		return 0, at, fmt.Errorf("enter slot %d: %w", s.number, err)
	}
	attr := &syscall.ProcAttr{Dir: t.spec.Dir, Env: t.spec.Env, Files: files, Sys: f.attributes(t.spec, s)}
	pid, err = startProgram(t.spec, func(file string) (int, error) {
		at = time.Now()
		return syscall.ForkExec(file, t.spec.Args, attr)
	})
	// A thread that stays behind in a group would stop with it, so the task
	// cannot be.
	if left := s.tracker.leave(); left != nil {
		if err == nil {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		return 0, at, errors.Join(err, fmt.Errorf("leave slot %d: %w", s.number, left))
	}
	return pid, at, err
}

func (f *forker) limits(t *task) birthLimits {
	b := birthLimits{files: t.limits.OpenFiles, size: t.limits.FileBytes}
	if f.mark != 0 {
		b.mark = f.mark | uint64(t.slot.number)
		// Counted per user, so it is only of use for users of our own.
		if t.spec.User != nil && os.Geteuid() == 0 {
			b.procs = t.nodeProcesses
		}
	}
	return b
}

// attributes describe the new process to the system: a session of its own, so
// that it has no terminal and its group can be killed; death together with the
// keeper; the task's user with no groups but its own.
func (f *forker) attributes(s *Spec, slot *slot) *syscall.SysProcAttr {
	sys := &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	if fd := slot.tracker.bornInto(); fd >= 0 {
		sys.UseCgroupFD, sys.CgroupFD = true, fd
	}
	if os.Geteuid() == 0 {
		sys.Credential = &syscall.Credential{Gid: uint32(os.Getegid())}
		if s.User != nil {
			sys.Credential = &syscall.Credential{Uid: s.User.UID, Gid: s.User.GID, Groups: s.User.Groups}
		}
	}
	return sys
}
