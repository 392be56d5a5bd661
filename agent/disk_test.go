package agent

import (
	"testing"
	"time"
)

// What others free does not hide what a command writes.
func TestWhenTheDiskIsMeasured(t *testing.T) {
	t.Parallel()
	const gib = 1 << 30
	a := New(Options{})
	w := newDiskWatch(nil, 8*gib, a)
	defer w.watch("somewhere", nil)()
	for name, c := range map[string]struct {
		free []int64 // look by look, in GiB, after 20 at the measuring
		due  bool
	}{
		"nothing moves":                             {[]int64{20, 20, 20}, false},
		"little is written":                         {[]int64{19, 18, 17}, false},
		"half of what is left is written":           {[]int64{19, 17, 16}, true},
		"eight are freed at once":                   {[]int64{28}, true},
		"as much is freed as written, in turns":     {[]int64{18, 20, 18, 20}, true},
		"more is freed than written, all the while": {[]int64{22, 23, 24}, true},
	} {
		last := measuring{at: time.Now(), room: 8 * gib, free: 20 * gib}
		for _, free := range c.free {
			last.see(free * gib)
		}
		if got := w.due(last); got != c.due {
			t.Errorf("%s: due is %v", name, got)
		}
	}
}
