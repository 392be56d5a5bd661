package fleet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// lockFile is held by a node's agent while it runs, with its number inside;
// see package agent.
const lockFile = "state/agent.lock"

// tryLock tells whether no agent runs in a folder. If so the caller holds the
// lock until it calls unlock.
func tryLock(folder string) (unlock func(), free bool, err error) {
	if err := os.MkdirAll(filepath.Join(folder, filepath.Dir(lockFile)), 0o700); err != nil {
		return nil, false, fmt.Errorf("make state folder: %w", err)
	}
	file, err := os.OpenFile(filepath.Join(folder, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, false, fmt.Errorf("open agent lock: %w", err)
	}
	err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err != nil {
		_ = file.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, false, nil
		}
		return nil, false, fmt.Errorf("lock agent folder: %w", err)
	}
	return func() { _ = file.Close() }, true, nil
}

// findAgent finds the process that holds a folder's lock.
func findAgent(folder string) (process, error) {
	pid, err := agentPID(folder)
	if err != nil {
		return nil, err
	}
	agent, err := findProcess(pid)
	if err != nil {
		return nil, err
	}
	// The number may be of an agent before this one and mean another process
	// by now; ours has its folder in its command line.
	command, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
	if err == nil && !bytes.Contains(command, []byte(filepath.Base(folder))) {
		err = fmt.Errorf("process %d is not the agent of %s", pid, folder)
	}
	return agent, err
}

// agentPID is the process that is said to hold a folder's lock.
func agentPID(folder string) (int, error) {
	text, err := os.ReadFile(filepath.Join(folder, lockFile))
	if err != nil {
		return 0, fmt.Errorf("read agent lock: %w", err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || pid <= 1 {
		return 0, fmt.Errorf("agent lock in %s names no process yet", folder)
	}
	return pid, nil
}

// detach lets an agent outlive the server and its terminal.
func detach(command *exec.Cmd) {
	if command.SysProcAttr == nil {
		command.SysProcAttr = &syscall.SysProcAttr{}
	}
	command.SysProcAttr.Setsid = true
}

// endSignal ends an agent. It is not the one by which service managers end all
// processes of a server, since agents outlive that.
const endSignal = syscall.SIGINT

// child is an agent that we started.
type child struct {
	command *exec.Cmd
	done    chan struct{}
}

func newChild(command *exec.Cmd) child {
	c := child{command, make(chan struct{})}
	go func() {
		_ = command.Wait() // how it ended is in its own log
		close(c.done)
	}()
	return c
}

func (c child) wait(ctx context.Context) {
	select {
	case <-c.done:
	case <-ctx.Done():
	}
}

func (c child) succeeded() bool {
	select {
	case <-c.done:
		return c.command.ProcessState.Success()
	default:
		return false
	}
}

func (c child) terminate() error { return c.command.Process.Signal(endSignal) }
func (c child) kill() error      { return c.command.Process.Kill() }

// other is an agent that an earlier server started, held by a descriptor of
// its process, so that its number cannot come to mean another.
type other struct{ file *os.File }

func findProcess(pid int) (process, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("find agent process %d: %w", pid, err)
	}
	return other{os.NewFile(uintptr(fd), "agent")}, nil
}

// succeeded is not known of a process that is not our child.
func (o other) succeeded() bool { return false }

// wait sleeps in the poller: a process descriptor is readable when the process
// has ended.
func (o other) wait(ctx context.Context) {
	raw, err := o.file.SyscallConn()
	if err != nil {
		return
	}
	_ = o.file.SetReadDeadline(time.Time{})
	defer context.AfterFunc(ctx, func() { _ = o.file.SetReadDeadline(time.Unix(1, 0)) })()
	_ = raw.Read(func(fd uintptr) bool {
		ready, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		return ready > 0 || err != nil && !errors.Is(err, unix.EINTR)
	})
}

// Await returns nil when a process that is not our child has ended, or the
// error of ctx. A process that is not there has ended.
func Await(ctx context.Context, pid int) error {
	p, err := findProcess(pid)
	if err != nil {
		return nil
	}
	defer func() { _ = p.(other).file.Close() }()
	p.wait(ctx)
	return ctx.Err()
}

func (o other) terminate() error { return o.signal(endSignal) }
func (o other) kill() error      { return o.signal(syscall.SIGKILL) }

func (o other) signal(number syscall.Signal) error {
	raw, err := o.file.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	err = raw.Control(func(fd uintptr) { sent = unix.PidfdSendSignal(int(fd), number, nil, 0) })
	return errors.Join(err, sent)
}
