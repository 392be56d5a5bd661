package hostile_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/batchyard/batchyard/batch"
)

// TestIsolation looks around from inside tasks, as every kind of user that tasks can have.
func TestIsolation(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("tasks have users of their own only if the server is root; docs/nodes.md says what is left without")
	}
	s, program := newServer(t, ""), taskProgram(t)
	node := s.addNode(t, "yard", map[string]any{"userAccounts": []map[string]any{
		{"name": "plain", "password": "x", "elevationLevel": "nonadmin"},
	}})
	// What there is to be found: a task of another user that runs, and one of the pool's user.
	s.addTask(t, "yard", as(shell("vault", "umask 0; echo "+canary+" >secret; mkdir open; echo x >open/file; echo locked; exec sleep 300", "TOKEN="+canary), "task", "nonadmin"))
	s.awaitStdout(t, "yard", "vault", "locked")
	vault := s.folderOf(node, "yard", "vault")
	state := filepath.Join(s.nodeFolder(node), "state")
	socket := filepath.Join(state, "keeper", "keeper.sock")
	files := []string{
		s.configFile(), s.logFile(), s.folder, s.data, filepath.Join(s.data, "batchyard.db"), filepath.Join(s.data, "batchyard.db-wal"),
		filepath.Join(s.data, "batchyard.db-shm"), filepath.Join(s.data, "blobs"), filepath.Join(s.data, "tls", "ca.key"), filepath.Join(s.data, "nodes"), s.nodeFolder(node),
		state, filepath.Join(state, "node.json"), filepath.Join(state, "agent.lock"), filepath.Join(state, "agent.log"), filepath.Join(state, "boot.json"),
		filepath.Join(state, "keeper"), filepath.Join(state, "keeper", "keeper.log"), socket,
		vault, vault + "/wd", vault + "/wd/secret", vault + "/wd/open/file", vault + "/stdout.txt",
	}
	for _, file := range files {
		if _, err := os.Lstat(file); err != nil {
			t.Fatalf("the test looks for what is not there: %v", err)
		}
	}
	processes := s.processes(t, node)
	settings := []string{
		"FILES=" + strings.Join(files, " "), "PROCESSES=" + strings.Join(processes, " "), "SOCKETS=" + socket,
		"SECRETS=" + strings.Join(s.tokens(t, state), " "),
	}
	for name, task := range map[string]map[string]any{
		"the user of the pool": role("pool", program, "spy", settings...),
		"a user of its own":    as(role("own", program, "spy", settings...), "task", "nonadmin"),
		"another of its own":   as(role("other", program, "spy", settings...), "task", "nonadmin"),
		"a user with a name":   named(role("named", program, "spy", settings...), "plain"),
	} {
		t.Run(name+" finds nothing", func(t *testing.T) {
			t.Parallel()
			if text := s.perform(t, "yard", task); text != "searched\n" {
				t.Errorf("the task could:\n%s", text)
			}
		})
	}
	t.Run("the spy finds what is its own", func(t *testing.T) {
		t.Parallel()
		text := s.perform(t, "yard", shell("mirror", `touch mine; sleep 60 & FILES="$PWD/mine" PROCESSES=$! SECRETS=60 `+roleVariable+`=spy `+program+`; kill $!`))
		for _, want := range []string{"write ", "link ", "rename ", "read environ of", "list descriptors of", "find a secret in cmdline", "signal ", "read limits of"} {
			if !strings.Contains(text, want) {
				t.Errorf("the spy does not find %q of its own:\n%s", want, text)
			}
		}
	})
	t.Run("an administrator is root and has nothing from the agent", func(t *testing.T) {
		t.Parallel()
		// What root may do on the machine of the node is documented. The environment and the
		// descriptors of the agent are not handed down all the same.
		text := s.perform(t, "yard", as(shell("admin", "id -u; env; ls -l /proc/self/fd"), "pool", "admin"))
		if !strings.HasPrefix(text, "0\n") || strings.Contains(text, canary) || strings.Contains(text, "node.json") || strings.Contains(text, "socket:") {
			t.Errorf("the task has:\n%s", text)
		}
	})
	t.Run("nobody becomes the agent by nonsense on its socket", func(t *testing.T) {
		t.Parallel()
		// Tasks do not see the socket, but who is root on the machine reaches it.
		noise := exec.CommandContext(t.Context(), program)
		noise.Env = []string{roleVariable + "=noise " + socket}
		if out, err := noise.CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
		s.perform(t, "yard", shell("after", "true"))
	})
	t.Run("what tasks have in common is no way to each other's files", func(t *testing.T) {
		t.Parallel()
		s.perform(t, "yard", as(shell("leave", `cd "$AZ_BATCH_NODE_SHARED_DIR" && umask 077 && echo x >leave-secret && ln -s /etc/shadow leave-link`), "task", "nonadmin"))
		text := s.perform(t, "yard", shell("take", `cd "$AZ_BATCH_NODE_SHARED_DIR"; cat leave-secret leave-link; rm -f leave-secret; mv leave-link x; echo done`))
		if text != "done\n" {
			t.Errorf("the task could read: %s", text)
		}
		if _, err := os.Lstat(filepath.Join(s.nodeFolder(node), "root", "shared", "leave-secret")); err != nil {
			t.Errorf("the task could remove a file of another: %v", err)
		}
	})
	t.Cleanup(func() {
		if err := s.DeleteJob(context.WithoutCancel(t.Context()), "yard"); err != nil && batch.CodeOf(err) != batch.CodeJobNotFound {
			t.Error(err)
		}
	})
}

func named(task map[string]any, user string) map[string]any {
	task["userIdentity"] = map[string]any{"username": user}
	return task
}

// processes are the numbers of the server, of the node's agent and keepers, and of a task.
func (s *server) processes(t *testing.T, node batch.NodeID) []string {
	t.Helper()
	found := []string{strconv.Itoa(s.command.Process.Pid), "1"}
	names, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[string]bool{}
	for _, proc := range names {
		stderr, _ := os.Readlink(proc + "/fd/2")
		kind := filepath.Base(stderr)
		if strings.HasPrefix(stderr, s.nodeFolder(node)) && slices.Contains([]string{"agent.log", "keeper.log", "stderr.txt"}, kind) {
			found, kinds[kind] = append(found, filepath.Base(proc)), true
		}
	}
	if len(kinds) != 3 {
		t.Fatalf("of agent, keeper and task there are only %v", kinds)
	}
	return found
}

// tokens are the secrets that a node has been given, and the account's keys.
func (s *server) tokens(t *testing.T, state string) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(state, "node.json"))
	if err != nil {
		t.Fatal(err)
	}
	tokens := regexp.MustCompile(`byt_[A-Za-z0-9_-]+`).FindAllString(string(text), -1)
	if len(tokens) == 0 {
		t.Fatalf("the node has no token")
	}
	return append(tokens, canary)
}

// TestRootless says what there is where tasks and agent are one user: a task can do to the node what
// its user can. It still is given nothing of the agent's environment, and the files operations and
// uploads stay in its folder.
func TestRootless(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("the other tests run as such a user already")
	}
	s := newServerOf(t, "", &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}})
	program := taskProgram(t)
	node := s.addNode(t, "yard", nil)
	text := s.perform(t, "yard", shell("look", "id -u; env"))
	if !strings.HasPrefix(text, "65534\n") || strings.Contains(text, canary) {
		t.Errorf("the task has:\n%s", text)
	}
	s.perform(t, "yard", shell("victim", "echo "+canary+" >secret"))
	s.perform(t, "yard", role("evil", program, "tree", "CANARY="+filepath.Join(s.folder, "canary")))
	for name := range links() {
		if strings.HasPrefix(name, "in") {
			continue
		}
		a := s.send(t, s.request(t, "GET", "/jobs/yard/tasks/evil/files/wd%2F"+name, ""))
		want{404, "FileNotFound", ""}.check(t, a, faultOfBatch)
	}
	if err := s.DeleteJob(t.Context(), "yard"); err != nil {
		t.Fatal(err)
	}
	s.await(t, "the folder of the job is gone", func(context.Context) (bool, error) {
		_, err := os.Lstat(filepath.Dir(s.folderOf(node, "yard", "x")))
		return os.IsNotExist(err), nil
	})
	if _, err := os.Stat(filepath.Join(s.folder, "canary")); err != nil {
		t.Error(fmt.Errorf("the removal has gone too far: %w", err))
	}
}
