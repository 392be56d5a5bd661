package control_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/control"
	"github.com/batchyard/batchyard/store/storetest"
)

func TestAddingTasks(t *testing.T) {
	t.Parallel()
	y := newYard(t, storetest.SQLite(t))
	y.prepare(0, 2)
	add := func(job batch.JobID, specs ...batch.TaskSpecification) ([]control.AddResult, error) {
		return y.AddTasks(ctx(t), acct, job, specs)
	}

	t.Run("what is wrong with one keeps no other out", func(t *testing.T) {
		y.addTasks("job", "there", 1)
		large := taskSpec("large")
		large.RequiredSlots = 3
		results, err := add("job", taskSpec("a"), taskSpec("THERE-000"), taskSpec("bad id"), large, taskSpec("b"), taskSpec("B"))
		y.check(err)
		var codes []batch.Code
		for _, r := range results {
			codes = append(codes, batch.CodeOf(r.Err))
		}
		want := []batch.Code{"", batch.CodeTaskExists, batch.CodeInvalidPropertyValue, batch.CodeInvalidPropertyValue, "", batch.CodeTaskExists}
		if diff := cmp.Diff(want, codes); diff != "" {
			t.Error(diff)
		}
		if got := y.job("job").Counts.Active; got != 3 {
			t.Errorf("%d tasks are active", got)
		}
	})
	t.Run("at most a hundred at once", func(t *testing.T) {
		_, err := add("job", make([]batch.TaskSpecification, 101)...)
		y.refused(err, batch.CodeInvalidPropertyValue)
	})
	t.Run("not too large", func(t *testing.T) {
		spec := taskSpec("files")
		for i := range 200 {
			spec.ResourceFiles = append(spec.ResourceFiles, batch.ResourceFile{
				HTTPURL: "http://example.org/" + strings.Repeat("x", 500), FilePath: fmt.Sprint(i),
			})
		}
		_, err := y.AddTask(ctx(t), acct, "job", spec)
		y.refused(err, batch.CodeRequestBodyTooLarge)
	})
	t.Run("not to jobs that are no more", func(t *testing.T) {
		_, err := add("none", taskSpec("a"))
		y.refused(err, batch.CodeJobNotFound)
		_, err = y.AddJob(ctx(t), acct, jobSpec("done"))
		y.check(err)
		_, err = y.TerminateJob(ctx(t), acct, "done", "", batch.Conditions{})
		y.check(err)
		_, err = add("done", taskSpec("a"))
		y.refused(err, batch.CodeJobCompleted)
	})
}
