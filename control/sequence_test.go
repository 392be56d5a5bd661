package control_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/store"
	"github.com/batchyard/batchyard/store/storetest"
)

// Tasks are numbered in the order in which they were added, and a number tells
// attempts of two tasks of one name apart: it must not go back when the date of
// the machine does, nor when the server is started anew then.
func TestSequenceDoesNotGoBackWithTheClock(t *testing.T) {
	t.Parallel()
	storetest.Each(t, func(t *testing.T, url string) {
		reading := store.Reading{Wall: time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC), Boot: "boot"}
		y := newYardAt(t, url, func() store.Reading { return reading })
		_, err := y.AddPool(ctx(t), acct, poolSpec("pool", 0, 1))
		y.check(err)
		_, err = y.AddJob(ctx(t), acct, jobSpec("job"))
		y.check(err)
		var last int64
		add := func(when string) {
			t.Helper()
			reading.Wall, reading.Up = reading.Wall.Add(time.Millisecond), reading.Up+time.Millisecond
			id := batch.TaskID(fmt.Sprintf("t%d", last))
			_, err := y.AddTask(ctx(t), acct, "job", batch.TaskSpecification{ID: id, CommandLine: "/bin/true"})
			y.check(err)
			task, err := y.Task(ctx(t), acct, "job", id)
			y.check(err)
			if task.Sequence <= last {
				t.Errorf("%s: sequence %d comes after %d", when, task.Sequence, last)
			}
			last = task.Sequence
		}
		add("at noon")
		reading.Wall = reading.Wall.Add(-time.Hour)
		add("an hour set back")
		y.close()
		y.open()
		add("and started anew")
		y.close()
		reading.Wall, reading.Boot, reading.Up = reading.Wall.Add(-24*time.Hour), "next", 0
		y.open()
		add("a day set back while it was off")
	})
}
