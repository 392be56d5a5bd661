package keeper

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime/pprof"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/batchyard/batchyard/agent/link"
	"github.com/batchyard/batchyard/agent/run"
)

const (
	// endTime bounds how long a keeper that is to end waits for its tasks to.
	endTime = sweepLimit + 10*time.Second
)

// Main is the whole life of a keeper process, the hidden command that
// [run.Open] starts with its configuration in in and an answer expected on out.
// It returns when the agent shuts it down, when ctx is cancelled, or when no
// agent has come for a long time; no task runs any more then.
func Main(ctx context.Context, in, out *os.File, log *slog.Logger) error {
	config, err := run.ReadKeeperConfig(in)
	if err != nil {
		return err
	}
	p, err := prepare(ctx, config, log)
	if errors.Is(err, errHandedOver) {
		return nil
	}
	var k *keeper
	if err == nil {
		defer p.close()
		k, err = newKeeper(p)
	}
	if err != nil {
		return errors.Join(err, run.Ready(out, 0, err))
	}
	if err := run.Ready(out, k.pid, nil); err != nil {
		return err
	}
	// The pipes to the agent end here, the numbers stay taken.
	for _, f := range []*os.File{in, out} {
		if err := unix.Dup3(k.holder.forker.null, int(f.Fd()), unix.O_CLOEXEC); err != nil {
			return fmt.Errorf("let go of the agent's pipes: %w", err)
		}
	}
	return k.run(ctx)
}

// keeper is a keeper process.
type keeper struct {
	*premises
	instance string
	holder   *holder
	timer    *leaseTimer
	listener *link.Listener
	hub      hub
	agents   chan *visit
}

// newKeeper makes a keeper on its premises, which listens already.
func newKeeper(p *premises) (k *keeper, err error) {
	k = &keeper{premises: p, instance: rand.Text(), agents: make(chan *visit)}
	birth, err := becomeParent()
	if err != nil {
		return nil, err
	}
	f := &forker{birth: birth, machine: p.machine}
	if p.groups.Mode == "none" {
		f.mark = p.mark
	}
	if f.null, err = unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
		return nil, fmt.Errorf("open the null device: %w", err)
	}
	if k.holder, err = newHolder(p.groups, f, p.log); err != nil {
		return nil, err
	}
	if k.timer, err = newLeaseTimer(); err != nil {
		return nil, err
	}
	k.hub.init(p.config.Linger)
	k.listener, err = link.Listen(p.dir)
	return k, err
}

// becomeParent prepares this process for having tasks as children: nothing of
// it is inherited by them, and everything that loses its parent is handed to it.
func becomeParent() (*birth, error) {
	if err := closeOnExec(); err != nil {
		return nil, fmt.Errorf("hide descriptors from tasks: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("become subreaper: %w", err)
	}
	unsignalChildren()
	if err := os.Chdir("/"); err != nil {
		return nil, err
	}
	unix.Umask(0o022)
	// A signal that is ignored stays ignored in a child, one that is caught does
	// not. Nobody reads the channel: to be caught is all.
	signal.Notify(make(chan os.Signal, 1), caught...)
	go tellStacks()
	return newBirth()
}

// tellStacks writes what the keeper is doing to its log when it is asked by the
// signal for that, which for other programs is their end. A task may ask too, so
// it is not told often.
func tellStacks() {
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, unix.SIGQUIT)
	for range asked {
		_ = pprof.Lookup("goroutine").WriteTo(os.Stderr, 2)
		time.Sleep(time.Minute)
	}
}

// caught are the signals that would end the keeper. A service manager, a
// terminal or a task may send them, and none of these decides when the tasks of
// a node end: the agent and the lease do.
var caught = []os.Signal{
	unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGILL, unix.SIGTRAP, unix.SIGABRT, unix.SIGBUS, unix.SIGFPE, unix.SIGUSR1, unix.SIGSEGV,
	unix.SIGUSR2, unix.SIGPIPE, unix.SIGALRM, unix.SIGTERM, unix.SIGSTKFLT, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU, unix.SIGXCPU,
	unix.SIGXFSZ, unix.SIGVTALRM, unix.SIGIO, unix.SIGPWR, unix.SIGSYS,
}

// closeOnExec hides descriptors that this process has itself inherited. Those
// that Go opens are hidden anyway.
func closeOnExec() error {
	err := unix.CloseRange(3, 1<<32-1, unix.CLOSE_RANGE_CLOEXEC)
	if err == nil {
		return nil
	}
	dir, err := os.Open("/proc/self/fd")
	if err != nil {
		return err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		var fd int
		if _, err := fmt.Sscan(name, &fd); err == nil && fd > 2 {
			unix.CloseOnExec(fd)
		}
	}
	return nil
}

// run serves until the keeper is to end, and ends all tasks.
func (k *keeper) run(ctx context.Context) error {
	k.log.Info("keeper runs", "pid", k.pid, "groups", k.groups.Mode, "machine", k.machine != nil, "build", k.config.Build)
	// The reaper blocks in the kernel while there are children, so that nobody
	// waits for it if some do not end.
	reaped := make(chan error, 1)
	go k.holder.reap(reaped)

	// So is the thread that serves the agent and forks: children end with it.
	go k.attend()

	var group errgroup.Group
	group.Go(func() error { return k.accept() })
	group.Go(func() error { k.timer.run(k.holder.expire); return nil })
	var err error
	select {
	case <-ctx.Done():
	case <-k.hub.over(k.holder):
	case err = <-reaped:
	}
	err = errors.Join(err, k.end())
	k.hub.close(err)
	return errors.Join(err, group.Wait())
}

// end kills all tasks and removes what the keeper has made.
func (k *keeper) end() error {
	k.holder.close()
	t := time.NewTimer(endTime)
	defer t.Stop()
	defer func() { _ = k.listener.Close() }()
	defer k.timer.close()
	select {
	case <-k.holder.idle:
	case <-t.C:
		return errors.New("tasks do not end: groups are left to the next keeper")
	}
	k.holder.sweepers.Wait()
	k.holder.mu.Lock()
	defer k.holder.mu.Unlock()
	for _, s := range k.holder.slots {
		s.close()
	}
	k.holder.groups.Evict(k.holder.threads)
	if err := k.holder.groups.Remove(); err != nil {
		return fmt.Errorf("remove groups: %w", err)
	}
	return k.record.Delete()
}
