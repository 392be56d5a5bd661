package agent

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/batchyard/batchyard/agent/run"
	"github.com/batchyard/batchyard/agent/uid"
	"github.com/batchyard/batchyard/batch"
	"github.com/cenkalti/backoff/v5"
)

// Server is the agent's view of the server; package nodelink has the HTTP
// client, tests join the ends by a function call.
type Server interface {
	Sync(ctx context.Context, report batch.NodeReport) (batch.NodeOrders, error)
	AnswerFile(ctx context.Context, id string, answer batch.FileAnswer, body io.Reader) error
}

// Options are what an agent must be told; all else comes with its orders.
type Options struct {
	Server Server
	// Root is the node's root directory, AZ_BATCH_NODE_ROOT_DIR. Tasks see it.
	Root string
	// State is the agent's private folder. Tasks never see it.
	State string
	// UIDBase is the first of [UIDs] user numbers that belong to this node
	// alone.
	UIDBase uint32
	// MoreUIDs hands out the first of further [UIDs] user numbers, for tasks that
	// have users of their own; nil: there are no more.
	MoreUIDs func() (uint32, error)
	// Hide are folders of which tasks see nothing but Root, where the host allows
	// the node a machine of its own: the server's, above all.
	Hide []string
	// Show are folders that tasks see as they are although they are in /tmp or
	// another folder of which the node has its own.
	Show []string
	// Version is the program's version, shown on the node.
	Version string
	// KeeperCommand starts the keeper, see run.Options.
	KeeperCommand []string
	// OpenKeeper finds or starts the parent of the node's processes; nil is the
	// keeper process of package run.
	OpenKeeper func(context.Context, run.Options) (Keeper, error)
	// Now reads the clock, of which leases count the monotonic part. Nil is the
	// machine's, and for leases one that also counts while it sleeps.
	Now func() time.Time
	// AvailableMemory is how many bytes of memory the machine can still give to
	// programs; nil asks the machine.
	AvailableMemory func() int64
	// LastWord is what the agent before this one said when it crashed, if it did.
	LastWord string
	// TLS is how files are fetched and sent by HTTPS; nil trusts the machine's authorities.
	TLS *tls.Config
	// Environ are settings of the agent's own environment that tasks get too:
	// proxies and files of authorities.
	Environ []string
	// KillTasksOnStop ends all tasks when the agent is stopped; otherwise they
	// go on for the rest of the lease and the next agent takes them up.
	KillTasksOnStop bool
	// Patience is how long an agent goes on calling after its lease is over, or
	// after its start if no call was ever answered. Then it ends, whatever it
	// owes: that is on disk for the next. As long as the lease if zero.
	Patience time.Duration
	Log      *slog.Logger
}

// ErrLeft is returned by Run when the node was ordered to leave its pool and
// has done so.
var ErrLeft = errors.New("node has left its pool")

// ErrRefused is returned by Run when the server knows no such node or another
// agent has taken its place.
var ErrRefused = errors.New("server refuses this agent")

// ErrLost is returned by Run when the server was not reached for longer than
// the agent's patience.
var ErrLost = errors.New("server not reached")

// firstPatience is how long an agent without a lease calls by default.
const firstPatience = 2 * time.Minute

// Agent runs one compute node.
type Agent struct {
	Options
	instance string
	info     batch.AgentInfo
	settings atomic.Pointer[batch.NodeSettings]
	keeper   Keeper
	tree     *tree
	users    users
	hidden   string // the folder of which tasks see nothing but their node's, if that is so
	fetcher  *fetcher
	boots    *boots
	desk     *desk
	disk     *diskWatch
	files    *fileDesk
	health   *health
	starts   *starts
	// leftovers is what tasks that have ended keep of the node's memory.
	leftovers *leftovers
	lives     *lives
	pending   atomic.Int32  // the urgency of what has changed since the last report
	changed   chan struct{} // signalled when that rises
	reports   int64         // how many were made; of hello and its successor, the loop

	// working is the lifetime of all that follows from orders. It ends, with
	// errStopping, when the agent does; the keeper goes on with what runs.
	working context.Context //nolint:containedctx // the lifetime of running tasks, set before the first begins
	work    sync.WaitGroup  // attempts, boots, removals, file requests
}

// errStopping is the cause of attempts being abandoned, not ended.
var errStopping = errors.New("agent is stopping")

// urgency is how soon a change should be reported: changes wait for company
// while the node has other work (architecture section 11).
type urgency int32

const (
	whenever urgency = iota + 1 // something began or ended, and there is plenty to go on with
	begun                       // something began
	later                       // something ended, and there is more to go on with
	soon                        // something ended, and there is little more to go on with
	atOnce                      // and nothing else is going on
)

// delay is how long a change waits for company.
func (u urgency) delay() time.Duration {
	switch u {
	case atOnce:
		return 0
	case soon:
		return soonCoalesce
	case later:
		return endedCoalesce
	case begun:
		return startedCoalesce
	}
	return plentyCoalesce
}

// New makes an agent; Run starts it.
func New(o Options) *Agent {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.OpenKeeper == nil {
		o.OpenKeeper = openProcessKeeper
	}
	if o.AvailableMemory == nil {
		o.AvailableMemory = availableMemory
	}
	a := &Agent{Options: o, instance: rand.Text(), changed: make(chan struct{}, 1)}
	a.health, a.starts, a.lives = &health{agent: a}, &starts{agent: a}, &lives{agent: a}
	return a
}

// Run brings the node up and serves until ctx ends (nil), the node has left
// its pool (ErrLeft), the server refuses it (ErrRefused) or is not there any
// more (ErrLost). It may be called once.
func (a *Agent) Run(ctx context.Context) error {
	unlock, err := lockFolder(a.State)
	if err != nil {
		return err
	}
	defer unlock()
	a.lives.begin()
	err = a.live(ctx)
	a.lives.end(err)
	return err
}

// live is Run in a folder that is the agent's.
func (a *Agent) live(ctx context.Context) (err error) {
	if a.boots, err = openBoots(a); err != nil {
		return err
	}
	orders, sent, err := a.hello(ctx)
	if errors.Is(err, ErrRefused) || errors.Is(err, ErrLost) {
		a.endKept(ctx)
	}
	if err != nil {
		return quiet(ctx, err)
	}
	if err := a.open(ctx, orders.Settings); err != nil {
		return quiet(ctx, err)
	}
	defer a.close()
	err = a.serve(ctx, orders, sent)
	return quiet(ctx, err)
}

// quiet drops the error of having been told to stop.
func quiet(ctx context.Context, err error) error {
	if ctx.Err() != nil && !errors.Is(err, ErrLeft) {
		return nil
	}
	return err
}

// serve works on orders until there is a reason to stop, and then stops all
// work, which leaves processes to the keeper or ends them too.
func (a *Agent) serve(ctx context.Context, orders batch.NodeOrders, sent time.Time) error {
	working, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	a.working = working
	defer a.desk.keepOwed() // when nothing changes any more
	defer a.work.Wait()
	defer stop(errStopping)
	a.work.Go(a.disk.run)
	a.work.Go(a.lives.lasts)
	c := newCalls(a)
	c.apply(orders, call{sent: sent, number: a.reports})
	err := c.serve(ctx)
	if errors.Is(err, ErrLeft) || errors.Is(err, ErrRefused) || errors.Is(err, ErrLost) || ctx.Err() != nil && a.KillTasksOnStop {
		stop(errStopping)
		a.desk.keepOwed() // before the keeper forgets it
		a.shutdown(ctx)
	}
	return err
}

// hello makes the first call, which brings settings and everything this node
// should hold. It repeats until the server is there or patience is over.
func (a *Agent) hello(ctx context.Context) (batch.NodeOrders, time.Time, error) {
	hostname, err := os.Hostname()
	if err != nil {
		return batch.NodeOrders{}, time.Time{}, fmt.Errorf("read host name: %w", err)
	}
	a.info = batch.AgentInfo{Version: a.Version, Hostname: hostname, IPAddress: localAddress()}
	info := a.info // it is not complete yet
	report := batch.NodeReport{Instance: a.instance, Agent: &info, NoWait: true, Changes: true, RemovalRoom: maxRemoving}
	a.boots.report(&report)
	a.health.report(&report) // it may be all that the server ever hears
	var sent time.Time
	began, patience := a.clock(), a.Patience
	if patience == 0 {
		patience = firstPatience
	}
	orders, err := backoff.Retry(ctx, func() (batch.NodeOrders, error) {
		calling, cancel := context.WithTimeout(ctx, callTime(time.Minute))
		defer cancel()
		sent = a.clock()
		a.reports++
		report.Number = a.reports
		orders, err := a.Server.Sync(calling, report)
		if refused(err) {
			return orders, backoff.Permanent(fmt.Errorf("%w: %w", ErrRefused, err))
		}
		if err == nil && orders.Settings == nil {
			err = errors.New("the server sent no settings")
		}
		if err != nil && a.clock().Sub(began) > patience {
			return orders, backoff.Permanent(fmt.Errorf("%w: %w", ErrLost, err))
		}
		return orders, err
	}, backoff.WithBackOff(retryDelays()), backoff.WithMaxElapsedTime(0), backoff.WithNotify(func(err error, next time.Duration) {
		a.Log.Warn("server not reached", "err", err, "again", next)
	}))
	return orders, sent, err
}

func retryDelays() *backoff.ExponentialBackOff {
	delays := backoff.NewExponentialBackOff()
	delays.InitialInterval, delays.MaxInterval = 100*time.Millisecond, 5*time.Second
	return delays
}

// pause waits out a delay and tells whether the context still lasts.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// refused tells whether trying again is of no use.
func refused(err error) bool {
	switch batch.CodeOf(err) {
	case batch.CodeAuthenticationFailed, batch.CodeForbidden, batch.CodeNodeNotFound:
		return true
	}
	return false
}

// localAddress is the address of this machine that others see, or loopback.
func localAddress() string {
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		addresses = nil // then nobody else is told of one
	}
	for _, address := range addresses {
		if ip, ok := address.(*net.IPNet); ok && ip.IP.IsGlobalUnicast() && ip.IP.To4() != nil {
			return ip.IP.String()
		}
	}
	return "127.0.0.1"
}

// open prepares folders and the keeper for the node's settings.
func (a *Agent) open(ctx context.Context, settings *batch.NodeSettings) (err error) {
	a.settings.Store(settings)
	a.desk = newDesk(a)
	if a.tree, err = openTree(a.Root); err != nil {
		return err
	}
	if a.keeper, err = a.openKeeper(ctx, settings.Size); err != nil {
		a.tree.close()
		return err
	}
	defer func() {
		if err != nil {
			a.close()
		}
	}()
	capabilities := a.keeper.Capabilities()
	a.info.Unenforced = slices.Clone(capabilities.Missing)
	a.users = users{
		base: a.UIDBase, admin: capabilities.Root, root: capabilities.Root, own: capabilities.Root && a.UIDBase > 0,
		tasks: &taskNumbers{base: a.UIDBase, more: a.MoreUIDs, busy: map[uint32]bool{}},
	}
	if capabilities.Root && !a.users.own && !uid.Available() {
		a.users.root = false // root of a container that has nobody else
	}
	if err := a.shield(capabilities); err != nil {
		return err
	}
	a.lookAtUsers()
	if err := a.tree.prepare(); err != nil {
		return err
	}
	a.fetcher = newFetcher(a, settings.AllowHosts)
	a.leftovers = &leftovers{agent: a, group: capabilities.MemoryGroup, limit: settings.Size.Memory}
	a.disk = newDiskWatch(a.tree, settings.Size.Disk, a)
	a.files = newFileDesk(a)
	a.desk.find(a.keeper.Held())
	a.desk.owed, a.desk.owing = readOwed(a), true
	return nil
}

// processLimits bound the processes of a node and of one task: enough for
// programs of many threads, few enough that a fork bomb leaves the machine
// alive.
func processLimits(cores int) (node, task int64) {
	node = 1024 * int64(1+cores)
	return node, node / 2
}

// followed hears from the keeper who has taken the room of an execution.
func (a *Agent) followed(ended, next string) {
	if a.desk != nil { // else nobody was in line
		a.desk.followed(ended, next)
	}
}

func (a *Agent) openKeeper(ctx context.Context, size batch.Size) (Keeper, error) {
	processes, taskProcesses := processLimits(size.Cores)
	machine, err := a.machine()
	if err != nil {
		return nil, err
	}
	keeper, err := a.OpenKeeper(ctx, run.Options{
		Machine: machine,
		Dir:     filepath.Join(a.State, "keeper"), Command: a.KeeperCommand, Build: a.Version, Log: a.Log, Followed: a.followed,
		Node: run.NodeLimits{
			MemoryBytes: size.Memory, Cores: float64(size.Cores),
			Processes: processes, TaskProcesses: taskProcesses, FileBytes: size.Disk,
		},
	})
	if err != nil {
		return nil, fmt.Errorf("open keeper: %w", err)
	}
	return keeper, nil
}

// scratchName is the folder of the private one in which the node's temporary
// files are.
const scratchName = "scratch"

// machine is what tasks see instead of the machine that the node is on; nil for a
// keeper that is only to end what runs.
func (a *Agent) machine() (*run.Machine, error) {
	if a.tree == nil {
		return nil, nil
	}
	state, err := filepath.EvalSymlinks(a.State)
	if err == nil {
		state, err = filepath.Abs(state)
	}
	if err != nil {
		return nil, fmt.Errorf("find state folder: %w", err)
	}
	m := &run.Machine{Name: hostName(a.settings.Load().Node), Root: a.tree.path, Scratch: filepath.Join(state, scratchName)}
	if err := os.MkdirAll(m.Scratch, 0o700); err != nil {
		return nil, fmt.Errorf("make scratch folder: %w", err)
	}
	m.Hide, m.Show = resolved(append(a.Hide, state)), resolved(a.Show)
	return m, nil
}

// shield closes the folder around the node's root directory to everybody else on
// the machine, where the node's tasks do not come by it: on a machine of the
// node's own whose folder is hidden but for the way to the root.
func (a *Agent) shield(c run.Capabilities) error {
	m, err := a.machine()
	if err != nil {
		return err
	}
	if a.hidden = ""; c.Machine {
		a.hidden = m.Hidden()
	}
	folder := filepath.Dir(a.tree.path)
	info, err := os.Stat(folder)
	const ours = fs.ModeSticky | 0o700 // and nobody else's
	closed := err == nil && info.Mode()&^fs.ModeDir == ours
	switch {
	case err != nil:
	case a.hidden != "" && !closed:
		err = os.Chmod(folder, ours)
	case a.hidden == "" && closed && c.Root: // by an agent whose node had a machine
		err = os.Chmod(folder, 0o711)
	}
	if err != nil {
		return fmt.Errorf("close node folder to others: %w", err)
	}
	return nil
}

// hostName is the name of a node's own machine, which has 64 bytes at most.
func hostName(node batch.NodeID) string { return string(node[:min(len(node), 64)]) }

// resolved are paths as the kernel has them; those that are not there are left
// out.
func resolved(paths []string) []string {
	var all []string
	for _, path := range paths {
		real, err := filepath.EvalSymlinks(path)
		if err == nil {
			real, err = filepath.Abs(real)
		}
		if err == nil {
			all = append(all, real)
		}
	}
	return all
}

// close leaves the keeper and what runs to the next agent.
func (a *Agent) close() {
	if err := a.keeper.Close(); err != nil {
		a.Log.Error("keeper not left well", "err", err)
	}
	a.tree.close()
}

// shutdownTime bounds the end of all tasks.
const shutdownTime = 30 * time.Second

// shutdown ends every task and the keeper.
func (a *Agent) shutdown(ctx context.Context) {
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTime)
	defer cancel()
	if err := a.keeper.Shutdown(limited); err != nil {
		a.Log.Error("tasks could not be ended", "err", err)
	}
}

// endKept ends what an agent before this one has left running on a node that
// is no more.
func (a *Agent) endKept(ctx context.Context) {
	var err error
	if a.keeper, err = a.openKeeper(ctx, batch.Size{}); err != nil {
		a.Log.Error("tasks of a refused node not found", "err", err)
		return
	}
	a.shutdown(ctx)
}

// now is the time as the machine has it, for what others are told.
func (a *Agent) now() time.Time {
	if a.Now != nil {
		return a.Now()
	}
	return time.Now()
}

// clock is what leases go by. Only differences between its readings count.
func (a *Agent) clock() time.Time {
	if a.Now != nil {
		return a.Now()
	}
	return clock()
}

// note tells the loop that the report has changed. It wakes the loop only if
// the report is not due as soon already.
func (a *Agent) note(how urgency) {
	for {
		before := a.pending.Load()
		if before >= int32(how) {
			return
		}
		if a.pending.CompareAndSwap(before, int32(how)) {
			break
		}
	}
	select {
	case a.changed <- struct{}{}:
	default:
	}
}
