package keeper

import (
	"errors"
	"io"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// ways are the two ways of forking a child.
func ways() map[string]func(string, *newborn) (int, error) {
	return map[string]func(string, *newborn) (int, error){
		"our own":          new(cradle).fork,
		"the Go runtime's": func(file string, b *newborn) (int, error) { return b.forkSlowly(file) },
	}
}

// born runs a script as a child and returns what it writes.
func born(t *testing.T, fork func(string, *newborn) (int, error), b newborn, script string) string {
	t.Helper()
	runtime.LockOSThread() // the child dies with the thread
	defer runtime.UnlockOSThread()
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	b.args = append([]string{"sh", "-c", script, "sh"}, b.args...)
	b.files = [3]uintptr{nullDevice(t), out.Fd(), out.Fd()}
	pid, err := fork("/bin/sh", &b)
	out.Close()
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(in)
	if err != nil {
		t.Fatal(err)
	}
	var status unix.WaitStatus
	if _, err := unix.Wait4(pid, &status, 0, nil); err != nil || status.ExitStatus() != 0 {
		t.Fatalf("status %v, %v", status, err)
	}
	return string(text)
}

const look = `pwd; env | sort; echo "$@"; umask; id -u; id -g; id -G
grep -E 'Sig|PPid|NoNewPrivs|NSpid' /proc/$$/status | grep -vE 'SigCgt|SigQ|NSpid'
read pid name state parent group session rest < /proc/$$/stat; echo $((group - pid)) $((session - pid))
exec ls /proc/self/fd`

func nullDevice(t *testing.T) uintptr {
	t.Helper()
	fd, err := unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return uintptr(fd)
}

// TestWaysOfForking compares what a child finds.
func TestWaysOfForking(t *testing.T) {
	tests := map[string]newborn{
		"in a session of its own": {dir: "/", env: []string{"PATH=/usr/bin:/bin"}, session: true, group: -1},
		"with many arguments, long and empty ones": {
			dir: "/tmp", group: -1, session: true,
			args: []string{strings.Repeat("x", 100_000), "", "a b", "ü"}, env: []string{"PATH=/usr/bin:/bin", "EMPTY=", "LONG=" + strings.Repeat("y", 50_000)},
		},
	}
	if os.Geteuid() == 0 {
		tests["as another user with groups"] = newborn{
			dir: "/", env: []string{"PATH=/usr/bin:/bin"}, session: true, group: -1,
			user: &syscall.Credential{Uid: 65534, Gid: 65533, Groups: []uint32{7, 8}},
		}
	}
	for name, b := range tests {
		t.Run(name, func(t *testing.T) {
			got := map[string]string{}
			for way, fork := range ways() {
				got[way] = born(t, fork, b, look)
			}
			if diff := cmp.Diff(got["the Go runtime's"], got["our own"]); diff != "" {
				t.Errorf("children differ (-runtime +ours):\n%s", diff)
			}
		})
	}
}

func TestForkingFails(t *testing.T) {
	tests := []struct {
		name, file, dir string
		want            error
	}{
		{"a program that is missing", "/bin/missing", "/", unix.ENOENT},
		{"a folder that is missing", "/bin/true", "/missing", unix.ENOENT},
		{"a program that is none", "/etc/passwd", "/", unix.EACCES},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			null := nullDevice(t)
			for way, fork := range ways() {
				b := &newborn{args: []string{"x"}, dir: test.dir, files: [3]uintptr{null, null, null}, session: true, group: -1}
				if pid, err := fork(test.file, b); !errors.Is(err, test.want) {
					t.Errorf("%s: process %d, %v, wanted %v", way, pid, err, test.want)
				}
			}
		})
	}
	t.Run("once and then not", func(t *testing.T) {
		var c cradle
		null := nullDevice(t)
		b := newborn{args: []string{"x"}, dir: "/", files: [3]uintptr{null, null, null}, group: -1}
		if _, err := c.fork("/bin/missing", &b); !errors.Is(err, unix.ENOENT) {
			t.Errorf("missing program: %v", err)
		}
		if got := born(t, c.fork, newborn{dir: "/", env: []string{"PATH=/usr/bin:/bin"}, group: -1}, "echo well"); got != "well\n" {
			t.Errorf("the next child says %q", got)
		}
	})
}
