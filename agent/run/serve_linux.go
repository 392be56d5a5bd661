package run

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

const (
	socketName = "keeper.sock"
	// helloTime is how long a new connection may stay silent.
	helloTime = 10 * time.Second
)

// socketPath is where the keeper of a node listens. An address may have 107
// bytes; a longer one is written by way of an open folder, which must stay open
// until done is called.
func socketPath(dir string) (path string, done func(), err error) {
	path = filepath.Join(dir, socketName)
	if len(path) <= 107 {
		return path, func() {}, nil
	}
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", nil, fmt.Errorf("open %s: %w", dir, err)
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", fd, socketName), func() { unix.Close(fd) }, nil
}

// listen makes the node's socket. The caller holds the lock, so that one found
// there belongs to nobody.
func listen(dir string) (*net.UnixListener, error) {
	path, done, err := socketPath(dir)
	if err != nil {
		return nil, err
	}
	defer done()
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove old socket: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	// The name may be gone when the listener is closed; the next keeper removes
	// what is there.
	l.SetUnlinkOnClose(false)
	return l, nil
}

// peerIsUs reports whether the other end of a socket is a process of the same
// user. The folder is private; this is the second lock on the door.
func peerIsUs(c *net.UnixConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var cred *unix.Ucred
	var cerr error
	err = raw.Control(func(fd uintptr) {
		cred, cerr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err := errors.Join(err, cerr); err != nil {
		return err
	}
	if int(cred.Uid) != os.Geteuid() {
		return fmt.Errorf("peer is user %d", cred.Uid)
	}
	return nil
}

func (k *keeper) accept() error {
	for {
		c, err := k.listener.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			// Out of descriptors: those that are open will be closed.
			k.log.Warn("connection was not accepted", "error", err)
			time.Sleep(100 * time.Millisecond)
			continue
		}
		if err := peerIsUs(c); err != nil {
			k.log.Warn("connection was refused", "error", err)
			_ = c.Close()
			continue
		}
		k.hub.serving.Go(func() { k.serve(c) })
	}
}

// visit is an agent that has said hello.
type visit struct {
	link  *link
	hello message
	over  chan struct{}
}

// serve waits for an agent to say hello and has it attended to until it goes.
func (k *keeper) serve(c *net.UnixConn) {
	l, err := newLink(c)
	if err != nil {
		_ = c.Close()
		return
	}
	defer l.close()
	v := &visit{link: l, over: make(chan struct{})}
	_ = c.SetReadDeadline(time.Now().Add(helloTime))
	if err := l.receive(&v.hello); err != nil || v.hello.Hello == nil {
		k.log.Warn("connection did not say hello", "error", err)
		return
	}
	_ = c.SetReadDeadline(time.Time{})
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
	v.link.in.block()
	k.greet(v.link, &v.hello)
	var m message
	for {
		if err := v.link.receive(&m); err != nil {
			k.log.Debug("agent has gone", "error", err)
			return
		}
		k.handle(v.link, &m, th)
	}
}

// greet answers hello. From the listing on, the agent hears of every end. What
// an earlier agent had started last is waited for: an agent that does not find
// it listed takes it for lost, and has it run a second time.
func (k *keeper) greet(l *link, m *message) {
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
	if err := h.groups.limitNode(h.node); err != nil {
		k.log.Error("node could not be limited", "error", err)
		able.Missing = append(able.Missing, fmt.Sprintf("limits of the node as a whole could not be set: %v", err))
	}
	for h.forking > 0 {
		h.settled.Wait()
	}
	h.reporter = l
	_ = l.send(&message{ID: m.ID, Welcome: &welcome{
		Version:      min(protocolVersion, m.Hello.Version),
		Instance:     k.instance,
		Build:        k.config.Build,
		PID:          os.Getpid(),
		Capabilities: able,
		Held:         h.list(),
	}})
}

// quiet stops reporting to an agent that has gone. The next one would not expect
// what it had lined up.
func (k *keeper) quiet(l *link) {
	k.holder.mu.Lock()
	defer k.holder.mu.Unlock()
	k.holder.clearLine(nil)
	if k.holder.reporter == l {
		k.holder.reporter = nil
	}
}

func (k *keeper) handle(l *link, m *message, th *thread) {
	id := m.ID
	switch {
	case m.Start != nil:
		if l.in.buffered() {
			// There is more to do: fork beside it.
			th = nil
		}
		k.holder.start(m.Start, th, func(s *Started, err error) {
			if err != nil {
				_ = l.send(&message{ID: id, Error: toWire(err)})
				return
			}
			_ = l.send(&message{ID: id, Started: s})
		})
	case m.LineUp != nil:
		k.holder.lineUp(m.LineUp, func(s *Started, err error) {
			if err != nil {
				_ = l.send(&message{ID: id, Error: toWire(err)})
				return
			}
			_ = l.post(&message{ID: id, Started: s})
		})
	case m.Withdraw != "":
		k.holder.withdraw(m.Withdraw, func(s *Started) { _ = l.send(&message{ID: id, Started: s}) })
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
		_ = l.send(&message{ID: id, Held: held})
	case m.Shutdown:
		k.hub.stop(func(err error) { answer(l, id, err) })
	case m.Bye:
		// Requests are handled in order: those before are done.
		answer(l, id, nil)
	default:
		answer(l, id, errors.New("request is not known to this keeper"))
	}
}

// answer ends a request that has no other reply. Requests with ID 0 want none.
func answer(l *link, id uint64, err error) {
	if id == 0 {
		return
	}
	m := &message{ID: id}
	if err != nil {
		m.Error = toWire(err)
	}
	_ = l.send(m)
}

// capabilities tells what this keeper enforces.
func (k *keeper) capabilities() Capabilities {
	g, b := k.holder.groups, k.holder.forker.birth
	c := Capabilities{
		Root:      os.Geteuid() == 0,
		Groups:    g.mode,
		Memory:    g.limitsMemory(),
		CPU:       g.limitsCPU(),
		Processes: g.limitsProcesses(),
		KillAll:   g.mode != "none",
		Missing:   append([]string(nil), g.missing...),
	}
	if !c.Root {
		c.Missing = append(c.Missing, "the agent does not run as root: all tasks run as its user, and can reach each other's files and the agent's")
	}
	if !b.canRaise {
		c.Missing = append(c.Missing, "the agent lacks CAP_SYS_RESOURCE: limits of file size and open files are soft, a task may raise its own")
	}
	if g.mode == "none" && !b.marks() {
		c.Missing = append(c.Missing, "the host limits real-time processor time: tasks cannot be marked, so what leaves a task's session outlives it")
	}
	return c
}
