package agent_test

import (
	"testing"
)

func TestTask(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	out := n.run("hello", shell("echo hello; echo bad >&2; env | sort"))
	t.Log(out.ExitCode, out.Failure, n.text(n.place("hello", "stdout.txt")))
}
