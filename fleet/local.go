package fleet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/control"
	"github.com/cenkalti/backoff/v5"
)

// Nodes is what the provider asks of the verbs.
type Nodes interface {
	// DesiredNodes are all nodes that have a row.
	DesiredNodes(ctx context.Context) ([]control.NodeWanted, error)
	// NewNodeToken makes the secret that the node's agent shows; one made
	// before is void.
	NewNodeToken(ctx context.Context, node batch.NodeID) (string, error)
	// NodeNotHeard notes on a node that nobody has heard of it, with the last
	// word of its agent, unless it was heard.
	NodeNotHeard(ctx context.Context, node batch.NodeID, word string) (noted bool, err error)
}

// Local runs nodes as child processes of the server, each with a folder of its
// own. Agents outlive the server: a new one finds them by the lock that each
// holds in its folder.
type Local struct {
	Nodes Nodes
	// Changed is signalled when the rows of nodes have changed.
	Changed <-chan struct{}
	// Dir has a folder a node.
	Dir string
	// Max is the largest number of nodes on this machine; a row beyond it
	// waits.
	Max int
	// Command makes the agent's command line. Folder exists, is private and
	// keeps its content.
	Command func(node control.NodeWanted, folder string, token func() (string, error)) (*exec.Cmd, error)
	// Stale tells whether the agent that runs in a folder was told something by
	// an earlier server that does not hold any more, like where the server is.
	// It is then started anew, which its tasks do not notice. Nil: never.
	Stale func(folder string) bool
	// KillOnStop ends agents when Run ends; else they go on.
	KillOnStop bool
	// Patience is how long a folder is left alone of which no row has spoken
	// since Run began; a minute if zero.
	Patience time.Duration
	Log      *slog.Logger

	rooms  rooms
	beyond int // how many nodes are wanted in vain, as it was last said
	agents map[batch.NodeID]*agentProcess
	ended  chan batch.NodeID
	work   sync.WaitGroup
}

// agentProcess is one node's agent.
type agentProcess struct {
	stop context.CancelCauseFunc
	gone atomic.Bool // its node has no row any more
}

// Why an agent is no longer followed.
var (
	errStopping = errors.New("the provider is stopping")
	errGone     = errors.New("the node has no row and its agent did not end")
)

// nodePrefix begins the id of every node that the service makes.
const nodePrefix = "tvmps_"

// goneGrace is how long an agent without a row may take to learn from the
// server that it is not wanted, and to end its tasks and itself.
const goneGrace = time.Minute

// safetyTick bounds how long a lost signal goes unnoticed.
const safetyTick = 30 * time.Second

// Run makes nodes be until ctx ends.
func (l *Local) Run(ctx context.Context) error {
	l.agents, l.ended = map[batch.NodeID]*agentProcess{}, make(chan batch.NodeID)
	if err := os.MkdirAll(l.Dir, 0o711); err != nil {
		return fmt.Errorf("make folder of nodes: %w", err)
	}
	tick := time.NewTicker(safetyTick)
	defer tick.Stop()
	if l.Patience == 0 {
		l.Patience = strangerPatience
	}
	patience := time.NewTimer(l.Patience)
	defer patience.Stop()
	for {
		if err := batch.Guard(func() error { return l.reconcile(ctx) }); err != nil && ctx.Err() == nil {
			l.Log.Error("nodes not brought in line", "err", err)
		}
		select {
		case <-ctx.Done():
			l.finish()
			return nil
		case <-l.Changed:
		case <-tick.C:
		case <-patience.C:
			l.rooms.lookAtStrangers = true
		case node := <-l.ended:
			delete(l.agents, node)
		}
	}
}

// finish stops watching, and ends agents if that is wanted.
func (l *Local) finish() {
	for _, agent := range l.agents {
		agent.stop(errStopping)
	}
	done := make(chan struct{})
	go func() { l.work.Wait(); close(done) }()
	for {
		select {
		case <-l.ended:
		case <-done:
			return
		}
	}
}

// reconcile starts what is missing and removes what has no row.
func (l *Local) reconcile(ctx context.Context) error {
	wanted, err := l.Nodes.DesiredNodes(ctx)
	if err != nil {
		return fmt.Errorf("read wanted nodes: %w", err)
	}
	beyond := len(wanted) - l.Max
	if beyond > 0 && beyond > l.beyond {
		l.Log.Warn("pools want more nodes than this machine may run", "wanted", len(wanted), "max", l.Max)
	}
	l.beyond = beyond
	rows := make(map[batch.NodeID]bool, len(wanted))
	for _, node := range wanted {
		rows[node.Node] = true
		if l.agents[node.Node] == nil && len(l.agents) < l.Max {
			if err := l.start(ctx, node); err != nil {
				l.Log.Error("node not started", "node", node.Node, "err", err)
			}
		}
	}
	for id, agent := range l.agents {
		if !rows[id] && agent.gone.CompareAndSwap(false, true) {
			time.AfterFunc(goneGrace, func() { agent.stop(errGone) })
		}
	}
	return l.sweep(ctx, rows)
}

// start watches over one node's agent for as long as it has a row.
func (l *Local) start(ctx context.Context, node control.NodeWanted) error {
	folder := filepath.Join(l.Dir, string(node.Node))
	if err := os.MkdirAll(folder, 0o711); err != nil {
		return fmt.Errorf("make node folder: %w", err)
	}
	following, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	agent := &agentProcess{stop: stop}
	l.agents[node.Node] = agent
	l.work.Go(func() {
		defer stop(nil)
		err := batch.Guard(func() error { l.keep(following, agent, node, folder); return nil })
		if err != nil {
			l.Log.Error("agent no longer watched", "node", node.Node, "err", err)
		}
		l.ended <- node.Node
	})
	return nil
}

// healthy is how long an agent must have run for its end to be news: after it
// the delay before the next start begins small again.
const healthy = time.Minute

// keep has an agent run in folder until ctx ends or the node is gone.
func (l *Local) keep(ctx context.Context, agent *agentProcess, node control.NodeWanted, folder string) {
	delays := backoff.NewExponentialBackOff()
	delays.InitialInterval, delays.MaxInterval = 200*time.Millisecond, 30*time.Second
	for ctx.Err() == nil {
		begun := time.Now()
		process, err := l.runOrFind(ctx, node, folder)
		if err == nil {
			hush := l.listen(ctx, node, folder)
			l.follow(ctx, process)
			hush()
			if process.succeeded() {
				return // the node has left its pool
			}
		}
		if ctx.Err() != nil || agent.gone.Load() || batch.CodeOf(err) == batch.CodeNodeNotFound {
			return
		}
		if time.Since(begun) > healthy {
			delays.Reset()
		}
		wait := delays.NextBackOff()
		word := lastWord(folder)
		if err != nil {
			word = err.Error()
		}
		l.Log.Warn("agent ended, starting it again", "node", node.Node, "pool", node.Pool, "after", wait, "err", err, "said", word)
		l.notHeard(ctx, node, word)
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
}

// runOrFind starts the agent, or finds one that an earlier server started.
func (l *Local) runOrFind(ctx context.Context, node control.NodeWanted, folder string) (process, error) {
	unlock, free, err := tryLock(folder)
	if err != nil {
		return nil, err
	}
	if !free {
		return l.find(folder)
	}
	unlock()
	command, err := l.Command(node, folder, func() (string, error) { return l.Nodes.NewNodeToken(ctx, node.Node) })
	if err != nil {
		return nil, fmt.Errorf("make agent command: %w", err)
	}
	detach(command)
	if err := command.Start(); err != nil {
		return nil, fmt.Errorf("start agent: %w", err)
	}
	return newChild(command), nil
}

// find finds the agent that runs in a folder, and ends it if it is stale; its
// end has a new one started.
func (l *Local) find(folder string) (process, error) {
	found, err := findAgent(folder)
	if err == nil && l.Stale != nil && l.Stale(folder) {
		err = found.terminate()
	}
	return found, err
}

// process is an agent, ours or an earlier server's.
type process interface {
	// wait returns when it has ended or ctx has.
	wait(ctx context.Context)
	// succeeded tells whether it has ended and meant to.
	succeeded() bool
	terminate() error
	kill() error
}

// stopGrace is how long an agent may take to end its tasks.
const stopGrace = 40 * time.Second

// follow waits for an agent. When ctx ends first, the agent goes on without
// us, unless it should not.
func (l *Local) follow(ctx context.Context, p process) {
	p.wait(ctx)
	if ctx.Err() == nil || errors.Is(context.Cause(ctx), errStopping) && !l.KillOnStop {
		return
	}
	if p.terminate() != nil {
		return // it has ended
	}
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopGrace)
	defer cancel()
	p.wait(limited)
	if limited.Err() != nil {
		_ = p.kill()
	}
}
