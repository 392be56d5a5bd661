package agent

import (
	"context"
	"time"

	"github.com/batchyard/batchyard/agent/run"
)

// Keeper is what the agent asks of the parent of its processes. That of
// package run outlives the agent and ends what runs when the lease is over.
type Keeper interface {
	// Capabilities say what can be enforced.
	Capabilities() run.Capabilities
	// Lease lets processes run for so long from now on.
	Lease(d time.Duration) error
	// Process is the execution of a specification; its ID suffices for one
	// that the keeper holds.
	Process(spec run.Spec) run.Execution
	// Held are the executions that the keeper knows.
	Held() []run.Held
	// Forget drops executions whose end need not be known any more.
	Forget(ids ...string)
	// Clear empties the machine of the node's own, see run.Options.Machine, when
	// nothing runs.
	Clear(ctx context.Context) error
	// Close leaves the keeper and what runs to the next agent.
	Close() error
	// Shutdown ends all that runs, and the keeper.
	Shutdown(ctx context.Context) error
}

// processKeeper is the keeper of package run.
type processKeeper struct{ *run.Keeper }

var _ Lined = (*run.Process)(nil)

// Process is the keeper's process of that specification.
func (k processKeeper) Process(spec run.Spec) run.Execution { return k.Keeper.Process(spec) }

func openProcessKeeper(ctx context.Context, o run.Options) (Keeper, error) {
	k, err := run.Open(ctx, o)
	if err != nil {
		return nil, err
	}
	return processKeeper{k}, nil
}
