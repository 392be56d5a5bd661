package keeper

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/batchyard/batchyard/agent/isolation"
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
	k, err := newKeeper(ctx, config, log)
	if err != nil {
		return errors.Join(err, run.Ready(out, err))
	}
	defer k.lock.Close()
	if err := run.Ready(out, nil); err != nil {
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
	config   *run.KeeperConfig
	instance string
	log      *slog.Logger
	lock     *os.File
	record   *isolation.Record
	holder   *holder
	timer    *leaseTimer
	listener *link.Listener
	hub      hub
	agents   chan *visit
}

// newKeeper becomes the node's only keeper and clears up after the last one.
func newKeeper(ctx context.Context, config *run.KeeperConfig, log *slog.Logger) (k *keeper, err error) {
	k = &keeper{config: config, instance: rand.Text(), log: log, agents: make(chan *visit)}
	if k.lock, err = lockDir(config.Dir); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			k.lock.Close()
		}
	}()
	birth, err := becomeParent()
	if err != nil {
		return nil, err
	}
	if k.record, err = isolation.ReadRecord(config.Dir); err != nil {
		return nil, fmt.Errorf("read record of groups: %w", err)
	}
	mark := isolation.NodeMark(config.Dir)
	sweep, cancel := context.WithTimeout(ctx, run.SweepTime)
	defer cancel()
	if err := k.record.Sweep(sweep, mark); err != nil {
		return nil, err
	}
	g := isolation.Find(config.Dir, config.Cgroups, config.CgroupParent, k.record.Add)
	f := &forker{birth: birth}
	if g.Mode == "none" {
		f.mark = mark
	}
	if f.null, err = unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
		return nil, fmt.Errorf("open the null device: %w", err)
	}
	if k.holder, err = newHolder(g, f, log); err != nil {
		return nil, err
	}
	if k.timer, err = newLeaseTimer(); err != nil {
		return nil, err
	}
	k.hub.init(config.Linger)
	k.listener, err = link.Listen(config.Dir)
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
	signal.Notify(make(chan os.Signal, 1), unix.SIGHUP, unix.SIGXFSZ, unix.SIGPIPE)
	return newBirth()
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

// lockDir takes the lock that only one keeper of a node can hold. The kernel
// lets go of it when the process ends, however it ends.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "keeper.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, run.ErrBusy
		}
		return nil, fmt.Errorf("take lock: %w", err)
	}
	return f, nil
}

// run serves until the keeper is to end, and ends all tasks.
func (k *keeper) run(ctx context.Context) error {
	k.log.Info("keeper runs", "pid", os.Getpid(), "groups", k.holder.groups.Mode, "build", k.config.Build)
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
