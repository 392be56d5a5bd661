package run

import (
	"context"
	"errors"
	"time"
)

// Process is an execution by the node's keeper.
type Process struct {
	keeper *Keeper
	spec   Spec
}

var _ Execution = (*Process)(nil)

// Start starts the process. It returns a *StartError if the command is to
// blame, ErrNoLease if the node may not start anything, and ErrKeeperLost if
// the keeper died meanwhile and with it whatever it had started. If ctx ends
// first, the process may run nevertheless: kill it.
func (p *Process) Start(ctx context.Context) (Started, error) {
	return p.begin(ctx, &Message{Start: &p.spec})
}

// LineUp is Start for when there is room: when an execution that yields its room,
// and has as much of it, has ended well. Who is in line first starts first;
// entered is called once those that line up from then on are behind. If ctx ends
// before, it stays in line: Start starts it at once, Withdraw takes it out.
// Errors are those of Start, and ErrNoLine.
func (p *Process) LineUp(ctx context.Context, entered func()) (Started, error) {
	s, err := p.keeper.wait(ctx)
	if err != nil {
		return Started{}, err
	}
	if s.welcome.Version < lineVersion {
		return Started{}, ErrNoLine
	}
	return p.begin(ctx, &Message{LineUp: &p.spec, posted: entered})
}

func (p *Process) begin(ctx context.Context, m *Message) (Started, error) {
	k := p.keeper
	k.expect(p.spec.ID)
	reply, err := k.ask(ctx, m)
	switch {
	case err == nil && reply.Started == nil:
		err = errors.New("keeper did not say how the process was started")
		fallthrough
	case err != nil:
		k.unexpect(ctx, p.spec.ID)
		return Started{}, err
	}
	k.exited(&Held{ID: p.spec.ID, Started: *reply.Started})
	return reply.Started.told(), nil
}

// Withdraw takes the process out of line. If it has been started before it
// returns how; if a keeper that has died may have done so, ErrKeeperLost.
func (p *Process) Withdraw(ctx context.Context) (*Started, error) {
	k := p.keeper
	reply, err := k.ask(ctx, &Message{Withdraw: p.spec.ID})
	if err != nil {
		return nil, err
	}
	if reply.Started != nil {
		k.exited(&Held{ID: p.spec.ID, Started: *reply.Started})
		started := reply.Started.told()
		return &started, nil
	}
	k.unexpect(ctx, p.spec.ID)
	return nil, nil
}

// expect makes room for what the keeper may tell of an execution before Start
// has returned.
func (k *Keeper) expect(id string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.known[id] == nil {
		k.known[id] = &execution{ended: make(chan struct{})}
	}
}

// unexpect undoes expect for an execution that did not start. One whose start
// was not waited for may still be heard of.
func (k *Keeper) unexpect(ctx context.Context, id string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if e := k.known[id]; e != nil && e.started == nil && ctx.Err() == nil {
		delete(k.known, id)
	}
}

// Wait returns how the process ended, once it has and nothing of it is left. It
// returns ErrUnknown if the keeper does not hold it.
func (p *Process) Wait(ctx context.Context) (Result, error) {
	k := p.keeper
	k.mu.Lock()
	e := k.known[p.spec.ID]
	k.mu.Unlock()
	if e == nil {
		return Result{}, ErrUnknown
	}
	select {
	case <-e.ended:
		return *e.result, nil
	default:
	}
	select {
	case <-e.ended:
		return *e.result, nil
	case <-k.done:
		return Result{}, k.closed()
	case <-ctx.Done():
		return Result{}, ctx.Err()
	}
}

// Kill ends the process: politely if grace is positive, and for good once it
// has passed. It returns ErrUnknown if the keeper does not hold it.
func (p *Process) Kill(ctx context.Context, grace time.Duration) error {
	if p.keeper.hasEnded(p.spec.ID) {
		return nil
	}
	_, err := p.keeper.ask(ctx, &Message{Kill: &KillRequest{ID: p.spec.ID, Grace: int64(grace)}})
	switch {
	case errors.Is(err, ErrKeeperLost):
		// It died with its keeper.
		return nil
	case errors.Is(err, ErrUnknown) && p.keeper.hasEnded(p.spec.ID):
		return nil
	}
	return err
}

func (k *Keeper) hasEnded(id string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	e := k.known[id]
	return e != nil && e.result != nil
}
