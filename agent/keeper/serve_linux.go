package keeper

import (
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/batchyard/batchyard/agent/link"
	"github.com/batchyard/batchyard/agent/run"
)

// helloTime is how long a new connection may stay silent.
const helloTime = 10 * time.Second

func (k *keeper) accept() error {
	for {
		l, err := k.listener.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return nil
		case errors.Is(err, link.ErrStranger):
			k.log.Warn("connection was refused", "error", err)
		case err != nil:
			// Out of descriptors: those that are open will be closed.
			k.log.Warn("connection was not accepted", "error", err)
			time.Sleep(100 * time.Millisecond)
		default:
			k.hub.serving.Go(func() { k.serve(&run.Wire{Link: l}) })
		}
	}
}

// visit is an agent that has said hello.
type visit struct {
	link  *run.Wire
	hello run.Message
	over  chan struct{}
}

// serve waits for an agent to say hello and has it attended to until it goes.
func (k *keeper) serve(l *run.Wire) {
	defer l.Close()
	v := &visit{link: l, over: make(chan struct{})}
	_ = l.Patience(helloTime)
	if err := l.Receive(&v.hello); err != nil || v.hello.Hello == nil {
		k.log.Warn("connection did not say hello", "error", err)
		return
	}
	_ = l.Patience(0)
	l.Speak(v.hello.Hello.Version)
	if err := k.hub.join(l); err != nil {
		return
	}
	defer k.hub.leave(l)
	k.agents <- v
	<-v.over
}

// attend serves one agent after another. Its thread waits for requests in the
// kernel itself and forks most tasks, so that nobody else need be woken for
// one. It never ends, since its children would end with it.
func (k *keeper) attend() {
	th, err := k.holder.newThread(false, false)
	if err != nil {
		k.log.Error("tasks are started by other threads", "error", err)
		th = nil
	}
	for v := range k.agents {
		k.attendOne(v, th)
		close(v.over)
	}
}

func (k *keeper) attendOne(v *visit, th *thread) {
	defer k.quiet(v.link)
	v.link.Block()
	k.greet(v.link, &v.hello)
	var m run.Message
	for {
		if err := v.link.Receive(&m); err != nil {
			k.log.Debug("agent has gone", "error", err)
			return
		}
		k.handle(v.link, &m, th)
	}
}

// greet answers hello. From the listing on, the agent hears of every end. What
// an earlier agent had started last is waited for: an agent that does not find
// it listed takes it for lost, and has it run a second time.
func (k *keeper) greet(l *run.Wire, m *run.Message) {
	h := k.holder
	if m.Hello.Lease > 0 {
		if err := h.setLease(m.Hello.Lease, k.timer); err != nil {
			k.log.Error("lease could not be set", "error", err)
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.node = m.Hello.Node
	able := k.capabilities()
	if err := h.groups.LimitNode(h.node); err != nil {
		k.log.Error("node could not be limited", "error", err)
		able.Missing = append(able.Missing, fmt.Sprintf("limits of the node as a whole could not be set: %v", err))
	}
	for h.forking > 0 {
		h.settled.Wait()
	}
	h.reporter = l
	_ = l.Send(&run.Message{ID: m.ID, Welcome: &run.Welcome{
		Version:      min(run.ProtocolVersion, m.Hello.Version),
		Instance:     k.instance,
		Build:        k.config.Build,
		PID:          k.pid,
		Capabilities: able,
		Held:         h.list(),
	}})
}

// quiet stops reporting to an agent that has gone. The next one would not expect
// what it had lined up.
func (k *keeper) quiet(l *run.Wire) {
	k.holder.mu.Lock()
	defer k.holder.mu.Unlock()
	k.holder.clearLine(nil)
	if k.holder.reporter == l {
		k.holder.reporter = nil
	}
}

func (k *keeper) handle(l *run.Wire, m *run.Message, th *thread) {
	id := m.ID
	switch {
	case m.Start != nil:
		if l.Buffered() {
			// There is more to do: fork beside it.
			th = nil
		}
		k.holder.start(m.Start, th, func(s *run.Started, err error) {
			if err != nil {
				_ = l.Send(&run.Message{ID: id, Error: run.ToWire(err)})
				return
			}
			_ = l.Send(&run.Message{ID: id, Started: s})
		})
	case m.LineUp != nil:
		k.holder.lineUp(m.LineUp, func(s *run.Started, err error) {
			if err != nil {
				_ = l.Send(&run.Message{ID: id, Error: run.ToWire(err)})
				return
			}
			_ = l.Post(&run.Message{ID: id, Started: s})
		})
	case m.Withdraw != "":
		k.holder.withdraw(m.Withdraw, func(s *run.Started) { _ = l.Send(&run.Message{ID: id, Started: s}) })
	case m.Kill != nil:
		answer(l, id, k.holder.kill(m.Kill.ID, time.Duration(m.Kill.Grace)))
	case m.Forget != nil:
		k.holder.forget(m.Forget)
	case m.Lease != 0:
		answer(l, id, k.holder.setLease(m.Lease, k.timer))
	case m.List:
		k.holder.mu.Lock()
		held := k.holder.list()
		k.holder.mu.Unlock()
		_ = l.Send(&run.Message{ID: id, Held: held})
	case m.Clear:
		k.hub.serving.Go(func() { answer(l, id, k.clearMachine()) })
	case m.Shutdown:
		k.hub.stop(func(err error) { answer(l, id, err) })
	case m.Bye:
		// Requests are handled in order: those before are done.
		answer(l, id, nil)
	default:
		answer(l, id, errors.New("request is not known to this keeper"))
	}
}

// clearMachine empties the node's own machine, if it has one.
func (k *keeper) clearMachine() error {
	if k.machine == nil {
		return nil
	}
	return k.machine.Clear()
}

// answer ends a request that has no other reply. Requests with ID 0 want none.
func answer(l *run.Wire, id uint64, err error) {
	if id == 0 {
		return
	}
	m := &run.Message{ID: id}
	if err != nil {
		m.Error = run.ToWire(err)
	}
	_ = l.Send(m)
}

// capabilities tells what this keeper enforces.
func (k *keeper) capabilities() run.Capabilities {
	g, b := k.groups, k.holder.forker.birth
	c := run.Capabilities{
		Root:        os.Geteuid() == 0,
		Groups:      g.Mode,
		Memory:      g.LimitsMemory(),
		CPU:         g.LimitsCPU(),
		Processes:   g.LimitsProcesses(),
		KillAll:     g.Mode != "none",
		Machine:     k.machine != nil,
		MemoryGroup: g.MemoryFolder(),
		Missing:     append([]string(nil), g.Missing...),
	}
	if !c.Root {
		c.Missing = append(c.Missing, "the agent does not run as root: all tasks run as its user, and can reach each other's files and the agent's")
	}
	if k.machine != nil && !k.machine.Separates() {
		c.Missing = append(c.Missing, "the kernel is older than 5.2: what tasks with users of their own leave in /tmp, /var/tmp, /dev/shm and as IPC objects stays")
	}
	if !b.canRaise {
		c.Missing = append(c.Missing, "the agent lacks CAP_SYS_RESOURCE: limits of file size and open files are soft, a task may raise its own")
	}
	if g.Mode == "none" && !b.marks() {
		c.Missing = append(c.Missing, "the host limits real-time processor time: tasks cannot be marked, so what leaves a task's session outlives it")
	}
	return c
}
