package faults_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
)

// cluster is a PostgreSQL server of the test's own, because the test ends it as a crash would.
type cluster struct {
	home string
	bin  string
	user *syscall.Credential // PostgreSQL refuses to be root
}

// newCluster makes and starts a PostgreSQL server that ends with the test.
func newCluster(t *testing.T) *cluster {
	t.Helper()
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil || len(found) == 0 {
		t.Skip("there is no PostgreSQL server under /usr/lib/postgresql; make test-e2e installs one")
	}
	// A socket's path may have 107 bytes at most, so not under a long TMPDIR.
	home, err := os.MkdirTemp("/tmp", "batchyard-postgres-")
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{home: home, bin: filepath.Dir(found[len(found)-1])}
	t.Cleanup(func() { os.RemoveAll(home) })
	if err := os.Chmod(home, 0o755); err != nil {
		t.Fatal(err)
	}
	if os.Getuid() == 0 {
		c.becomeOwner(t)
	}
	c.run(t, "initdb", "-D", c.data(), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync")
	c.start(t)
	t.Cleanup(func() { c.crash(t) })
	return c
}

// becomeOwner gives the folder to the user that Debian's package made.
func (c *cluster) becomeOwner(t *testing.T) {
	t.Helper()
	owner, err := user.Lookup("postgres")
	if err != nil {
		t.Fatal(err)
	}
	uid, err1 := strconv.ParseUint(owner.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(owner.Gid, 10, 32)
	if err1 != nil || err2 != nil {
		t.Fatalf("user postgres is %s:%s", owner.Uid, owner.Gid)
	}
	if err := os.Chown(c.home, int(uid), int(gid)); err != nil {
		t.Fatal(err)
	}
	c.user = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

func (c *cluster) data() string { return filepath.Join(c.home, "data") }
func (c *cluster) url() string  { return "postgres://postgres@/postgres?host=" + c.home }

// start starts the server and returns when it answers. Its fsync is off: processes are killed
// here, the machine is not, and what has been written survives a process.
func (c *cluster) start(t *testing.T) {
	t.Helper()
	c.run(t, "pg_ctl", "-D", c.data(), "-l", filepath.Join(c.home, "log"), "-w", "-t", "60",
		"-o", fmt.Sprintf("-k %s -c listen_addresses= -c fsync=off -c max_connections=100", c.home), "start")
}

// crash ends all processes of the server at once; the next start recovers from its log.
func (c *cluster) crash(t *testing.T) {
	t.Helper()
	c.run(t, "pg_ctl", "-D", c.data(), "-m", "immediate", "-w", "-t", "60", "stop")
}

func (c *cluster) run(t *testing.T, program string, arguments ...string) {
	t.Helper()
	command := exec.CommandContext(context.WithoutCancel(t.Context()), filepath.Join(c.bin, program), arguments...)
	command.Dir = "/" // which its user may enter
	command.Env = append(os.Environ(), "LC_ALL=C")
	command.SysProcAttr = &syscall.SysProcAttr{Credential: c.user}
	out, err := os.OpenFile(filepath.Join(c.home, "commands"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	command.Stdout, command.Stderr = out, out // a pipe would wait for the server that is started
	if err := command.Run(); err != nil {
		text, _ := os.ReadFile(out.Name())
		t.Errorf("%s: %v\n%s", program, err, text)
	}
}
