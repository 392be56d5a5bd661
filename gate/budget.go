package gate

import "sync/atomic"

// Budget bounds the bytes that requests hold together. A nil Budget has no
// bound. Its methods may be called from many goroutines.
type Budget struct {
	size    int64
	used    atomic.Int64
	refused atomic.Uint64
}

// NewBudget makes a budget of so many bytes.
func NewBudget(size int64) *Budget { return &Budget{size: size} }

// Take reserves n bytes or says that they are not there; it never waits,
// because those who hold the rest may be waiting too.
func (b *Budget) Take(n int64) bool {
	if b == nil || b.used.Add(n) <= b.size {
		return true
	}
	b.used.Add(-n)
	b.refused.Add(1)
	return false
}

// Give gives back n bytes that were taken.
func (b *Budget) Give(n int64) {
	if b != nil {
		b.used.Add(-n)
	}
}

// Used is how many bytes are taken.
func (b *Budget) Used() int64 { return b.used.Load() }
