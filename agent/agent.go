package agent

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/batchyard/batchyard/agent/run"
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
	// Version is the program's version, shown on the node.
	Version string
	// KeeperCommand starts the keeper, see run.Options.
	KeeperCommand []string
	// KillTasksOnStop ends all tasks when the agent is stopped; otherwise they
	// go on for the rest of the lease and the next agent takes them up.
	KillTasksOnStop bool
	// ExitWhenLost ends an agent that holds no task and has not reached its
	// server for a lease, because whoever started it will start it again.
	ExitWhenLost bool
	Log          *slog.Logger
}

// Reports wait this long for company while the node has other work, and twice
// as long when they only tell that something began (architecture section 11).
const (
	endedCoalesce   = 2 * time.Millisecond
	startedCoalesce = 2 * endedCoalesce
)

// ErrLeft is returned by Run when the node was ordered to leave its pool and
// has done so.
var ErrLeft = errors.New("node has left its pool")

// ErrRefused is returned by Run when the server knows no such node or another
// agent has taken its place.
var ErrRefused = errors.New("server refuses this agent")

// Agent runs one compute node.
type Agent struct {
	Options
	instance string
	info     batch.AgentInfo
	settings *batch.NodeSettings
	keeper   *run.Keeper
	tree     *tree
	users    users
	fetcher  *fetcher
	boots    *boots
	desk     *desk
	work     sync.WaitGroup // attempts, boots, file requests
	changed  chan urgency
	applied  time.Time // when the call was sent whose orders were applied last
	disk     *diskWatch
	files    *fileDesk
}

// urgency is how soon a change should be reported.
type urgency int

const (
	whenever urgency = iota // something began
	soon                    // something ended
)

// New makes an agent; Run starts it.
func New(o Options) *Agent {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Agent{Options: o, instance: rand.Text(), changed: make(chan urgency, 1)}
}

// Run brings the node up and serves until ctx ends (nil), the node has left
// its pool (ErrLeft) or the server refuses it (ErrRefused).
func (a *Agent) Run(ctx context.Context) error {
	unlock, err := lockFolder(a.State)
	if err != nil {
		return err
	}
	defer unlock()
	orders, sent, err := a.hello(ctx)
	if err != nil {
		return quiet(ctx, err)
	}
	if err := a.open(ctx, orders); err != nil {
		return quiet(ctx, err)
	}
	defer func() { _ = a.keeper.Close() }()
	working, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	defer a.work.Wait()
	defer stop(errStopping)
	a.desk.begin(working)
	a.apply(orders, sent)
	a.work.Go(func() { a.disk.run(working) })
	err = a.serve(ctx)
	switch {
	case errors.Is(err, ErrLeft), errors.Is(err, ErrRefused), a.KillTasksOnStop:
		a.shutdown(ctx)
	}
	return quiet(ctx, err)
}

// quiet drops the error of having been told to stop.
func quiet(ctx context.Context, err error) error {
	if ctx.Err() != nil && !errors.Is(err, ErrLeft) {
		return nil
	}
	return err
}

// errStopping is the cause of attempts being abandoned, not ended: the keeper
// goes on with them.
var errStopping = errors.New("agent is stopping")

// hello makes the first call, which brings settings and everything this node
// should hold. It repeats until the server is there.
func (a *Agent) hello(ctx context.Context) (batch.NodeOrders, time.Time, error) {
	hostname, _ := os.Hostname()
	a.info = batch.AgentInfo{Version: a.Version, Hostname: hostname, IPAddress: localAddress()}
	var sent time.Time
	orders, err := backoff.Retry(ctx, func() (batch.NodeOrders, error) {
		sent = time.Now()
		orders, err := a.Server.Sync(ctx, batch.NodeReport{Instance: a.instance, Agent: &a.info, NoWait: true})
		if refused(err) {
			return orders, backoff.Permanent(fmt.Errorf("%w: %w", ErrRefused, err))
		}
		if err == nil && orders.Settings == nil {
			return orders, errors.New("the server sent no settings")
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
	addresses, _ := net.InterfaceAddrs()
	for _, address := range addresses {
		if ip, ok := address.(*net.IPNet); ok && ip.IP.IsGlobalUnicast() && ip.IP.To4() != nil {
			return ip.IP.String()
		}
	}
	return "127.0.0.1"
}

// open prepares folders and the keeper for the node's settings.
func (a *Agent) open(ctx context.Context, orders batch.NodeOrders) error {
	a.settings = orders.Settings
	var err error
	if a.tree, err = openTree(a.Root); err != nil {
		return err
	}
	a.keeper, err = run.Open(ctx, run.Options{
		Dir: filepath.Join(a.State, "keeper"), Command: a.KeeperCommand, Build: a.Version, Log: a.Log,
		Node: run.NodeLimits{
			MemoryBytes: a.settings.Size.Memory, Cores: float64(a.settings.Size.Cores),
			Processes: maxProcesses, TaskProcesses: maxTaskProcesses, FileBytes: a.settings.Size.Disk,
		},
	})
	if err != nil {
		return fmt.Errorf("open keeper: %w", err)
	}
	capabilities := a.keeper.Capabilities()
	a.info.Unenforced = capabilities.Missing
	a.users = newUsers(a.UIDBase, capabilities.Root, a.settings)
	if capabilities.Root {
		if closed := closedParent(a.tree.path); closed != "" {
			a.users.own = false
			a.info.Unenforced = append(a.info.Unenforced,
				fmt.Sprintf("tasks run as the agent's user, because %s is closed to other users", closed))
		}
	}
	if err := a.tree.prepare(a.users); err != nil {
		return err
	}
	a.fetcher = newFetcher(a.settings.AllowHosts)
	a.disk = &diskWatch{agent: a, limit: a.settings.Size.Disk}
	a.files = &fileDesk{agent: a, answering: map[string]bool{}}
	a.desk = newDesk(a)
	a.boots, err = openBoots(a)
	return err
}

// Bounds of processes: a node of any size may run this many, a task half.
const (
	maxProcesses     = 8192
	maxTaskProcesses = 4096
)

// shutdown ends every task, removes the keeper and waits.
func (a *Agent) shutdown(ctx context.Context) {
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	if err := a.keeper.Shutdown(limited); err != nil {
		a.Log.Error("tasks could not be ended", "err", err)
	}
}

// note tells the loop that the report has changed; calls coalesce.
func (a *Agent) note(how urgency) {
	for {
		select {
		case a.changed <- how:
			return
		case before := <-a.changed:
			how = max(how, before)
		}
	}
}
