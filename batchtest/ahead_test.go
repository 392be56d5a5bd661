package batchtest_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/batchtest"
)

// TestNodesFarAwayDoNotIdle runs short tasks on a node whose calls are under way
// for so long that it would idle if it was given no more than a moment's work.
// That begins with its first second.
func TestNodesFarAwayDoNotIdle(t *testing.T) {
	t.Parallel()
	const (
		slots, tasks = 2, 1500
		length       = 4 * time.Millisecond
		late         = 100 * time.Millisecond // at most, each way
		ideal        = tasks / slots * length
	)
	template, dir := newTemplate(t), folder(t)
	synctest.Test(t, func(t *testing.T) {
		c := batchtest.New(t, batchtest.Options{Folder: dir, Template: template, Seed: 7, Lease: time.Minute})
		addPool(t, c, 1, slots)
		addJob(t, c, "job", 0, 0)
		for len(c.Machines()) < 1 {
			time.Sleep(time.Second)
		}
		time.Sleep(time.Minute)
		c.Machines()[0].Link.Disturb(batchtest.Noise{DelayRequest: 1, DelayAnswer: 1, Late: late})
		addShort(t, c, tasks, length)
		began := time.Now()
		for c.Witness.Began() < tasks || c.Witness.Running() > 0 {
			time.Sleep(10 * time.Millisecond)
			if time.Since(began) > time.Minute {
				t.Fatalf("%d tasks have begun after a minute", c.Witness.Began())
			}
		}
		took := time.Since(began)
		t.Logf("%v for %v of work, %d calls", took, ideal, calls(c))
		if most := ideal*3/2 + 10*late; took > most {
			t.Errorf("%v of work took %v, want at most %v", ideal, took, most)
		}
		if err := violations(c.Witness); err != nil {
			t.Error(err)
		}
	})
}

func calls(c *batchtest.Cluster) int64 { n, _ := c.Traffic(); return n }

// addShort adds tasks of one length to the job.
func addShort(t *testing.T, c *batchtest.Cluster, tasks int, length time.Duration) {
	t.Helper()
	for first := 0; first < tasks; first += 100 {
		var specs []batch.TaskSpecification
		for i := first; i < min(tasks, first+100); i++ {
			specs = append(specs, batch.TaskSpecification{ID: batch.TaskID(fmt.Sprintf("t-%05d", i)), CommandLine: batchtest.Script(length, 0, 1)})
		}
		_, err := c.Server().AddTasks(t.Context(), batchtest.Account, "job", specs)
		check(t, err)
	}
}
