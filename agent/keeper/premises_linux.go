package keeper

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/batchyard/batchyard/agent/isolation"
	"github.com/batchyard/batchyard/agent/run"
)

// premises are what a keeper has before it keeps anything: the node's lock, the
// control groups, and the node's own machine.
//
// Only who sees the whole machine can find and kill what an earlier keeper left
// behind, and only a process that is born into namespaces is their first, with
// which all others in them end. So a keeper starts twice: the first process locks
// the node, clears up, finds groups, and starts itself again inside; when that
// one says that it is there, the first ends. Where the host refuses, the first
// goes on, and the node's tasks are on the machine itself.
type premises struct {
	config  *run.KeeperConfig
	log     *slog.Logger
	lock    *os.File
	folder  *os.File // the node's private folder
	dir     string   // a path to it that holds whatever is mounted
	mark    uint64
	record  *isolation.Record
	groups  *isolation.Groups
	machine *isolation.Machine // nil on the machine itself
	pid     int                // as the agent numbers this process
}

// errHandedOver says that another process is the keeper now.
var errHandedOver = errors.New("the keeper is another process")

// Descriptors of a keeper that starts inside.
const (
	lockFD    = 3
	verdictFD = 4
)

// prepare makes the premises, or hands them over.
func prepare(ctx context.Context, config *run.KeeperConfig, log *slog.Logger) (*premises, error) {
	p := &premises{config: config, log: log, mark: isolation.NodeMark(config.Dir), pid: os.Getpid()}
	err := p.open(config.Inside != "")
	if err == nil && config.Inside != "" {
		err = p.enter()
	} else if err == nil {
		err = p.clear(ctx)
		if err == nil && config.Machine != nil {
			err = p.handOver()
		}
	}
	if err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

func (p *premises) close() {
	for _, file := range []*os.File{p.lock, p.folder} {
		if file != nil {
			file.Close()
		}
	}
}

// open takes the lock, or takes over the one that the process before has.
func (p *premises) open(inside bool) (err error) {
	if p.folder, err = os.Open(p.config.Dir); err != nil {
		return fmt.Errorf("open keeper folder: %w", err)
	}
	p.dir = p.config.Dir
	if inside {
		unix.CloseOnExec(lockFD)
		p.lock = os.NewFile(lockFD, "keeper.lock")
		p.dir = fmt.Sprintf("/proc/self/fd/%d", p.folder.Fd())
		return nil
	}
	p.lock, err = lockDir(p.dir)
	return err
}

// clear ends what an earlier keeper left running and finds the node's groups.
func (p *premises) clear(ctx context.Context) (err error) {
	if p.record, err = isolation.ReadRecord(p.dir); err != nil {
		return fmt.Errorf("read record of groups: %w", err)
	}
	sweep, cancel := context.WithTimeout(ctx, run.SweepTime)
	defer cancel()
	if err := awaitEnd(sweep, p.lock); err != nil {
		return err
	}
	if err := p.record.Sweep(sweep, p.mark); err != nil {
		return err
	}
	p.groups = isolation.Find(p.dir, p.config.Cgroups, p.config.CgroupParent, p.record.Add)
	return noteProcess(p.lock, os.Getpid())
}

// handOver starts the keeper inside. Nil is that the host refuses, and that this
// process is the keeper, also to whoever reads the lock.
func (p *premises) handOver() error {
	refused := p.startInside()
	if refused == nil {
		return errHandedOver
	}
	p.log.Warn("the node has no machine of its own", "error", refused)
	p.groups.Missing = append(p.groups.Missing, fmt.Sprintf("the host allows no namespaces (%v): /tmp, /var/tmp, /dev/shm, IPC objects, "+
		"the list of processes and the host name are the machine's, what tasks leave there stays, and a process that hides may outlive the keeper", refused))
	return noteProcess(p.lock, os.Getpid())
}

// startInside returns once the keeper inside is on its premises, or will not be.
func (p *premises) startInside() error {
	groups, err := p.groups.MarshalText()
	if err != nil {
		return err
	}
	inside := *p.config
	inside.Inside = string(groups)
	in, config, err := os.Pipe()
	if err != nil {
		return err
	}
	defer in.Close()
	verdict, out, err := os.Pipe()
	if err != nil {
		config.Close()
		return err
	}
	defer verdict.Close()
	_, err = inside.WriteTo(config)
	config.Close()
	if err != nil {
		out.Close()
		return err
	}
	pid, err := startSelf([]uintptr{in.Fd(), 1, 2, p.lock.Fd(), out.Fd()})
	out.Close()
	if err != nil {
		return err
	}
	if err := noteProcess(p.lock, pid); err != nil {
		_ = unix.Kill(pid, unix.SIGKILL)
		return err
	}
	text, err := io.ReadAll(verdict)
	switch {
	case err == nil && string(text) == accepted:
		return nil
	case len(text) > 0:
		return errors.New(string(text))
	}
	return errors.Join(errors.New("the process inside ended at once"), err)
}

// accepted is the verdict of a keeper that is on its premises.
const accepted = "ok"

// startSelf starts this program again in namespaces of its own, with timers that
// fire as late as this one's.
func startSelf(files []uintptr) (int, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return syscall.ForkExec("/proc/self/exe", os.Args, &syscall.ProcAttr{Dir: "/", Env: os.Environ(), Files: files, Sys: isolation.Namespaces()})
}

// enter is the other end of startInside.
func (p *premises) enter() (err error) {
	verdict := os.NewFile(verdictFD, "verdict")
	unix.CloseOnExec(verdictFD)
	defer verdict.Close()
	// The machine's /proc is still there, and tells who this is outside.
	own, err := os.Readlink("/proc/self")
	if err == nil {
		p.pid, err = strconv.Atoi(own)
	}
	if err == nil {
		p.groups, err = isolation.ParseGroups([]byte(p.config.Inside))
	}
	if err == nil {
		p.record, err = isolation.ReadRecord(p.dir)
	}
	if err == nil {
		p.machine, err = isolation.Enter(*p.config.Machine, p.config.MemoryBytes)
	}
	if err != nil {
		_, _ = verdict.WriteString(err.Error())
		return errHandedOver // back
	}
	_, err = verdict.WriteString(accepted)
	return err
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

// noteProcess writes into the lock which process is the keeper, and when it
// began, so that its number cannot come to mean another.
func noteProcess(lock *os.File, pid int) error {
	text := fmt.Sprintf("%d %s\n", pid, isolation.StartTime(pid))
	err := lock.Truncate(0)
	if err == nil {
		_, err = lock.WriteAt([]byte(text), 0)
	}
	if err != nil {
		return fmt.Errorf("note keeper: %w", err)
	}
	return nil
}

// awaitEnd waits until the keeper before this one has ended altogether. The
// kernel gives its lock away before it has ended the processes of its namespaces.
func awaitEnd(ctx context.Context, lock *os.File) error {
	text, err := io.ReadAll(io.NewSectionReader(lock, 0, 64))
	if err != nil {
		return fmt.Errorf("read lock: %w", err)
	}
	number, began, _ := strings.Cut(strings.TrimSpace(string(text)), " ")
	if pid, err := strconv.Atoi(number); err == nil && pid > 1 && began != "" && began == isolation.StartTime(pid) {
		return isolation.KillAndAwait(ctx, pid)
	}
	return nil // it has ended, or is not known
}
