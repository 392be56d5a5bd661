package batchtest_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/batchtest"
)

// TestAgentTakesUpMoreThanOneAnswerHolds starts an agent anew on a node whose
// tasks have specifications that do not fit into one answer: each task goes on,
// and none is forgotten.
func TestAgentTakesUpMoreThanOneAnswerHolds(t *testing.T) {
	t.Parallel()
	template, dir := newTemplate(t), folder(t)
	synctest.Test(t, func(t *testing.T) {
		const tasks, slots = 100, 128
		c := batchtest.New(t, batchtest.Options{Folder: dir, Template: template, Lease: time.Minute})
		addPool(t, c, 1, slots)
		addJob(t, c, "job", 0, 0)
		large := strings.Repeat("x", 250<<10)
		for i := range tasks {
			_, err := c.Server().AddTask(t.Context(), batchtest.Account, "job", batch.TaskSpecification{
				ID: batch.TaskID(fmt.Sprint("task-", i)), CommandLine: batchtest.Script(5*time.Minute, 0, 1), RequiredSlots: 1,
				EnvironmentSettings: []batch.EnvironmentSetting{{Name: "LARGE", Value: large}},
			})
			check(t, err)
		}
		time.Sleep(time.Minute)
		if n := c.Witness.Running(); n != tasks {
			t.Fatalf("%d tasks run, want %d", n, tasks)
		}
		m := c.Machines()[0]
		m.KillAgent()
		m.On()
		time.Sleep(30 * time.Second)
		if n := c.Witness.Running(); n != tasks {
			t.Errorf("%d tasks run after another agent has begun, want %d", n, tasks)
		}
		time.Sleep(10 * time.Minute)
		if n := c.Witness.Began(); n != tasks {
			t.Errorf("%d runs were begun for %d tasks", n, tasks)
		}
		for i := range tasks {
			id := batch.TaskID(fmt.Sprint("task-", i))
			task, err := c.Server().Task(t.Context(), batchtest.Account, "job", id)
			check(t, err)
			if task.State != batch.TaskCompleted || task.ExecutionInfo.Result != batch.ResultSuccess {
				t.Errorf("%s is %s, %+v", id, task.State, task.ExecutionInfo)
			}
		}
		check(t, violations(c.Witness))
	})
}
