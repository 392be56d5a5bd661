//go:build linux && !amd64

package keeper

// cradle is where a child is forked: here, by the Go runtime.
type cradle struct{}

// fork starts a program in a child.
func (*cradle) fork(file string, b *newborn) (pid int, err error) { return b.forkSlowly(file) }
