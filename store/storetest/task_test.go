package storetest_test

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/store"
	"github.com/batchyard/batchyard/store/storetest"
)

// short cuts a task down to the short form.
func short(t batch.Task) batch.Task {
	t.TaskSpecification = batch.TaskSpecification{
		ID: t.ID, RequiredSlots: t.RequiredSlots,
		Constraints: &batch.TaskConstraints{MaxTaskRetryCount: t.Constraints.MaxTaskRetryCount, RetentionTime: t.Constraints.RetentionTime},
	}
	return t
}

func shorts(tasks []batch.Task) (cut []batch.Task) {
	for _, t := range tasks {
		cut = append(cut, short(t))
	}
	return cut
}

func bySequence(tasks []batch.Task) []batch.Task {
	slices.SortFunc(tasks, func(a, b batch.Task) int { return cmp.Compare(a.Sequence, b.Sequence) })
	return tasks
}

// bind binds tasks to a node, in the values and in the database.
func bind(t *testing.T, db *store.DB, y *yard, node batch.NodeID, which ...int) {
	t.Helper()
	var bindings []store.Binding
	for _, i := range which {
		if err := y.tasks[i].Bind(node); err != nil {
			t.Fatal(err)
		}
		bindings = append(bindings, store.Binding{TaskRef: store.TaskRef{Job: "JOB", Task: y.tasks[i].ID}, Node: node})
	}
	got := changed(t, db, func(tx *store.Tx) ([]store.Bound, error) {
		bound, err := tx.BindTasks("acct", "Pool", bindings)
		load := store.NodeLoad{Node: node, Tasks: len(bound), Slots: len(bound)}
		return bound, errors.Join(err, tx.BindNodes("acct", []store.NodeLoad{load}))
	})
	if len(got) != len(which) {
		t.Fatalf("%d of %d were bound", len(got), len(which))
	}
}

func list(l store.List) func(tx *store.Tx) ([]batch.Task, error) {
	return func(tx *store.Tx) ([]batch.Task, error) { return tx.Tasks("acct", "job", l) }
}

func TestTasks(t *testing.T) {
	t.Parallel()
	storetest.EachOpen(t, func(t *testing.T, db *store.DB) {
		y := newYard(t, db, 250)
		diff(t, y.tasks, view(t, db, list(store.List{})))
		get := func(tx *store.Tx) (batch.Task, error) { return tx.Task("acct", "JOB", "TASK-0007") }
		diff(t, y.tasks[7], view(t, db, get))
		diff(t, y.tasks[101:103], view(t, db, list(store.List{After: "task-0100", Max: 2})))

		t.Run("only new keys are inserted", func(t *testing.T) {
			again := []batch.Task{
				newTask(t, &y.job, "new", 5001), newTask(t, &y.job, "task-0003", 5002), newTask(t, &y.job, "NEW", 5003), newTask(t, &y.job, "newer", 5004),
			}
			got := changed(t, db, func(tx *store.Tx) ([]bool, error) { return tx.InsertTasks(again) })
			diff(t, []bool{true, false, false, true}, got)
			diff(t, again[0], view(t, db, func(tx *store.Tx) (batch.Task, error) { return tx.Task("acct", "job", "new") }))
			update(t, db, func(tx *store.Tx) error {
				return errors.Join(tx.DeleteTask("acct", "job", "NEW"), tx.DeleteTask("acct", "job", "newer"))
			})
		})

		t.Run("those named are found", func(t *testing.T) {
			refs := []store.TaskRef{{Job: "job", Task: "TASK-0001"}, {Job: "Job", Task: "task-0002"}, {Job: "job", Task: "none"}, {Job: "none", Task: "task-0001"}}
			got := view(t, db, func(tx *store.Tx) ([]batch.Task, error) { return tx.TasksByRef("acct", refs) })
			diff(t, y.tasks[1:3], bySequence(got))
		})

		t.Run("update keeps everything", func(t *testing.T) {
			task := &y.tasks[7]
			task.Constraints.MaxTaskRetryCount, task.Constraints.RetentionTime = ptr(-1), ptr(batch.Hour)
			task.AffinityInfo = &batch.AffinityInfo{AffinityID: "TVMPS_001_d"}
			if err := task.End("ended", noon.Add(time.Second)); err != nil {
				t.Fatal(err)
			}
			update(t, db, func(tx *store.Tx) error { return tx.UpdateTask(task) })
			diff(t, *task, view(t, db, get))
		})

		t.Run("those of some states come in the order of their changes", func(t *testing.T) {
			byChange := func(l store.ChangeList) []batch.Task {
				return view(t, db, func(tx *store.Tx) ([]batch.Task, error) { return tx.TasksByChange("acct", "job", l) })
			}
			both := []batch.TaskState{batch.TaskCompleted, batch.TaskActive}
			first := byChange(store.ChangeList{States: both, Max: 250})
			want := slices.Concat(y.tasks[:7], y.tasks[8:], y.tasks[7:8])
			diff(t, want, first)
			diff(t, shorts(want[247:]), byChange(store.ChangeList{
				States: both, Max: 10, AfterTime: want[246].StateTransitionTime.UnixMicro(), After: batch.Key(want[246].ID), Detail: store.TaskRun,
			}))
			ended := y.tasks[7].StateTransitionTime.UnixMicro()
			diff(t, y.tasks[7:8], byChange(store.ChangeList{States: both, Max: 10, From: &ended}))
			before := ended - 1
			diff(t, 249, len(byChange(store.ChangeList{States: both, Max: 300, To: &before})))
			diff(t, 0, len(byChange(store.ChangeList{States: both[:1], Max: 300, To: &before})))
		})

		t.Run("lists have as much of each as is wanted", func(t *testing.T) {
			part := func(d store.Detail) []batch.Task {
				return view(t, db, func(tx *store.Tx) ([]batch.Task, error) {
					return tx.TasksInPart("acct", "job", store.List{After: "task-0005", Until: "task-0007", Max: 5}, d)
				})
			}
			diff(t, y.tasks[6:8], part(store.WholeTask))
			diff(t, shorts(y.tasks[6:8]), part(store.TaskRun))
			var states []batch.Task
			for _, task := range y.tasks[6:8] {
				states = append(states, batch.Task{
					TaskSpecification: batch.TaskSpecification{ID: task.ID}, Account: task.Account, Job: task.Job, Stamp: task.Stamp,
					CreationTime: task.CreationTime, State: task.State, StateTransitionTime: task.StateTransitionTime,
					PreviousState: task.PreviousState, PreviousStateTransitionTime: task.PreviousStateTransitionTime,
				})
			}
			diff(t, states, part(store.TaskState))
		})

		t.Run("a key is found by its place", func(t *testing.T) {
			at := func(between int64) (key string, err error) {
				err = db.View(t.Context(), func(tx *store.Tx) error {
					key, err = tx.TaskKeyAt("acct", "job", "task-0100", between)
					return err
				})
				return key, err
			}
			if key, err := at(9); key != "task-0110" || err != nil {
				t.Errorf("got %q (%v)", key, err)
			}
			if _, err := at(149); !errors.Is(err, store.ErrNotFound) {
				t.Errorf("got %v", err)
			}
		})

		t.Run("filter looks at columns", func(t *testing.T) {
			got := view(t, db, list(store.List{Max: 10, Where: func(first int) (string, []any) {
				return fmt.Sprintf("state = $%d AND ended >= $%d AND failure->>'code' = $%d", first, first+1, first+2),
					[]any{"completed", noon.UnixMicro(), "TaskEnded"}
			}}))
			diff(t, y.tasks[7:8], got)
		})

		t.Run("slices of rows are deleted", func(t *testing.T) {
			left := 250
			for {
				n := changed(t, db, func(tx *store.Tx) (int, error) {
					n, _, err := tx.DeleteTasks("acct", "job", 100)
					return n, err
				})
				left -= n
				if n < 100 {
					break
				}
			}
			if left != 0 {
				t.Errorf("%d are left", left)
			}
		})
	})
}

func TestRunsOfTasks(t *testing.T) {
	t.Parallel()
	storetest.EachOpen(t, func(t *testing.T, db *store.DB) {
		y := newYard(t, db, 12)
		one, two := y.nodes[0].ID, y.nodes[1].ID
		bind(t, db, &y, one, 0, 1, 2, 3)
		bind(t, db, &y, two, 4)
		boundTo := func(node batch.NodeID) []batch.Task {
			t.Helper()
			return bySequence(view(t, db, func(tx *store.Tx) ([]batch.Task, error) { return tx.BoundTasks(node) }))
		}
		diff(t, shorts(y.tasks[:4]), boundTo(one))
		diff(t, shorts(y.tasks[4:5]), boundTo(two))

		t.Run("only tasks that wait are bound", func(t *testing.T) {
			got := changed(t, db, func(tx *store.Tx) ([]store.Bound, error) {
				return tx.BindTasks("acct", "Pool", []store.Binding{
					{TaskRef: store.TaskRef{Job: "job", Task: "task-0004"}, Node: one},
					{TaskRef: store.TaskRef{Job: "job", Task: "none"}, Node: one},
					{TaskRef: store.TaskRef{Job: "job", Task: "task-0005"}, Node: two},
				})
			})
			diff(t, []store.Bound{{TaskRef: store.TaskRef{Job: "job", Task: "Task-0005"}, Node: two, Slots: 1}}, got)
			if err := y.tasks[5].Bind(two); err != nil {
				t.Fatal(err)
			}
		})

		t.Run("only to nodes that take tasks, and of jobs that run", func(t *testing.T) {
			try := func(job batch.JobState, node batch.NodeState) int {
				t.Helper()
				j, n := y.job, y.nodes[1]
				j.State, n.State = job, node
				return len(changed(t, db, func(tx *store.Tx) ([]store.Bound, error) {
					if err := errors.Join(tx.UpdateJob(&j), tx.UpdateNode(&n)); err != nil {
						return nil, err
					}
					return tx.BindTasks("acct", "Pool", []store.Binding{{TaskRef: store.TaskRef{Job: "job", Task: "task-0011"}, Node: two}})
				}))
			}
			got := []int{try(batch.JobDisabling, batch.NodeIdle), try(batch.JobActive, batch.NodeOffline), try(batch.JobActive, batch.NodeRunning)}
			diff(t, []int{0, 0, 1}, got)
			update(t, db, func(tx *store.Tx) error { return tx.UpdateTask(&y.tasks[11]) })
			n := y.nodes[1]
			n.BoundTasks = 2
			update(t, db, func(tx *store.Tx) error { return tx.UpdateNode(&n) })
		})

		t.Run("window is the oldest that wait", func(t *testing.T) {
			got := view(t, db, func(tx *store.Tx) ([]store.ReadyTask, error) {
				return tx.QueuedTasks("acct", store.QueueRef{Job: "Job", Slots: 1}, 0, 2)
			})
			diff(t, []store.ReadyTask{
				{TaskRef: store.TaskRef{Job: "Job", Task: "Task-0006"}, Sequence: 1006, Slots: 1},
				{TaskRef: store.TaskRef{Job: "Job", Task: "Task-0007"}, Sequence: 1007, Slots: 1},
			}, got)
		})

		t.Run("runs are saved in the short form", func(t *testing.T) {
			tasks := boundTo(one)
			for i := range tasks {
				run(t, &tasks[i], i)
				run(t, &y.tasks[i], i)
			}
			tasks = append(tasks, tasks[0])
			tasks[4].ID = "none"
			update(t, db, func(tx *store.Tx) error { return tx.SaveRuns(tasks) })
			diff(t, y.tasks[:4], view(t, db, list(store.List{Max: 4})))
			diff(t, shorts(y.tasks[3:4]), boundTo(one))
		})

		t.Run("unfinished and bound ones of a job", func(t *testing.T) {
			unfinished := view(t, db, func(tx *store.Tx) ([]batch.Task, error) { return tx.UnfinishedTasks("acct", "job", 100) })
			diff(t, append(shorts(y.tasks[1:2]), shorts(y.tasks[3:])...), bySequence(unfinished))
			held := view(t, db, func(tx *store.Tx) ([]batch.Task, error) { return tx.BoundTasksOfJob("acct", "job", 100) })
			diff(t, shorts(y.tasks[3:6]), bySequence(held))
		})

		t.Run("files expire once", func(t *testing.T) {
			end := noon.Add(time.Minute)
			due := y.tasks[0].FilesExpire()
			expired := func(by time.Time) []batch.Task {
				t.Helper()
				return view(t, db, func(tx *store.Tx) ([]batch.Task, error) { return tx.ExpiredTasks(by, 100) })
			}
			diff(t, end.Add(7*24*time.Hour), due)
			diff(t, due, view(t, db, nextExpiry))
			diff(t, []batch.Task(nil), expired(due.Add(-time.Microsecond)))
			got := bySequence(expired(due))
			diff(t, []batch.Task{short(y.tasks[0]), short(y.tasks[2])}, got)
			for i := range got {
				got[i].FilesRemoved = true
			}
			update(t, db, func(tx *store.Tx) error { return tx.SaveRuns(got) })
			diff(t, []batch.Task(nil), expired(due))
			diff(t, time.Time{}, view(t, db, nextExpiry))
			y.tasks[0].FilesRemoved = true
			diff(t, y.tasks[0], view(t, db, func(tx *store.Tx) (batch.Task, error) { return tx.Task("acct", "job", y.tasks[0].ID) }))
		})

		t.Run("deleting tells on which nodes they ran", func(t *testing.T) {
			nodes := changed(t, db, func(tx *store.Tx) ([]batch.NodeID, error) {
				_, nodes, err := tx.DeleteTasks("acct", "job", 100)
				return nodes, err
			})
			slices.Sort(nodes)
			diff(t, []batch.NodeID{one, two}, nodes)
		})
	})
}

func nextExpiry(tx *store.Tx) (time.Time, error) {
	at, _, err := tx.NextTaskExpiry()
	return at, err
}

// run gives a bound task an outcome by its number: success, requeue, failure
// for good, or still running.
func run(t *testing.T, task *batch.Task, i int) {
	t.Helper()
	end := batch.At(noon.Add(time.Minute))
	failure := &batch.FailureInfo{Category: batch.UserError, Code: batch.FailureTaskEnded, Message: "m", Details: []batch.NameValue{{Name: "n", Value: "v"}}}
	var err error
	switch i {
	case 0:
		err = task.Finish(noon.Add(time.Second), batch.Outcome{End: end, ExitCode: ptr(0)}, noon.Add(time.Minute))
	case 1:
		err = errors.Join(task.Start(noon, noon), task.Requeue(noon.Add(time.Minute)))
	case 2:
		err = task.Finish(noon, batch.Outcome{End: end, ExitCode: ptr(1), Failure: failure}, noon.Add(time.Minute))
	case 3:
		err = task.Start(noon, noon.Add(time.Second))
		task.Release = batch.ReleaseAlways
	}
	if err != nil {
		t.Fatal(err)
	}
}
