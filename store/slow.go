//go:build !slowcommit || !linux

package store

// slowCommit does nothing: commits take as long as the disk does. A program built
// with the tag slowcommit has them take longer, see slow_on.go.
func slowCommit() {}
