package control_test

import (
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/control"
	"github.com/batchyard/batchyard/store"
	"github.com/batchyard/batchyard/store/storetest"
)

// A busy machine moves rates; what a task costs the processor moves less. The
// figures are of this process, which has both ends of every call in it.

// meter adds up processor time over the parts of a benchmark that count.
type meter struct {
	began, sum time.Duration
}

func processor() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func (m *meter) start(b *testing.B) { b.StartTimer(); m.began = processor() }

func (m *meter) stop(b *testing.B) { m.sum += processor() - m.began; b.StopTimer() }

func (m *meter) report(b *testing.B, tasks int) {
	b.ReportMetric(float64(tasks)/b.Elapsed().Seconds(), "tasks/s")
	b.ReportMetric(float64(m.sum.Microseconds())/float64(tasks), "cpu-µs/task")
}

// BenchmarkAddTasks adds tasks, durably, with many callers at once.
func BenchmarkAddTasks(b *testing.B) {
	for _, c := range []struct{ size, callers int }{{1, 32}, {100, 4}} {
		b.Run(fmt.Sprint(c.size), func(b *testing.B) {
			y := newYard(b, storetest.SQLite(b))
			y.prepare(0, 4)
			next := make(chan int)
			var running sync.WaitGroup
			for range c.callers {
				running.Go(func() {
					for n := range next {
						y.addTasks("job", fmt.Sprintf("t%d", n), c.size)
					}
				})
			}
			var m meter
			m.start(b)
			for n := 0; b.Loop(); n++ {
				next <- n
			}
			close(next)
			running.Wait()
			m.stop(b)
			m.report(b, b.N*c.size)
		})
	}
}

// BenchmarkSync takes new tasks and reports their results, some at a time: what
// a node costs the server.
func BenchmarkSync(b *testing.B) {
	for _, size := range []int{1, 8, 32} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			y := newYard(b, storetest.SQLite(b))
			y.prepare(0, 4)
			node := y.handNode()
			var m meter
			for n := 0; b.Loop(); n++ {
				b.StopTimer()
				ids := y.bindNew(node, n, size)
				m.start(b)
				node.sync() // how to run them
				m.stop(b)
				for _, id := range ids {
					node.end(id, 0)
				}
				m.start(b)
				node.sync() // that they have
				m.stop(b)
				b.StartTimer()
			}
			m.report(b, b.N*size)
		})
	}
}

// bindNew adds tasks and gives them to the node.
func (y *yard) bindNew(node *script, n, size int) []batch.TaskID {
	prefix := fmt.Sprintf("t%d", n)
	y.addTasks("job", prefix, size)
	ids := make([]batch.TaskID, size)
	for i := range ids {
		ids[i] = batch.TaskID(fmt.Sprintf("%s-%03d", prefix, i))
	}
	y.assign(node, ids...)
	return ids
}

// BenchmarkAssign binds tasks to four nodes in turn.
func BenchmarkAssign(b *testing.B) {
	for _, size := range []int{1, 8, 32} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			y := newYard(b, storetest.SQLite(b))
			y.prepare(0, 4)
			nodes := []*script{y.handNode(), y.handNode(), y.handNode(), y.handNode()}
			var m meter
			for n := 0; b.Loop(); n++ {
				b.StopTimer()
				prefix := fmt.Sprintf("t%d", n)
				y.addTasks("job", prefix, size)
				var list []control.Assignment
				for i := range size {
					ref := store.TaskRef{Job: "job", Task: batch.TaskID(fmt.Sprintf("%s-%03d", prefix, i))}
					list = append(list, control.Assignment{TaskRef: ref, Node: nodes[i%4].id})
				}
				m.start(b)
				_, err := y.Assign(ctx(b), acct, decided(list, nil))
				m.stop(b)
				y.check(err)
				b.StartTimer()
			}
			m.report(b, b.N*size)
		})
	}
}

// BenchmarkThrough sends tasks through everything but processes: scheduler,
// nodes that need no time for a task, and their reports.
func BenchmarkThrough(b *testing.B) {
	const tasks = 4000
	for _, nodes := range []int{1, 4} {
		b.Run(fmt.Sprintf("nodes=%d", nodes), func(b *testing.B) {
			var m meter
			for b.Loop() {
				b.StopTimer()
				y := newYard(b, storetest.SQLite(b))
				y.prepare(0, 4)
				y.check(y.StepPool(ctx(b), acct, "pool", func(*batch.Pool, []batch.Node, time.Time) control.PoolStep {
					return control.PoolStep{AddDedicated: nodes}
				}))
				y.addTasks("job", "t", tasks)
				onAll := batch.AllTasksTerminateJob
				_, err := y.PatchJob(ctx(b), acct, "job", batch.JobPatch{OnAllTasksComplete: &onAll}, batch.Conditions{})
				y.check(err)
				m.start(b)
				y.loops()
				y.robots(4, func(batch.TaskOrder) (time.Duration, int) { return 0, 0 })
				for y.job("job").State != batch.JobCompleted {
					<-time.After(20 * time.Millisecond)
				}
				m.stop(b)
				y.stop()
				b.StartTimer()
			}
			m.report(b, b.N*tasks)
		})
	}
}
