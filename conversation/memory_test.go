package conversation

import (
	"testing"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/store"
)

// Of two calls that read one revision, the one that saw less may be remembered
// last. What the other saw is not forgotten: another agent would begin the attempt
// anew.
func TestABeginningIsNotForgotten(t *testing.T) {
	t.Parallel()
	const node = batch.NodeID("node")
	accountOf := func(state batch.TaskState) *account {
		held := []store.HeldTask{{Sequence: 7, Attempt: 1, State: state}}
		return (&account{}).advance(3, held, nil, level{})
	}
	m := &memory{}
	m.of(node)
	m.remember(node, accountOf(batch.TaskRunning), 3)
	m.remember(node, accountOf(batch.TaskActive), 3)
	known, _, _, _ := m.recall(node, "")
	if got := known.tasks(); len(got) != 1 || got[0].State != batch.TaskRunning {
		t.Errorf("remembered are %+v", got)
	}
}
