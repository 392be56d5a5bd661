package run

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/batchyard/batchyard/agent/link"
)

const (
	// launchTime bounds how long a keeper may take to come up, which includes
	// ending what an earlier one left running.
	launchTime = SweepTime + 10*time.Second
	// SweepTime bounds how long a new keeper waits for what an earlier one left
	// running.
	SweepTime = 30 * time.Second
	// keeperSlack is how late, in nanoseconds, timers of a keeper may fire.
	keeperSlack = 2_000_000
	// maxLog is the size from which on the keeper's log is begun anew.
	maxLog = 1 << 20
)

// prepareDir makes the private folder and refuses one that is not.
func prepareDir(o *Options) error {
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return fmt.Errorf("make keeper folder: %w", err)
	}
	// The folder's name identifies the node to its next keeper.
	dir, err := filepath.Abs(o.Dir)
	if err == nil {
		dir, err = filepath.EvalSymlinks(dir)
	}
	if err != nil {
		return fmt.Errorf("find keeper folder: %w", err)
	}
	o.Dir = dir
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("read keeper folder: %w", err)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); !ok || int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("keeper folder %s belongs to another user", dir)
	}
	if info.Mode().Perm()&0o077 == 0 {
		return nil
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return fmt.Errorf("close keeper folder: %w", err)
	}
	return nil
}

// connect reaches the node's keeper, starting it if need be.
func (k *Keeper) connect(ctx context.Context) (*session, error) {
	ctx, cancel := context.WithTimeout(ctx, launchTime)
	defer cancel()
	for {
		s, err := k.dial(ctx)
		switch {
		case err == nil && k.outdated(s):
			k.log.Info("replacing an idle keeper of another build", "build", s.welcome.Build)
			if err := retire(ctx, s); err != nil {
				return nil, fmt.Errorf("replace keeper: %w", err)
			}
			continue
		case err == nil:
			return s, nil
		case errors.Is(err, errGone):
			// It is just ending, or died while it greeted.
			if serr := sleep(ctx, 20*time.Millisecond); serr != nil {
				return nil, fmt.Errorf("connect to keeper: %w", err)
			}
			continue
		case !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ECONNREFUSED):
			return nil, fmt.Errorf("connect to keeper: %w", err)
		}
		switch err := k.launch(ctx); {
		case errors.Is(err, ErrBusy):
			// One is just starting, or just ending.
			if err := sleep(ctx, 20*time.Millisecond); err != nil {
				return nil, fmt.Errorf("connect to keeper: %w", err)
			}
		case err != nil:
			return nil, fmt.Errorf("start keeper: %w", err)
		}
	}
}

func (k *Keeper) outdated(s *session) bool {
	return s.welcome.Build != k.options.Build && len(s.welcome.Held) == 0
}

// retire ends a keeper that holds nothing.
func retire(ctx context.Context, s *session) error {
	defer s.close()
	if err := s.link.Send(&Message{ID: 2, Shutdown: true}); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { s.link.Fail(ctx.Err()) })
	defer stop()
	for {
		var m Message
		if err := s.link.Receive(&m); err != nil {
			// The keeper closes the connection as its last act.
			return ctx.Err()
		}
	}
}

func (k *Keeper) dial(ctx context.Context) (*session, error) {
	l, err := link.Dial(ctx, k.options.Dir)
	if err != nil {
		return nil, err
	}
	k.mu.Lock()
	lease := k.lease
	k.mu.Unlock()
	stop := context.AfterFunc(ctx, func() { l.Fail(ctx.Err()) })
	s, err := greet(&Wire{Link: l}, k.options.Node, lease)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		l.Close()
		return nil, err
	}
	return s, nil
}

// launch starts a keeper in a session of its own and waits until it says that
// it is ready. It returns ErrBusy if another keeper of the node is alive.
func (k *Keeper) launch(ctx context.Context) error {
	config := KeeperConfig{
		Dir: k.options.Dir, Cgroups: k.options.Cgroups, CgroupParent: k.options.CgroupParent, Build: k.options.Build, Linger: k.options.Linger,
		Machine: k.options.Machine, MemoryBytes: k.options.Node.MemoryBytes,
	}
	var input bytes.Buffer
	if _, err := config.WriteTo(&input); err != nil {
		return err
	}
	command := k.options.Command
	if len(command) == 0 {
		self, err := os.Executable()
		if err != nil {
			return err
		}
		command = []string{self, "agent", "keeper"}
	}
	log, err := openLog(filepath.Join(k.options.Dir, "keeper.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	ready, out, err := os.Pipe()
	if err != nil {
		return err
	}
	defer ready.Close()
	cmd := exec.Command(command[0], command[1:]...) //nolint:noctx // it outlives every context of this process
	cmd.Dir = "/"
	cmd.Env = append([]string{"BATCHYARD_KEEPER=" + k.options.Dir}, k.options.Env...)
	cmd.Stdin = &input
	cmd.Stdout = out
	cmd.Stderr = log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = startRelaxed(cmd)
	out.Close()
	if err != nil {
		return err
	}
	// The keeper outlives this connection, and perhaps this process: reaping it
	// is nobody's to wait for.
	go func() { _ = cmd.Wait() }()
	return k.awaitReady(ctx, ready)
}

// startRelaxed starts a keeper whose timers may fire late, which it inherits from
// the thread that forks it. The Go runtime has a thread that looks after the
// others every 20 µs while there is work; for a process that works in bursts of
// a fraction of a millisecond it costs more than the work.
func startRelaxed(cmd *exec.Cmd) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if usual, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0); err == nil {
		_ = setTimerSlack(keeperSlack)
		defer func() { _ = setTimerSlack(usual) }()
	}
	return cmd.Start()
}

// setTimerSlack lets timers of the calling thread and of its later children fire
// late by so many nanoseconds.
func setTimerSlack(ns int) error {
	return unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(ns), 0, 0, 0)
}

func openLog(path string) (*os.File, error) {
	flags := os.O_WRONLY | os.O_CREATE | os.O_APPEND
	if info, err := os.Stat(path); err == nil && info.Size() > maxLog {
		flags |= os.O_TRUNC
	}
	return os.OpenFile(path, flags, 0o600)
}

func (k *Keeper) awaitReady(ctx context.Context, ready *os.File) error {
	stop := context.AfterFunc(ctx, func() { _ = ready.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	pid, err := awaitReady(ready)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil && !errors.Is(err, ErrBusy):
		return fmt.Errorf("%w; see %s", err, filepath.Join(k.options.Dir, "keeper.log"))
	case err == nil:
		go reap(pid)
	}
	return err
}

// reap waits for a keeper that was started by the process which this one
// started, and is its child all the same. One that is not is nobody's to wait for.
func reap(pid int) {
	if process, err := os.FindProcess(pid); err == nil {
		_, _ = process.Wait()
	}
}
