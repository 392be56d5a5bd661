package storetest_test

import (
	"cmp"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/store"
	"github.com/batchyard/batchyard/store/storetest"
)

func TestNodes(t *testing.T) {
	t.Parallel()
	storetest.EachOpen(t, func(t *testing.T, db *store.DB) {
		y := newYard(t, db, 0)
		n := y.nodes[0]
		get := func(tx *store.Tx) (batch.Node, error) { return tx.Node("TVMPS_001_D") }
		diff(t, n, view(t, db, get))

		t.Run("update keeps everything", func(t *testing.T) {
			n.State, n.SchedulingState = batch.NodeOffline, batch.SchedulingDisabled
			n.LastBootTime, n.IPAddress, n.AgentVersion, n.AgentTime = noon, "127.0.0.1", "1.2", noon
			n.TotalTasksRun, n.TotalTasksSucceeded, n.RunningTasks, n.RunningSlots = 7, 6, 2, 3
			n.BoundTasks, n.BoundSlots, n.Ahead, n.AheadTime = 4, 5, 12.5, noon
			n.StartTaskInfo = &batch.StartTaskInfo{State: batch.StartTaskCompleted, StartTime: batch.At(noon), ExitCode: ptr(0), Result: batch.ResultSuccess}
			n.Errors = []batch.NodeError{{Code: "c", Message: "m"}}
			n.Recent = []batch.RecentTask{{Job: "Job", Task: "One"}, {Job: "Job", Task: "Two"}}
			n.Revision, n.Settings, n.Boot, n.Image, n.BootDone = 5, 6, 3, 1, 2
			n.PendingReboot, n.PendingReimage, n.Leaving = batch.RebootRequeue, true, batch.DeallocateTerminate
			n.TokenHash, n.Instance = []byte{1, 2}, "i"
			update(t, db, func(tx *store.Tx) error { return tx.UpdateNode(&n) })
			diff(t, n, view(t, db, get))
			all := view(t, db, (*store.Tx).AllNodes)
			diff(t, []batch.Node{n, y.nodes[1]}, all)
			diff(t, all, view(t, db, func(tx *store.Tx) ([]batch.Node, error) { return tx.Nodes("acct", "POOL", store.List{}) }))
		})

		t.Run("several are saved and found at once", func(t *testing.T) {
			two := y.nodes[1]
			two.State, two.SchedulingState, two.StateTransitionTime = batch.NodeRunning, batch.SchedulingEnabled, noon.Add(time.Hour)
			two.BoundTasks, two.BoundSlots, two.RunningTasks, two.RunningSlots, two.Revision = 3, 4, 1, 2, 9
			two.PendingReboot, two.Leaving, two.Boot, two.Image = batch.RebootTerminate, batch.DeallocateRequeue, 5, 6
			kept := n
			n.Boot = 4
			unsaved := n
			unsaved.AgentVersion = "said by the agent only"
			gone := two
			gone.ID = "gone"
			update(t, db, func(tx *store.Tx) error { return tx.SaveNodes([]batch.Node{unsaved, two, gone}) })
			got := view(t, db, func(tx *store.Tx) ([]batch.Node, error) {
				return tx.NodesByID([]batch.NodeID{"TVMPS_002_D", n.ID, "gone"})
			})
			slices.SortFunc(got, func(a, b batch.Node) int { return cmp.Compare(a.ID, b.ID) })
			diff(t, []batch.Node{n, two}, got)
			update(t, db, func(tx *store.Tx) error { return tx.SaveNodes([]batch.Node{kept, y.nodes[1]}) })
			n = kept
		})

		t.Run("raised revision is announced", func(t *testing.T) {
			watch := db.Watch(store.NodeTopic(y.nodes[1].ID))
			defer watch.Close()
			update(t, db, func(tx *store.Tx) error {
				return tx.RaiseRevisions([]batch.NodeID{y.nodes[0].ID, y.nodes[1].ID})
			})
			<-watch.C
			if got := view(t, db, get).Revision; got != 6 {
				t.Errorf("got revision %d", got)
			}
		})

		t.Run("deleted node is gone with its removals", func(t *testing.T) {
			id := y.nodes[1].ID
			update(t, db, func(tx *store.Tx) error {
				return errors.Join(tx.AddRemovals([]store.Removal{{Node: id, ID: 1, Job: "Job"}}), tx.DeleteNode(id))
			})
			err := db.Update(t.Context(), func(tx *store.Tx) error {
				left, err := tx.Removals(id, 0, 100)
				if err != nil || len(left) != 0 {
					t.Errorf("got %v, %v", left, err)
				}
				return tx.DeleteNode(id)
			})
			if !errors.Is(err, store.ErrNotFound) {
				t.Errorf("got error %v", err)
			}
		})
	})
}

func TestSlotsOfNodes(t *testing.T) {
	t.Parallel()
	storetest.EachOpen(t, func(t *testing.T, db *store.DB) {
		y := newYard(t, db, 0)
		third := newNode(&y.pool, 3)
		third.State = batch.NodeStarting
		update(t, db, func(tx *store.Tx) error { return tx.InsertNodes([]batch.Node{third}) })
		ids := func(fn func(tx *store.Tx) ([]store.NodeSlots, error)) (ids []batch.NodeID) {
			t.Helper()
			for _, n := range view(t, db, fn) {
				ids = append(ids, n.Node)
			}
			return ids
		}
		free := func(tx *store.Tx) ([]store.NodeSlots, error) { return tx.FreeNodes("acct", "pool", 10, false) }
		fullest := func(tx *store.Tx) ([]store.NodeSlots, error) { return tx.FreeNodes("acct", "pool", 1, true) }
		crowded := func(tx *store.Tx) ([]store.NodeSlots, error) { return tx.CrowdedNodes("acct", "pool") }
		one, two := y.nodes[0].ID, y.nodes[1].ID

		watch := db.Watch(store.NodeTopic(one))
		defer watch.Close()
		update(t, db, func(tx *store.Tx) error {
			return tx.BindNodes("acct", []store.NodeLoad{{Node: one, Tasks: 1, Slots: 3}, {Node: two, Tasks: 1, Slots: 1}})
		})
		<-watch.C
		diff(t, []batch.NodeID{two, one}, ids(free))
		diff(t, []batch.NodeID{one}, ids(fullest))
		diff(t, []batch.NodeID(nil), ids(crowded))

		update(t, db, func(tx *store.Tx) error {
			return tx.BindNodes("acct", []store.NodeLoad{{Node: one, Tasks: 2, Slots: 2}})
		})
		diff(t, []batch.NodeID{two}, ids(free))
		want := []store.NodeSlots{{Node: one, Slots: 4, Bound: 3, BoundSlots: 5}}
		diff(t, want, view(t, db, crowded))
		n := view(t, db, func(tx *store.Tx) (batch.Node, error) { return tx.Node(one) })
		diff(t, []int64{2, 3, 5}, []int64{n.Revision, int64(n.BoundTasks), int64(n.BoundSlots)})

		n.BoundSlots, n.Ahead, n.AheadTime = 0, 2.5, noon
		update(t, db, func(tx *store.Tx) error { return tx.UpdateNode(&n) })
		got := view(t, db, func(tx *store.Tx) (store.NodeSlots, error) { return tx.FreeNode(one) })
		diff(t, store.NodeSlots{Node: one, Slots: 4, Bound: 3, Ahead: 2.5, AheadTime: noon}, got)
		err := db.View(t.Context(), func(tx *store.Tx) error {
			_, err := tx.FreeNode(third.ID)
			return err
		})
		if !errors.Is(err, store.ErrNotFound) {
			t.Errorf("node that takes no tasks: got error %v", err)
		}
	})
}

func TestCountNodes(t *testing.T) {
	t.Parallel()
	storetest.EachOpen(t, func(t *testing.T, db *store.DB) {
		y := newYard(t, db, 0)
		var more []batch.Node
		for i := range 6 {
			n := newNode(&y.pool, 10+i)
			n.State = []batch.NodeState{batch.NodeRunning, batch.NodeIdle, batch.NodeUnknown}[i%3]
			more = append(more, n)
		}
		update(t, db, func(tx *store.Tx) error { return tx.InsertNodes(more) })
		got := view(t, db, func(tx *store.Tx) (map[string]batch.PoolNodeCounts, error) {
			return tx.CountNodes("acct", []batch.PoolID{"POOL", "none"})
		})
		want := map[string]batch.PoolNodeCounts{"pool": {
			Pool:        "Pool",
			Dedicated:   batch.NodeCounts{batch.NodeIdle: 2, batch.NodeRunning: 1, batch.NodeUnknown: 1},
			LowPriority: batch.NodeCounts{batch.NodeIdle: 2, batch.NodeRunning: 1, batch.NodeUnknown: 1},
		}}
		diff(t, want, got)
	})
}

func TestRemovals(t *testing.T) {
	t.Parallel()
	storetest.EachOpen(t, func(t *testing.T, db *store.DB) {
		y := newYard(t, db, 0)
		one, two := y.nodes[0].ID, y.nodes[1].ID
		add := func(removals ...store.Removal) {
			t.Helper()
			update(t, db, func(tx *store.Tx) error { return tx.AddRemovals(removals) })
		}
		get := func(tx *store.Tx) ([]batch.Removal, error) { return tx.Removals("TVMPS_001_d", 0, 100) }
		at := time.Now().UnixMicro()
		add(store.Removal{Node: one, ID: at, Job: "Job", Task: "Task"}, store.Removal{Node: one, ID: at + 1, Job: "Job"}, store.Removal{Node: two, ID: at, Job: "Job"}, store.Removal{Node: "gone", ID: at, Job: "Job"})
		add(store.Removal{Node: one, ID: at + 2, Job: "Job"})
		diff(t, []batch.Removal{{ID: at, Job: "Job", Task: "Task"}, {ID: at + 1, Job: "Job"}}, view(t, db, get))
		update(t, db, func(tx *store.Tx) error { return tx.DropRemovals(one, []int64{at, at + 7}) })
		diff(t, []batch.Removal{{ID: at + 1, Job: "Job"}}, view(t, db, get))
		if left := view(t, db, func(tx *store.Tx) ([]batch.Removal, error) { return tx.Removals("gone", 0, 100) }); len(left) > 0 {
			t.Errorf("a node that is gone is asked to remove %v", left)
		}
	})
}
