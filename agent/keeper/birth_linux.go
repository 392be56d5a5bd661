package keeper

import (
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// Resource limits of a task are set on the keeper itself while it forks the
// task, because then the child has them from its first instruction. Setting
// them on the running child would leave a moment to escape, and is refused by
// the kernel where the child has another user and the keeper lacks
// CAP_SYS_RESOURCE. Without that capability the keeper can only lower and raise
// its soft limits, so a task could raise its own again up to the hard limits of
// the agent; with it, both are set.

// openFiles is the limit of descriptors for tasks that name none, unless the
// host's is lower. Programs that close all they might have inherited, one by
// one, stay quick with it.
const openFiles = 8192

// birthLimits are what children of this process inherit at the moment.
type birthLimits struct {
	files, size, procs int64
	mark               uint64
}

// birth lets forks that want the same limits go side by side and makes others
// wait for their turn.
type birth struct {
	canRaise bool
	base     map[int]unix.Rlimit

	mu      sync.Mutex // guards now, active, waiting
	turn    *sync.Cond
	now     birthLimits
	active  int
	waiting int
}

// newBirth sets the limits that never change: no core files, and room for
// descriptors.
func newBirth() (*birth, error) {
	b := &birth{base: map[int]unix.Rlimit{}, canRaise: hasCapability(unix.CAP_SYS_RESOURCE)}
	b.turn = sync.NewCond(&b.mu)
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return nil, fmt.Errorf("forbid core files: %w", err)
	}
	for _, resource := range []int{unix.RLIMIT_NOFILE, unix.RLIMIT_FSIZE, unix.RLIMIT_NPROC, unix.RLIMIT_RTTIME} {
		var lim unix.Rlimit
		if err := unix.Prlimit(0, resource, nil, &lim); err != nil {
			return nil, fmt.Errorf("read resource limits: %w", err)
		}
		if resource == unix.RLIMIT_NOFILE {
			lim.Cur = min(lim.Max, openFiles)
			// Setting it also ends the Go runtime's habit of giving children
			// the limit that this process began with.
			if err := unix.Setrlimit(resource, &lim); err != nil {
				return nil, fmt.Errorf("set limit of open files: %w", err)
			}
		}
		b.base[resource] = lim
	}
	return b, nil
}

// hold makes children be born with want until release is called.
func (b *birth) hold(want birthLimits) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.waiting++
	for b.active > 0 && b.now != want {
		b.turn.Wait()
	}
	b.waiting--
	if b.now != want {
		if err := b.set(want); err != nil {
			b.restore()
			b.turn.Broadcast()
			return err
		}
	}
	b.active++
	return nil
}

// release ends what hold began. The last one restores the keeper's own limits.
func (b *birth) release() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.active--
	if b.active > 0 {
		return
	}
	if b.waiting == 0 && b.set(birthLimits{}) != nil {
		b.restore()
	}
	b.turn.Broadcast()
}

// restore gives the keeper its own limits back, which the kernel never refuses.
func (b *birth) restore() {
	for resource := range b.base {
		_ = b.setOne(resource, 0)
	}
	b.now = birthLimits{}
}

func (b *birth) set(want birthLimits) error {
	steps := []struct {
		resource int
		now      uint64
		want     uint64
	}{
		{unix.RLIMIT_NOFILE, uint64(b.now.files), uint64(want.files)},
		{unix.RLIMIT_FSIZE, uint64(b.now.size), uint64(want.size)},
		{unix.RLIMIT_NPROC, uint64(b.now.procs), uint64(want.procs)},
		{unix.RLIMIT_RTTIME, b.now.mark, want.mark},
	}
	for _, s := range steps {
		if s.now == s.want {
			continue
		}
		if err := b.setOne(s.resource, s.want); err != nil {
			return fmt.Errorf("set resource limits: %w", err)
		}
	}
	b.now = want
	return nil
}

// setOne sets a limit, or restores it if value is 0.
func (b *birth) setOne(resource int, value uint64) error {
	lim := b.base[resource]
	if value > 0 {
		lim.Cur = min(value, lim.Max)
		// The mark needs no hard limit, and one below "none" could not be
		// raised again by a task for itself.
		if b.canRaise && resource != unix.RLIMIT_RTTIME {
			lim.Max = lim.Cur
		}
	}
	return unix.Prlimit(0, resource, &lim, nil)
}

// marks reports whether tasks can be marked.
func (b *birth) marks() bool { return b.base[unix.RLIMIT_RTTIME].Max == unix.RLIM_INFINITY }

// hasCapability reports whether this process may use a capability.
func hasCapability(c int) bool {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&head, &data[0]); err != nil {
		return false
	}
	return data[c/32].Effective&(1<<(c%32)) != 0
}
