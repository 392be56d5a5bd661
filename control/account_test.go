package control_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/batchyard/batchyard/batch"
)

func TestAccountsSeeNothingOfEachOther(t *testing.T) {
	t.Parallel()
	y, node := running(t)
	y.check(y.AddAccount(ctx(t), batch.Account{Name: "other", Keys: [2][]byte{{3}, {4}}}))
	_, err := y.Job(ctx(t), "other", "job")
	y.refused(err, batch.CodeJobNotFound)
	_, err = y.AddPool(ctx(t), "other", poolSpec("pool", 0, 1))
	y.check(err)
	_, err = y.Node(ctx(t), "other", "pool", node.id)
	y.refused(err, batch.CodeNodeNotFound)
	y.refused(y.RebootNode(ctx(t), "other", "pool", node.id, ""), batch.CodeNodeNotFound)
	_, err = y.AddJob(ctx(t), "other", jobSpec("job"))
	y.check(err)

	y.check(y.AddAccount(ctx(t), batch.Account{Name: "other", Keys: [2][]byte{{5}, {6}}}))
	got, err := y.Account("OTHER")
	y.check(err)
	if diff := cmp.Diff([2][]byte{{5}, {6}}, got.Keys); diff != "" {
		t.Errorf("keys after they were replaced:\n%s", diff)
	}
	_, err = y.Account("nobody")
	y.refused(err, batch.CodeAccountNotFound)
}
