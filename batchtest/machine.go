package batchtest

import (
	"context"
	"errors"
	"math"
	"path/filepath"
	"sync"
	"time"

	"github.com/batchyard/batchyard/agent"
	"github.com/batchyard/batchyard/agent/run"
	"github.com/batchyard/batchyard/batch"
)

// Machine is the machine of one node: its agent, which is started whenever it
// has ended and its node has a row, and what the agent's life depends on.
type Machine struct {
	// Name is the machine's name in a schedule: its number.
	Name  string
	ID    batch.NodeID
	Link  *Link
	Clock *Clock

	cluster *Cluster
	token   string
	folder  string
	keeper  *keeper

	mu   sync.Mutex // guards all below
	life *life      // nil while no agent runs
	off  bool       // no agent is started
	left bool       // its node is no more
	lost bool       // it is never on again
}

// life is one agent's process.
type life struct {
	stop context.CancelFunc // asks it to stop
	die  context.CancelFunc // makes it deaf and dumb
	over chan struct{}      // closed when it has ended
}

// restartDelay is how long after its end an agent is started again.
const restartDelay = time.Second

// start runs an agent unless one runs or none should.
func (m *Machine) start() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.life != nil || m.off || m.left || m.cluster.living.Err() != nil {
		return
	}
	running, stop := context.WithCancel(context.Background())
	dead, die := context.WithCancel(context.Background())
	l := &life{stop: stop, die: die, over: make(chan struct{})}
	m.life = l
	a := m.agent(caller{m.Link, dead})
	m.cluster.work.Go(func() {
		err := a.Run(running)
		stop()
		die()
		m.ended(l, err)
	})
}

// agent makes the agent, or one that plays it.
func (m *Machine) agent(server caller) interface {
	Run(ctx context.Context) error
} {
	if m.cluster.options.Robots {
		return newRobot(m, server.client())
	}
	return agent.New(agent.Options{
		Server: server.client(), Root: filepath.Join(m.folder, "root"), State: filepath.Join(m.folder, "state"),
		Version: "test", Now: m.Clock.Now, Log: m.cluster.log,
		AvailableMemory: func() int64 { return math.MaxInt64 },
		OpenKeeper:      func(_ context.Context, o run.Options) (agent.Keeper, error) { return m.keeper.open(o), nil },
	})
}

// ended follows the end of an agent.
func (m *Machine) ended(l *life, err error) {
	m.cluster.note("agent of %s ended: %v", m.Name, err)
	m.mu.Lock()
	m.life = nil
	if errors.Is(err, agent.ErrLeft) {
		m.left = true
	}
	again := !m.off && !m.left
	m.mu.Unlock()
	close(l.over)
	if again && pause(m.cluster.living, restartDelay) && m.cluster.wants(m.ID) {
		m.start()
	}
}

// On starts the agent, if none runs and the machine was not destroyed.
func (m *Machine) On() {
	m.mu.Lock()
	m.off = m.lost
	m.mu.Unlock()
	m.start()
}

// StopAgent stops the agent and starts none. Its processes go on.
func (m *Machine) StopAgent() { m.end(false) }

// KillAgent kills the agent and starts none. Its processes go on.
func (m *Machine) KillAgent() { m.end(true) }

func (m *Machine) end(kill bool) {
	m.mu.Lock()
	m.off = true
	l := m.life
	m.mu.Unlock()
	if l == nil {
		return
	}
	if kill {
		l.die()
	}
	l.stop()
	<-l.over
}

// KillKeeper ends all processes; the agent learns that they are lost.
func (m *Machine) KillKeeper() { m.keeper.lose(false) }

// PowerOff ends all processes and the agent.
func (m *Machine) PowerOff() {
	m.keeper.lose(false)
	m.KillAgent()
	m.keeper.lose(true)
}

// Destroy powers the machine off for ever.
func (m *Machine) Destroy() {
	m.mu.Lock()
	m.lost = true
	m.mu.Unlock()
	m.PowerOff()
}

// Lost tells that the machine was destroyed and the pool still has its node.
func (m *Machine) Lost() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.lost && m.cluster.wants(m.ID)
}

// Left tells that the node has left its pool, as far as its machine knows, or
// was destroyed.
func (m *Machine) Left() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.left || m.lost
}
