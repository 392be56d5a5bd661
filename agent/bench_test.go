package agent_test

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/batchyard/batchyard/batch"
)

// BenchmarkTask compares a task's whole life on a node, with a server that
// answers at once, with two files and a process made directly; two at a time.
// cpu-µs is what all processes together use a task, the task included.
//
// Run it with -benchtime 2000x.
func BenchmarkTask(b *testing.B) {
	b.Run("direct", func(b *testing.B) {
		folder := b.TempDir()
		before := cpuTime(b, 0)
		b.ResetTimer()
		var lanes sync.WaitGroup
		for lane := range 2 {
			lanes.Go(func() {
				for i := lane; i < b.N; i += 2 {
					if err := spawn(fmt.Sprintf("%s/%d", folder, i)); err != nil {
						b.Error(err)
						return
					}
				}
			})
		}
		lanes.Wait()
		b.StopTimer()
		figures(b, cpuTime(b, 0)-before)
	})

	for _, users := range []bool{false, true} {
		name := "agent"
		if users {
			name = "agent-users"
		}
		b.Run(name, func(b *testing.B) {
			n := newNode(b, slots(2), func(n *node) {
				if !users {
					n.options.UIDBase = 0
				}
			})
			n.run("first", shell("true"))
			pid := n.keeperPID()
			before := cpuTime(b, pid)
			b.ResetTimer()
			n.feed(b.N)
			b.StopTimer()
			figures(b, cpuTime(b, pid)-before)
		})
	}
}

// feed runs tasks, of which the node always has a few more than it has slots.
func (n *node) feed(count int) {
	const ahead = 16
	run := &batch.TaskRun{CommandLine: "/bin/true", RequiredSlots: 1, MaxWallClockTime: batch.Unlimited}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.results = nil
	for bound, done := 0, 0; done < count; {
		if more := min(count-bound, ahead-len(n.orders.Tasks)); more > 0 {
			for range more {
				bound++
				n.bind("t"+strconv.Itoa(bound), run)
			}
			n.orders.Revision++
			n.changed()
		}
		news := n.news
		n.mu.Unlock()
		<-news
		n.mu.Lock()
		done += len(n.results)
		n.results = n.results[:0]
	}
}

func spawn(folder string) error {
	if err := os.MkdirAll(folder+"/wd", 0o750); err != nil {
		return err
	}
	var files []*os.File
	for _, name := range []string{"stdout.txt", "stderr.txt"} {
		file, err := os.OpenFile(folder+"/"+name, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o640)
		if err != nil {
			return err
		}
		defer file.Close()
		files = append(files, file)
	}
	p, err := os.StartProcess("/bin/true", []string{"/bin/true"}, &os.ProcAttr{
		Dir: folder + "/wd", Env: []string{"A=b"}, Files: []*os.File{nil, files[0], files[1]}, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return err
	}
	_, err = p.Wait()
	return err
}

func figures(b *testing.B, used time.Duration) {
	b.ReportMetric(float64(used.Microseconds())/float64(b.N), "cpu-µs/op")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tasks/s")
}

// keeperPID is the number of the node's keeper, from its log.
func (n *node) keeperPID() int {
	n.t.Helper()
	found := regexp.MustCompile(`keeper runs" pid=(\d+)`).FindStringSubmatch(n.text(n.options.State + "/keeper/keeper.log"))
	if found == nil {
		n.t.Fatal("the keeper's log does not tell its number")
	}
	pid, err := strconv.Atoi(found[1])
	if err != nil {
		n.t.Fatal(err)
	}
	return pid
}

// cpuTime is the processor time of this process and, unless it is 0, another,
// both with the children they have waited for.
func cpuTime(b *testing.B, pid int) time.Duration {
	b.Helper()
	var sum time.Duration
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var u syscall.Rusage
		if err := syscall.Getrusage(who, &u); err != nil {
			b.Fatal(err)
		}
		sum += time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	if pid == 0 {
		return sum
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Fatal(err)
	}
	_, after, _ := strings.Cut(string(text), ") ")
	for _, field := range strings.Fields(after)[11:15] {
		ticks, err := strconv.Atoi(field)
		if err != nil {
			b.Fatal(err)
		}
		sum += time.Duration(ticks) * (time.Second / 100)
	}
	return sum
}
