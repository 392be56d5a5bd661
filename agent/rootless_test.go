package agent_test

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// nobody is the number of a user without rights.
const nobody = "65534"

// TestUnprivileged runs the core tests anew as a user who is not root.
func TestUnprivileged(t *testing.T) {
	t.Parallel()
	setpriv, err := exec.LookPath("setpriv")
	if !isRoot() || err != nil {
		t.Skip("SKIPPED: running the tests as another user needs root and setpriv")
	}
	folder, err := os.MkdirTemp("", "nobody")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	if err := os.Chmod(folder, 0o777); err != nil {
		t.Fatal(err)
	}
	tests := []string{
		"TestTaskEnvironment", "TestTaskOutcome", "TestWallClock", "TestQueue", "TestRelease", "TestOrders", "TestRestart", "TestLease",
		"TestBoot", "TestLeave", "TestRemoval", "TestFileList", "TestFileRead", "TestFileDelete", "TestFetch", "TestDisk", "TestElevation",
	}
	asNobody := []string{"--reuid", nobody, "--regid", nobody, "--clear-groups", "--no-new-privs"}
	if exec.CommandContext(t.Context(), setpriv, append(asNobody, "unshare", "--user", "--mount", "true")...).Run() == nil {
		tests = append(tests, "TestPrivateTasks") // in a chroot, and on some hosts, namespaces are for root alone
	}
	command := exec.CommandContext(t.Context(), setpriv, append(asNobody,
		copyOfSelf(t, folder), "-test.run", "^("+strings.Join(tests, "|")+")$", "-test.v")...)
	command.Dir, command.Env = folder, []string{"TMPDIR=" + folder, "PATH=" + os.Getenv("PATH")}
	out, err := command.CombinedOutput()
	if err != nil {
		t.Fatalf("as nobody: %v\n%s", err, out)
	}
	for _, name := range tests {
		if !strings.Contains(string(out), "--- PASS: "+name+" ") {
			t.Errorf("%s did not pass:\n%s", name, out)
		}
	}
}

// copyOfSelf is the test program where everybody may run it.
func copyOfSelf(t *testing.T, folder string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	from, err := os.Open(self)
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	path := filepath.Join(folder, "agent.test")
	to, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(to, from); err != nil {
		t.Fatal(err)
	}
	if err := to.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}
