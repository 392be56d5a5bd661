//go:build linux

package keeper_test

import (
	"fmt"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// BenchmarkSpawn compares a process started and awaited through the keeper with
// one that this process starts itself, one and two at a time. cpu-µs is what all
// processes together have used a task, the tasks included.
func BenchmarkSpawn(b *testing.B) {
	for _, lanes := range []int{1, 2} {
		b.Run(fmt.Sprintf("direct-%d", lanes), func(b *testing.B) {
			dir := b.TempDir()
			measure(b, nil, lanes, func(i int) error {
				out, err := os.OpenFile(fmt.Sprintf("%s/%d.out", dir, i%lanes), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o640)
				if err != nil {
					return err
				}
				defer out.Close()
				p, err := os.StartProcess("/bin/true", []string{"/bin/true"}, &os.ProcAttr{
					Dir: dir, Env: []string{"A=b"}, Files: []*os.File{nil, out, out},
					Sys: &syscall.SysProcAttr{Setsid: true},
				})
				if err != nil {
					return err
				}
				_, err = p.Wait()
				return err
			})
		})
		b.Run(fmt.Sprintf("keeper-%d", lanes), func(b *testing.B) {
			n := newNode(b)
			out := n.dir + "/"
			measure(b, n, lanes, func(i int) error {
				s := n.spec(fmt.Sprint(i), "/bin/true")
				s.Stdout = out + fmt.Sprint(i%lanes)
				s.Stderr = s.Stdout
				p := n.Process(s)
				if _, err := p.Start(b.Context()); err != nil {
					return err
				}
				_, err := p.Wait(b.Context())
				n.Forget(s.ID)
				return err
			})
		})
	}
}

func measure(b *testing.B, n *node, lanes int, one func(i int) error) {
	before := cpu(b, n)
	b.ResetTimer()
	var group errgroup.Group
	for lane := range lanes {
		group.Go(func() error {
			for i := lane; i < b.N; i += lanes {
				if err := one(i); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		b.Fatal(err)
	}
	b.StopTimer()
	b.ReportMetric(float64((cpu(b, n)-before).Microseconds())/float64(b.N), "cpu-µs/op")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tasks/s")
}

// cpu is the processor time of this process and the keeper, with their children.
func cpu(b *testing.B, n *node) time.Duration {
	var sum time.Duration
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var u unix.Rusage
		if err := unix.Getrusage(who, &u); err != nil {
			b.Fatal(err)
		}
		sum += time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	if n == nil {
		return sum
	}
	var ticks [4]int64
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", n.keeperPID()))
	if err != nil {
		b.Fatal(err)
	}
	scanTicks(b, string(text), &ticks)
	for _, t := range ticks {
		sum += time.Duration(t) * (time.Second / 100)
	}
	return sum
}
