//go:build linux

package keeper_test

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/batchyard/batchyard/agent/run"
)

// limitedNode is a node whose limits can be enforced, or the test is skipped.
func limitedNode(t *testing.T, change func(*run.Options)) *node {
	t.Helper()
	n := newNode(t, change)
	if c := n.Capabilities(); !c.Memory || !c.Processes || !c.CPU {
		t.Skipf("this host enforces no limits: %v", c.Missing)
	}
	return n
}

func TestMemoryLimit(t *testing.T) {
	t.Parallel()
	const mib = 1 << 20
	t.Run("of a task ends that task", func(t *testing.T) {
		t.Parallel()
		n := limitedNode(t, func(o *run.Options) { o.Node.MemoryBytes = 512 * mib })
		gate := n.fifo("gate")
		other := n.start(n.shell("other", "read x < "+gate.path))
		s := n.helper("hog", "hog")
		s.Limits.MemoryBytes = 64 * mib
		r := n.run(s)
		if r.Reason != run.OOMKilled || r.Signal != int(unix.SIGKILL) || r.OOMKills == 0 || r.MemoryLimit != 64*mib {
			t.Errorf("result %+v", r)
		}
		if r.MemoryPeak != 0 && (r.MemoryPeak < 48*mib || r.MemoryPeak > 65*mib) {
			t.Errorf("peak is %d", r.MemoryPeak)
		}
		// The slot's next task starts afresh.
		if r := n.run(n.shell("next", "exit 1")); r.Reason != run.Exited || r.OOMKills != 0 || r.MemoryLimit != 512*mib {
			t.Errorf("next result %+v", r)
		}
		tell(t, gate.path)
		if r := n.wait(other); r.Reason != run.Exited || r.ExitCode != 0 {
			t.Errorf("other task: %+v", r)
		}
	})
	t.Run("of the node ends the task that took most", func(t *testing.T) {
		t.Parallel()
		n := limitedNode(t, func(o *run.Options) { o.Node.MemoryBytes = 96 * mib })
		gate := n.fifo("gate")
		other := n.start(n.shell("other", "read x < "+gate.path))
		r := n.run(n.helper("hog", "hog"))
		if r.Reason != run.OOMKilled || r.MemoryLimit != 96*mib {
			t.Errorf("result %+v", r)
		}
		tell(t, gate.path)
		if r := n.wait(other); r.Reason != run.Exited || r.ExitCode != 0 {
			t.Errorf("other task: %+v", r)
		}
	})
	t.Run("killing a child only is told", func(t *testing.T) {
		t.Parallel()
		n := limitedNode(t, func(o *run.Options) {})
		s := n.helper("parent", "hog")
		s.Args = []string{"/bin/sh", "-c", s.Args[0] + "; exit 0"}
		s.Limits.MemoryBytes = 64 * mib
		if r := n.run(s); r.Reason == run.Exited && (r.ExitCode != 0 || r.OOMKills == 0) {
			t.Errorf("result %+v", r)
		}
	})
}

func TestForkBombIsBounded(t *testing.T) {
	t.Parallel()
	const limit = 20
	for _, mode := range modes[:2] {
		t.Run(mode.name, func(t *testing.T) {
			t.Parallel()
			n := limitedNode(t, func(o *run.Options) {
				o.Cgroups = mode.cgroups
				o.Node.TaskProcesses = limit
			})
			full := n.fifo("full")
			// Every process tells once that it can fork no more, and goes on
			// trying.
			p := n.start(n.spec("bomb", "/usr/bin/perl", "-e",
				`while (1) { next if defined fork; next if $told++; open F, ">", $ARGV[0]; print F "full\n"; close F }`, full.path))
			if got := full.line(); got != "full" {
				t.Fatalf("bomb says %q", got)
			}
			if count := groupSize(t, n.Held()[0].Started.PID); count < 2 || count > limit {
				t.Errorf("bomb has %d processes", count)
			}
			if r := n.run(n.shell("other", "(exit 8); exit $?")); r.ExitCode != 8 {
				t.Errorf("other task: %+v", r)
			}
			if err := p.Kill(n.ctx(), 0); err != nil {
				t.Fatal(err)
			}
			if r := n.wait(p); r.Reason != run.Killed {
				t.Errorf("result %+v", r)
			}
			if r := n.run(n.shell("next", "(exit 9); exit $?")); r.ExitCode != 9 {
				t.Errorf("next task: %+v", r)
			}
		})
	}
}

// groupSize counts the processes of a process group.
func groupSize(t *testing.T, group int) (count int) {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if pgid, err := unix.Getpgid(pid); err == nil && pgid == group {
			count++
		}
	}
	return count
}

func TestFileLimits(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, n *node) {
		t.Run("size", func(t *testing.T) {
			s := n.shell("flood", "exec head -c 10000000 /dev/zero")
			s.Limits.FileBytes = 1 << 20
			r := n.run(s)
			if r.Signal != int(unix.SIGXFSZ) || r.Reason != run.Exited {
				t.Errorf("result %+v", r)
			}
			if size := len(n.output("flood")); size != 1<<20 {
				t.Errorf("output has %d bytes", size)
			}
		})
		t.Run("descriptors", func(t *testing.T) {
			s := n.shell("files", "ulimit -Sn")
			s.Limits.OpenFiles = 64
			n.run(s)
			n.run(n.shell("usual", "ulimit -Sn; ulimit -Sf"))
			var host unix.Rlimit
			if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &host); err != nil {
				t.Fatal(err)
			}
			want := fmt.Sprintf("64\n%d\nunlimited\n", min(host.Max, 8192))
			if got := n.output("files") + n.output("usual"); got != want {
				t.Errorf("limits are %q, want %q", got, want)
			}
		})
	})
}

func TestProcessorLimit(t *testing.T) {
	t.Parallel()
	n := limitedNode(t, func(o *run.Options) { o.Node.Cores = 0.25 })
	const burn = "i=0; while [ $i -lt 400000 ]; do i=$((i+1)); done"
	r := n.run(n.shell("burn", burn))
	used, took := r.UserCPU+r.SystemCPU, r.Ended.Sub(r.Started)
	if used < 100*time.Millisecond {
		t.Skipf("machine is too fast to tell: %v", used)
	}
	if share := float64(used) / float64(took); share > 0.35 {
		t.Errorf("task had %.2f cores", share)
	}
}

func TestCapabilitiesInWords(t *testing.T) {
	t.Parallel()
	n := newNode(t, func(o *run.Options) { o.Cgroups = run.CgroupsNone })
	c := n.Capabilities()
	if c.Groups != "none" || c.Memory || c.CPU || c.Processes || c.KillAll {
		t.Errorf("capabilities without control groups: %+v", c)
	}
	text := fmt.Sprint(c.Missing)
	for _, want := range []string{"memory limits are not enforced", "processor limits are not enforced"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not said in %s", want, text)
		}
	}
}
