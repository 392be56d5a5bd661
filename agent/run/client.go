package run

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// Options say how to reach a node's keeper, or start one.
type Options struct {
	// Dir is the node's private folder for the keeper. It is made, and closed
	// to everybody else. All keepers of a node have the same, and no two nodes.
	Dir string
	// Command starts a keeper; it must call KeeperMain. Empty means this
	// program with the arguments "agent" and "keeper".
	Command []string
	// Env is the environment of the keeper process, otherwise empty. Tasks see
	// nothing of it.
	Env []string
	// Node limits all tasks together.
	Node NodeLimits
	// Cgroups restricts which control groups are used; empty means whatever the
	// host offers.
	Cgroups Cgroups
	// CgroupParent names the control group below which the node's are made, as
	// a path below the mount point. Empty means to find one.
	CgroupParent string
	// Machine has tasks see a machine of the node's own, where the host allows
	// it; nil leaves them the one that the keeper is on.
	Machine *Machine
	// Linger is how long a keeper waits with neither agent nor lease before it
	// ends; 0 means ten minutes.
	Linger time.Duration
	// Build names this version of the program. A keeper of another build that
	// holds nothing is replaced.
	Build string
	// Followed is told, before anybody else learns of an end, which execution
	// was in line and has taken the room of the one that ended. It is called in
	// the order in which that happened, perhaps more than once; nil ignores.
	Followed func(ended, next string)
	// Log is where the agent's side logs; nil discards.
	Log *slog.Logger
}

// Cgroups restricts the control groups that a keeper uses.
type Cgroups string

const (
	// CgroupsNone does without.
	CgroupsNone Cgroups = "none"
	// CgroupsV1 uses the first version only.
	CgroupsV1 Cgroups = "v1"
)

// Keeper is the agent's end of the connection to the node's keeper process. If
// the connection breaks it is made again, with a new keeper if the old one has
// died.
type Keeper struct {
	options Options
	log     *slog.Logger
	cancel  context.CancelFunc
	done    chan struct{} // closed when the connection is given up for good

	mu       sync.Mutex // guards all below
	session  *session   // nil while there is no connection
	changed  chan struct{}
	able     Capabilities
	known    map[string]*execution
	lease    int64
	leaving  bool  // do not connect again
	why      error // what requests answer then
	instance string
}

// execution is what the agent's side knows of one. Started is nil until the
// keeper has said so.
type execution struct {
	started *Started
	result  *Result
	ended   chan struct{} // closed once result is set
}

// Open connects to the keeper of the node, and starts one if there is none.
// What the keeper held before is known at once: see Held.
func Open(ctx context.Context, o Options) (*Keeper, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Linger <= 0 {
		o.Linger = 10 * time.Minute
	}
	if err := prepareDir(&o); err != nil {
		return nil, err
	}
	k := &Keeper{
		options: o,
		log:     o.Log,
		done:    make(chan struct{}),
		changed: make(chan struct{}),
		known:   map[string]*execution{},
		why:     ErrClosed,
	}
	s, err := k.connect(ctx)
	if err != nil {
		return nil, err
	}
	k.adopt(s)
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	k.cancel = cancel
	go k.run(life, s)
	return k, nil
}

// Close ends the connection. The keeper and the tasks live on, as long as the
// lease lasts.
func (k *Keeper) Close() error {
	k.mu.Lock()
	s := k.session
	k.leaving = true
	k.mu.Unlock()
	if s != nil {
		// What was sent before, such as Forget, is to be known before the next
		// agent asks.
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		_, _ = s.call(ctx, &Message{Bye: true})
		cancel()
		s.link.Fail(ErrClosed)
	}
	k.cancel()
	<-k.done
	return nil
}

// Shutdown kills all tasks, removes the node's control groups, ends the keeper
// and closes. It is for a node that leaves its pool; who waits for a task still
// gets its result.
func (k *Keeper) Shutdown(ctx context.Context) error {
	for {
		s, err := k.wait(ctx)
		if err != nil {
			return err
		}
		_, err = s.call(ctx, &Message{Shutdown: true})
		if errors.Is(err, errGone) {
			// It died; the next one is told the same.
			continue
		}
		if err == nil {
			// The keeper closes the connection as its last act.
			select {
			case <-s.gone:
			case <-ctx.Done():
				err = ctx.Err()
			}
		}
		err = errors.Join(err, k.Close())
		if err != nil {
			return fmt.Errorf("shut keeper down: %w", err)
		}
		return nil
	}
}

// Clear empties the machine of the node's own as if it had been started anew, see
// [Options.Machine]. Nothing may run meanwhile.
func (k *Keeper) Clear(ctx context.Context) error {
	for {
		s, err := k.wait(ctx)
		if err != nil {
			return err
		}
		if !s.welcome.Capabilities.Machine {
			return nil
		}
		_, err = s.call(ctx, &Message{Clear: true})
		if !errors.Is(err, errGone) { // else it died; the next one is told the same
			return err
		}
	}
}

// hurry is from when on before a lease ends the next one is told at once.
const hurry = time.Second

// Lease tells the keeper that the agent's lease ends in d, counted from now.
// Once it has, the keeper kills all tasks. Without a lease no task is started.
func (k *Keeper) Lease(d time.Duration) error {
	until := BootTime() + int64(d)
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.leaving {
		return k.why
	}
	had := k.lease
	k.lease = until
	if k.session == nil {
		return nil // the next hello says it
	}
	// A lease that is far from its end is in no hurry to become longer. If
	// sending fails the connection is gone, and the next hello says it too.
	send := k.session.link.Send
	if until >= had && had > BootTime()+int64(hurry) {
		send = k.session.link.Post
	}
	_ = send(&Message{Lease: until})
	return nil
}

// Process is the execution of a process by this keeper. To wait for one that an
// earlier agent started, the ID is enough.
func (k *Keeper) Process(s Spec) *Process { return &Process{keeper: k, spec: s} }

// Held lists what the keeper holds and nobody has forgotten, oldest first.
// After Open this is what has survived the agent's absence: a task that the
// agent believes to run and that is not listed is lost, and certainly dead.
func (k *Keeper) Held() []Held {
	k.mu.Lock()
	defer k.mu.Unlock()
	var all []Held
	for id, e := range k.known {
		if e.started != nil {
			all = append(all, Held{ID: id, Started: e.started.told(), Result: e.result})
		}
	}
	slices.SortFunc(all, func(a, b Held) int { return a.Started.At.Compare(b.Started.At) })
	return all
}

// Forget drops executions that have ended and whose results are safe elsewhere.
// Until then the keeper remembers them.
func (k *Keeper) Forget(ids ...string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var gone []string
	for _, id := range ids {
		if e := k.known[id]; e != nil && e.result != nil {
			delete(k.known, id)
			gone = append(gone, id)
		}
	}
	if k.session != nil && len(gone) > 0 {
		// What does not arrive is said again after the next hello.
		_ = k.session.link.Post(&Message{Forget: gone})
	}
}

// Capabilities tells what the keeper enforces on this host.
func (k *Keeper) Capabilities() Capabilities {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.able
}

// run reads from the keeper, and connects again whenever the connection breaks,
// until Close.
func (k *Keeper) run(ctx context.Context, s *session) {
	defer close(k.done)
	for {
		err := s.read(k.exited)
		k.detach(s, err)
		for pause := time.Duration(0); ; pause = min(max(2*pause, 50*time.Millisecond), 5*time.Second) {
			if k.gone() || sleep(ctx, pause) != nil {
				return
			}
			k.log.Warn("keeper connection is lost, connecting again", "error", err)
			if s, err = k.connect(ctx); err == nil {
				break
			}
		}
		k.adopt(s)
	}
}

// sleep waits for d or the end of ctx.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return ctx.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (k *Keeper) gone() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.leaving
}

// adopt takes up a new connection and what the keeper at its end holds.
func (k *Keeper) adopt(s *session) {
	for i := range s.welcome.Held {
		k.followed(&s.welcome.Held[i])
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	first := k.instance == ""
	held := map[string]bool{}
	for i := range s.welcome.Held {
		h := &s.welcome.Held[i]
		held[h.ID] = true
		if e := k.known[h.ID]; e != nil || first {
			k.note(h)
		} else if h.Result != nil {
			// Forgotten while the connection was down.
			_ = s.link.Send(&Message{Forget: []string{h.ID}})
		}
	}
	for id, e := range k.known {
		if e.started != nil && e.result == nil && !held[id] {
			k.log.Error("task was lost with its keeper", "task", id)
			k.note(&Held{ID: id, Started: *e.started, Result: &Result{
				Reason: Lost, ExitCode: -1, Started: e.started.At, Ended: time.Now(),
			}})
		}
	}
	if k.lease > s.lease {
		_ = s.link.Send(&Message{Lease: k.lease})
	}
	k.instance, k.able, k.session = s.welcome.Instance, s.welcome.Capabilities, s
	close(k.changed)
	k.changed = make(chan struct{})
}

// detach gives up a broken connection, for good if another agent has come.
func (k *Keeper) detach(s *session, err error) {
	s.close()
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case errors.Is(err, ErrSuperseded):
		k.log.Error("another agent has taken over the keeper of this node")
		k.leaving, k.why = true, ErrSuperseded
	case s.final:
		k.leaving = true
	}
	k.session = nil
	close(k.changed)
	k.changed = make(chan struct{})
}

func (k *Keeper) exited(h *Held) {
	k.followed(h)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.note(h)
}

// followed tells who has taken the room of an execution that has ended. The
// caller does not hold the lock.
func (k *Keeper) followed(h *Held) {
	if k.options.Followed != nil && h.Result != nil && h.Result.Next != "" {
		k.options.Followed(h.ID, h.Result.Next)
	}
}

// note learns what has become of an execution. The caller holds the lock.
func (k *Keeper) note(h *Held) {
	e := k.known[h.ID]
	if e == nil {
		e = &execution{ended: make(chan struct{})}
		k.known[h.ID] = e
	}
	if e.started == nil {
		e.started = &h.Started
	}
	if e.result == nil && h.Result != nil {
		e.result = h.Result
		close(e.ended)
	}
}

// wait returns the connection once there is one.
func (k *Keeper) wait(ctx context.Context) (*session, error) {
	for {
		k.mu.Lock()
		s, changed, leaving, why := k.session, k.changed, k.leaving, k.why
		k.mu.Unlock()
		switch {
		case leaving:
			return nil, why
		case s != nil:
			return s, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// closed is the error of requests after the connection was given up for good.
func (k *Keeper) closed() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.why
}

// ask sends a request until it is answered, again if the connection breaks. It
// returns ErrKeeperLost if the keeper that it was first sent to has died, who
// may have carried it out.
func (k *Keeper) ask(ctx context.Context, m *Message) (*Message, error) {
	first := ""
	for {
		s, err := k.wait(ctx)
		if err != nil {
			return nil, err
		}
		if first != "" && first != s.welcome.Instance {
			return nil, ErrKeeperLost
		}
		first = s.welcome.Instance
		reply, err := s.call(ctx, m)
		if !errors.Is(err, errGone) {
			return reply, err
		}
	}
}
