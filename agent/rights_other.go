//go:build !linux

package agent

import "github.com/batchyard/batchyard/agent/run"

// as does work with the agent's rights, which no agent of this system has more
// of than its tasks.
func as(_ *run.User, work func() error) error { return work() }
