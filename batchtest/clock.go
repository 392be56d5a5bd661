package batchtest

import (
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/batchyard/batchyard/store"
)

// Clock is the clock of one machine. Its date may be set; its monotonic
// reading, which differences of times go by, cannot.
type Clock struct{ ahead atomic.Int64 }

// Now is the time of the bubble under the date of the machine.
func (c *Clock) Now() time.Time {
	return dated(time.Now(), time.Duration(c.ahead.Load()))
}

// read is what a server reads: the machine is up as long as the bubble is there.
func (c *Clock) read() store.Reading {
	now := time.Now()
	return store.Reading{Wall: c.Now().Round(0), Boot: "bubble", Up: time.Duration(now.UnixNano())}
}

// Jump sets the date ahead, or back if by is negative, by whole seconds.
func (c *Clock) Jump(by time.Duration) { c.ahead.Add(int64(by.Truncate(time.Second))) }

// layout is how package time keeps a time with a monotonic reading: a flag, 33
// bits of seconds since 1885 and 30 bits of nanoseconds, then the reading.
type layout struct {
	wall      uint64
	monotonic int64
	location  *time.Location
}

// dated is a moment of the bubble on a machine whose date is ahead, as time.Now
// would answer there. In a bubble that function gives no monotonic reading, and
// package time has no way to ask for one beside another date. The test of Clock
// fails if a later release keeps times in another way.
func dated(t time.Time, ahead time.Duration) time.Time {
	date := t.Add(ahead)
	since1885 := uint64(date.Unix() - time.Date(1885, 1, 1, 0, 0, 0, 0, time.UTC).Unix())     //nolint:gosec // positive for all dates of tests
	made := layout{1<<63 | since1885<<30 | uint64(date.Nanosecond()), t.UnixNano(), time.UTC} //nolint:gosec // below a second
	return *(*time.Time)(unsafe.Pointer(&made))                                               //nolint:gosec // see above
}
