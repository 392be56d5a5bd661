//go:build linux

package keeper_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// machineTests are those that run anew as another user and in another root.
const machineTests = "^(TestMachine|TestKeeperEndsWithAll|TestKeeperSignals)$"

// TestMachineUnprivileged runs these tests anew as a user who is not root.
func TestMachineUnprivileged(t *testing.T) {
	t.Parallel()
	setpriv := []string{program(t, "setpriv"), "--reuid", "65534", "--regid", "65534", "--clear-groups", "--no-new-privs"}
	folder, test := folderWithSelf(t)
	out, err := runIn(t, folder, append(setpriv, test, "-test.run", machineTests, "-test.v")...)
	if err != nil {
		t.Fatalf("as nobody: %v\n%s", err, out)
	}
	if _, err := runIn(t, folder, append(setpriv, program(t, "unshare"), "--user", "--mount", "true")...); err != nil {
		t.Skip("SKIPPED: this host, or the chroot that this is, allows namespaces to root alone")
	}
	mustHaveMachine(t, out)
}

// TestMachineInChroot runs these tests anew where the root directory is no
// mount, in one that is shared: nothing may be seen there afterwards.
func TestMachineInChroot(t *testing.T) {
	t.Parallel()
	unshare, chroot := program(t, "unshare"), program(t, "chroot")
	newMachine(t)
	folder, test := folderWithSelf(t)
	if _, err := runIn(t, folder, unshare, "--mount", "true"); err != nil {
		t.Skip("SKIPPED: this is a chroot already, in which all tests show what this one does")
	}
	script := `set -e
mount -t tmpfs tmpfs "$1"
mount --make-unbindable "$1"
mkdir "$1/root"
for entry in /*; do
	if test -L "$entry"; then cp -P "$entry" "$1/root$entry"
	elif test -d "$entry"; then mkdir "$1/root$entry"; mount --rbind "$entry" "$1/root$entry"
	fi
done
mount --make-rshared "$1"
cat /proc/self/mountinfo > "$1/before"
"$2" "$1/root" "$3" -test.run "$4" -test.v
cat /proc/self/mountinfo > "$1/after"
diff "$1/before" "$1/after"`
	root := filepath.Join(folder, "fs")
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	out, err := runIn(t, folder, unshare, "--mount", "sh", "-c", script, "sh", root, chroot, test, machineTests)
	if err != nil {
		t.Fatalf("in a chroot: %v\n%s", err, out)
	}
	mustHaveMachine(t, out)
}

// mustHaveMachine takes the output of tests whose nodes must have had machines.
func mustHaveMachine(t *testing.T, out []byte) {
	t.Helper()
	if bytes.Contains(out, []byte("allows no namespaces")) || !strings.Contains(string(out), "--- PASS: TestMachine ") {
		t.Errorf("nodes have no machine of their own:\n%s", out)
	}
}

// program is the path of a program that takes root to be of use.
func program(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if os.Geteuid() != 0 || err != nil {
		t.Skipf("SKIPPED: this takes root and %s", name)
	}
	return path
}

// folderWithSelf is a folder for all users with the test program in it.
func folderWithSelf(t *testing.T) (folder, test string) {
	t.Helper()
	folder, err := os.MkdirTemp("", "nobody")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	if err := os.Chmod(folder, 0o777); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(self(t))
	if err != nil {
		t.Fatal(err)
	}
	test = filepath.Join(folder, "keeper.test")
	if err := os.WriteFile(test, text, 0o755); err != nil {
		t.Fatal(err)
	}
	return folder, test
}

func runIn(t *testing.T, folder string, args ...string) ([]byte, error) {
	t.Helper()
	command := exec.CommandContext(t.Context(), args[0], args[1:]...)
	command.Dir, command.Env = folder, []string{"TMPDIR=" + folder, "PATH=" + os.Getenv("PATH")}
	return command.CombinedOutput()
}
