package run

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"github.com/go-json-experiment/json"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// keeperConfig is what the agent writes to a new keeper's standard input.
type keeperConfig struct {
	Dir          string        `json:"dir"`
	Cgroups      Cgroups       `json:"cgroups,omitempty"`
	CgroupParent string        `json:"cgroupParent,omitempty"`
	Build        string        `json:"build,omitempty"`
	Linger       time.Duration `json:"linger"`
}

// readiness is what a new keeper answers on its standard output, once.
type readiness struct {
	// Busy: another keeper of the node is alive; talk to that one.
	Busy bool `json:"busy,omitzero"`
	// Error says why this one cannot work, "" if it can.
	Error string `json:"error,omitempty"`
}

const (
	// sweepTime bounds how long a new keeper waits for what an earlier one left
	// running.
	sweepTime = 30 * time.Second
	// endTime bounds how long a keeper that is to end waits for its tasks to.
	endTime = sweepLimit + 10*time.Second
)

// KeeperMain is the whole life of a keeper process, the hidden command that
// [Open] starts with its configuration in in and an answer expected on out.
// It returns when the agent shuts it down, when ctx is cancelled, or when no
// agent has come for a long time; no task runs any more then.
func KeeperMain(ctx context.Context, in, out *os.File, log *slog.Logger) error {
	var config keeperConfig
	if err := json.UnmarshalRead(io.LimitReader(in, 64<<10), &config, encoding()); err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	k, err := newKeeper(ctx, &config, log)
	if err != nil {
		answer := readiness{Busy: errors.Is(err, errBusy), Error: err.Error()}
		return errors.Join(err, json.MarshalWrite(out, answer))
	}
	defer k.lock.Close()
	if err := json.MarshalWrite(out, readiness{}); err != nil {
		return fmt.Errorf("report readiness: %w", err)
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
	config   *keeperConfig
	instance string
	log      *slog.Logger
	lock     *os.File
	record   *groupRecord
	holder   *holder
	timer    *leaseTimer
	listener *net.UnixListener
	hub      hub
	agents   chan *visit
}

// newKeeper becomes the node's only keeper and clears up after the last one.
func newKeeper(ctx context.Context, config *keeperConfig, log *slog.Logger) (k *keeper, err error) {
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
	if k.record, err = readRecord(config.Dir); err != nil {
		return nil, fmt.Errorf("read record of groups: %w", err)
	}
	mark := nodeMark(config.Dir)
	sweep, cancel := context.WithTimeout(ctx, sweepTime)
	defer cancel()
	if err := k.record.sweep(sweep, mark); err != nil {
		return nil, err
	}
	g := findGroups(config, k.record.add)
	f := &forker{birth: birth}
	if g.mode == "none" {
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
	k.listener, err = listen(config.Dir)
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

// errBusy says that the node has a living keeper.
var errBusy = errors.New("the node has a keeper already")

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
			return nil, errBusy
		}
		return nil, fmt.Errorf("take lock: %w", err)
	}
	return f, nil
}

// run serves until the keeper is to end, and ends all tasks.
func (k *keeper) run(ctx context.Context) error {
	k.log.Info("keeper runs", "pid", os.Getpid(), "groups", k.holder.groups.mode, "build", k.config.Build)
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
	defer k.listener.Close()
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
	k.holder.groups.evict(k.holder.threads)
	var errs []error
	for _, dir := range k.holder.groups.dirs() {
		errs = append(errs, removeGroups(dir))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove groups: %w", err)
	}
	if err := os.Remove(k.record.path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
