package conversation

import (
	"reflect"
	"slices"
	"time"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/control"
	"github.com/batchyard/batchyard/store"
)

// hearing is one report, held against what is known of the node and its tasks.
// To apply it changes values only; save writes them.
type hearing struct {
	*control.Ledger
	room   *Room
	tx     *store.Tx
	node   batch.Node
	holds  []store.HeldTask // those that it gives back or ends drop out in apply
	report *batch.NodeReport
	at     time.Time // when it came
	// untaken are attempts of it that the node has to go on holding.
	untaken map[attempt]bool
	stale   bool // a newer report came before it

	// known is what is remembered of the node's orders, of which the agent has
	// applied confirmed, was told told, and has the removals up to a number.
	known                     *account
	confirmed, told, removals int64
	settled                   map[int64]bool // sequences of attempts that the report ends
	next                      *account       // what is to be remembered

	unsaved          bool // it has news, and this transaction does not write them
	changed          bool // something of the node itself
	tookTasks        bool // before the report
	succeeded, ended int  // results that were accepted
	left             bool

	// pace is the node's, and knownPace as it is remembered. worked is how long
	// the node worked on what it has ended, and longest on one task of these,
	// slots what they took.
	pace, knownPace pace
	worked, longest time.Duration
	slots           int
}

// news tells whether there is anything to write.
func (h *hearing) news() bool {
	return h.changed || h.left || h.Pending() || len(h.report.Removed) > 0
}

// apply takes what the report says.
func (h *hearing) apply() error {
	h.tookTasks = h.node.TakesTasks()
	if err := h.applyTasks(); err != nil {
		return err
	}
	if h.stale { // what it says of the node itself may be otherwise by now
		return nil
	}
	h.applyBoot()
	h.applyAgent()
	h.applyErrors()
	h.changed = h.node.Settle(batch.NoticeNotHeard) || h.changed
	h.applyWait()
	h.left = h.report.Left && h.leaves()
	// A node that was given up is in contact again.
	probe := h.node
	h.changed = probe.Move(probe.Settled(), h.tx.Now()) || h.changed
	return nil
}

// applyTasks takes what the report says of attempts that the node holds and of
// which it says something new. Reports of other attempts are passed over: the
// orders do not name them, so the node will forget them.
func (h *hearing) applyTasks() error {
	news, refs := h.newsOfTasks()
	if len(refs) == 0 {
		return nil
	}
	tasks, err := h.tx.RunsByRef(h.node.Account, refs)
	if err != nil {
		return err
	}
	over := make(map[taskKey]bool, len(tasks))
	for i := range tasks {
		t := &tasks[i]
		key := keyOf(t.Job, t.ID)
		if !t.Bound || t.Node != h.node.ID || t.Attempt != news[key].Attempt {
			continue
		}
		if err := h.applyTask(t, news[key]); err != nil {
			h.room.log.Error("report of a task does not fit", "node", h.node.ID, "job", t.Job, "task", t.ID, "err", err)
		}
		if over[key] = !t.Bound; !t.Bound {
			h.settle(t.Sequence)
		}
	}
	for i := range h.holds {
		if key := keyOf(h.holds[i].Job, h.holds[i].Task); news[key] != nil {
			h.holds[i].State = batch.TaskRunning
		}
	}
	h.holds = slices.DeleteFunc(h.holds, func(t store.HeldTask) bool { return over[keyOf(t.Job, t.Task)] })
	h.keepPace()
	return nil
}

// settle notes that an attempt is over by the node's own word.
func (h *hearing) settle(sequence int64) {
	if h.settled == nil {
		h.settled = make(map[int64]bool)
	}
	h.settled[sequence] = true
}

// account is what the node should be doing after the transaction. It is asked for
// when nothing changes any more.
func (h *hearing) account() *account {
	if n := &h.node; h.next == nil {
		h.next = h.known.advance(n.Revision, h.holds, h.settled, level{n.Boot, n.Image, h.leaves(), n.Settings})
	}
	return h.next
}

// newsOfTasks are the reports of attempts that the node holds which say more
// than is known.
func (h *hearing) newsOfTasks() (map[taskKey]*batch.TaskReport, []store.TaskRef) {
	if len(h.report.Tasks) == 0 || len(h.holds) == 0 {
		return nil, nil
	}
	held := make(map[taskKey]*store.HeldTask, len(h.holds))
	for i := range h.holds {
		held[keyOf(h.holds[i].Job, h.holds[i].Task)] = &h.holds[i]
	}
	news := make(map[taskKey]*batch.TaskReport)
	var refs []store.TaskRef
	for i := range h.report.Tasks {
		r := &h.report.Tasks[i]
		key := keyOf(r.Job, r.Task)
		t := held[key]
		if t == nil || t.Attempt != r.Attempt || news[key] != nil {
			continue
		}
		switch {
		case r.Phase == batch.PhaseRunning && t.State == batch.TaskActive,
			r.Phase == batch.PhaseEnded, r.Phase == batch.PhaseReleased:
			news[key] = r
			refs = append(refs, t.TaskRef)
		}
	}
	return news, refs
}

func (h *hearing) applyTask(t *batch.Task, r *batch.TaskReport) error {
	now := h.tx.Now()
	start := now
	if r.Start != nil {
		start = r.Start.Plausible(now).Time
	}
	switch {
	case r.Phase == batch.PhaseRunning:
		h.noteRecent(t)
		return h.Change(t, func() error { return t.Start(start, now) })
	case r.Phase == batch.PhaseReleased:
		return h.released(t, r)
	case r.Phase == batch.PhaseEnded:
		outcome := unknown(now)
		if r.Outcome != nil {
			outcome = r.Outcome.Bounded(now)
		}
		h.ended++
		h.noteWork(t, outcome.End.Sub(start))
		h.node.TotalTasksRun++
		if outcome.Failure == nil {
			h.succeeded++
			h.node.TotalTasksSucceeded++
		}
		h.noteRecent(t)
		return h.Change(t, func() error { return t.Finish(start, outcome, now) })
	}
	return nil
}

// unknown is the outcome of a task of which the node said that it is over, but
// not in a way that can be kept.
func unknown(now time.Time) batch.Outcome {
	return batch.Outcome{End: batch.At(now), Failure: &batch.FailureInfo{
		Category: batch.ServerError, Code: batch.FailureResultUnknown,
		Message: "The compute node reported a result of the task that could not be kept",
	}}
}

// released takes back an attempt. A task under which one agent after the other
// dies is set aside, or it would go through all nodes.
func (h *hearing) released(t *batch.Task, r *batch.TaskReport) error {
	now := h.tx.Now()
	if r.Died == "" || t.State != batch.TaskRunning {
		return h.Change(t, func() error { return t.Requeue(now) })
	}
	deaths, err := h.tx.AddDeath(t, r.Died == batch.DeathCrash)
	if err != nil {
		return err
	}
	if !batch.Poisonous(deaths.Nodes, deaths.Crashes) {
		return h.Change(t, func() error { return t.Requeue(now) })
	}
	if err := h.tx.ForgetDeaths(t.Account, t.Job, t.ID); err != nil {
		return err
	}
	return h.Change(t, func() error { return t.SetAside(deaths.Nodes, now) })
}

// noteRecent puts the task first in the node's list of recent ones.
func (h *hearing) noteRecent(t *batch.Task) {
	recent := []batch.RecentTask{{Job: t.Job, Task: t.ID}}
	for _, r := range h.node.Recent {
		if keyOf(r.Job, r.Task) != keyOf(t.Job, t.ID) && len(recent) < batch.MaxRecentTasks {
			recent = append(recent, r)
		}
	}
	h.node.Recent = recent
}

// noteWork adds up what the node did. It counts slots, because so does what it is
// given ahead of time.
func (h *hearing) noteWork(t *batch.Task, took time.Duration) {
	took = max(0, took)
	h.slots += t.RequiredSlots
	h.worked += took * time.Duration(t.RequiredSlots)
	h.longest = max(h.longest, took)
}

// keepPace keeps how quickly the node completes tasks, and with it how many are
// worth having wait there.
func (h *hearing) keepPace() {
	if h.ended == 0 {
		return
	}
	n := &h.node
	busy := max(h.longest, h.worked/time.Duration(max(1, n.Slots)), time.Microsecond)
	left := 0
	for i := range h.holds {
		if left += h.holds[i].Slots; left >= n.Slots {
			busy = 0
			break
		}
	}
	h.pace = h.pace.completed(h.slots, busy, h.at)
	n.Ahead, n.AheadTime = h.pace.ahead(), h.tx.Now()
}

// applyBoot takes how far the node is with its boot. The first report of an
// agent says nothing of boots yet.
func (h *hearing) applyBoot() {
	n, r := &h.node, h.report
	if r.Revision == 0 {
		return
	}
	switch done := min(r.Boot, n.Boot); {
	case done > n.BootDone:
		n.BootDone, n.LastBootTime, h.changed = done, h.tx.Now(), true
	case done < n.BootDone && r.Booting: // the agent has lost its folder
		n.BootDone, h.changed = done, true
	}
	var start *batch.StartTaskInfo
	if r.StartTask != nil {
		bounded := r.StartTask.Bounded(h.tx.Now())
		start = &bounded
	}
	if current := r.Booting || r.Boot >= n.Boot; current && !reflect.DeepEqual(start, n.StartTaskInfo) {
		n.StartTaskInfo, h.changed = start, true
	}
}

// applyAgent takes what the agent says about itself.
func (h *hearing) applyAgent() {
	n, r := &h.node, h.report
	if n.Instance != r.Instance {
		n.Instance, h.changed = r.Instance, true
	}
	if a := r.Agent; a != nil && (n.AgentVersion != clip(a.Version) || n.IPAddress != clip(a.IPAddress)) {
		n.AgentVersion, n.IPAddress = clip(a.Version), clip(a.IPAddress)
		n.AgentTime, h.changed = h.tx.Now(), true
	}
}

// maxNodeErrors bounds what a node may say about its troubles.
const maxNodeErrors = 10

// applyErrors takes the troubles that the agent tells of. Its first report comes
// before it has looked, and may tell no more than how those before it ended.
func (h *hearing) applyErrors() {
	n, r := &h.node, h.report
	unfit := r.Unfit
	if r.Revision == 0 {
		if len(r.Errors) == 0 {
			return
		}
		unfit = n.Unfit
	}
	var errors []batch.NodeError
	for _, e := range r.Errors[:min(len(r.Errors), maxNodeErrors)] {
		errors = append(errors, e.Bounded())
	}
	if n.Unfit != unfit || len(n.Errors)+len(errors) > 0 && !reflect.DeepEqual(n.Errors, errors) {
		n.Unfit, n.Errors, h.changed = unfit, errors, true
	}
}

// clip bounds a word that an agent says about itself.
func clip(word string) string { return batch.Printable(word, 128) }

// leaves tells whether the node is asked to leave now.
func (h *hearing) leaves() bool { return control.MayLeave(&h.node, h.tx.Now()) }

// applyWait notes that the wait of a node before it leaves or boots has come to
// an end, or that its end is not known yet. See proceed.
func (h *hearing) applyWait() {
	n := &h.node
	if now := h.tx.Now(); n.HoldIsDue(now) || n.PendingReboot != "" && n.Vacant(now) {
		h.changed = true
	}
}

// save writes what apply changed, and what follows from it.
func (h *hearing) save() error {
	n := &h.node
	if h.left { // it holds nothing, and its results have come along
		return h.DropNode(n)
	}
	if len(h.report.Removed) > 0 {
		if err := h.tx.DropRemovals(n.ID, h.report.Removed); err != nil {
			return err
		}
	}
	if !h.changed && !h.Pending() {
		return nil
	}
	created := n.State == batch.NodeCreating
	h.Hold(n)
	if err := h.Close(); err != nil {
		return err
	}
	n.Move(n.Settled(), h.tx.Now())
	if _, err := h.Proceed(n); err != nil {
		return err
	}
	if n.TakesTasks() && !h.tookTasks {
		h.tx.Changed(control.ReadyTopic(n.Account, n.Pool))
	}
	if created {
		h.tx.Changed(control.TopicResize) // its pool may have what it waited for
	}
	return h.tx.UpdateNode(n)
}
