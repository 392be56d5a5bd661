package agent_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/batchyard/batchyard/agent"
	"github.com/batchyard/batchyard/agent/run"
)

// slowKeeper has no processes and takes its time to clear the node.
type slowKeeper struct {
	clearing, clear chan struct{}
}

func (*slowKeeper) Capabilities() run.Capabilities { return run.Capabilities{Groups: "none"} }
func (*slowKeeper) Lease(time.Duration) error      { return nil }
func (*slowKeeper) Process(run.Spec) run.Execution { return nil }
func (*slowKeeper) Held() []run.Held               { return nil }
func (*slowKeeper) Forget(...string)               {}
func (*slowKeeper) Close() error                   { return nil }
func (*slowKeeper) Shutdown(context.Context) error { return nil }

func (k *slowKeeper) Clear(context.Context) error {
	close(k.clearing)
	<-k.clear
	return nil
}

// TestLeaveDuringABoot has a node leave while a boot is under way that takes long
// to end: it waits for it without calling the server again and again.
func TestLeaveDuringABoot(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := &slowKeeper{clearing: make(chan struct{}), clear: make(chan struct{})}
		n := makeNode(t, func(n *node) {
			n.options.Now = time.Now
			n.options.OpenKeeper = func(context.Context, run.Options) (agent.Keeper, error) { return k, nil }
		})
		n.start()
		<-k.clearing
		n.change(func() { n.orders.Leave, n.most = true, n.calls+100 })
		time.Sleep(time.Minute)
		n.mu.Lock()
		if n.calls > n.most {
			t.Error("it called again and again")
		}
		n.most = 0
		n.mu.Unlock()
		close(k.clear)
		if err := n.exit(); !errors.Is(err, agent.ErrLeft) {
			t.Errorf("agent ended with %v", err)
		}
	})
}
