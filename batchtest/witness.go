package batchtest

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/batchyard/batchyard/batch"
)

// TaskKey names a task.
type TaskKey struct {
	Job  batch.JobID
	Task batch.TaskID
}

// Run is one process of a task, as it truly was.
type Run struct {
	TaskKey
	Attempt int
	Node    batch.NodeID
	Slots   int
	Began   time.Time
	Ended   time.Time // zero while it runs
	// Done tells that the script came to its end, and was not killed.
	Done bool
	Exit int
}

// Witness sees every process begin and end, whatever server and agents believe.
type Witness struct {
	mu         sync.Mutex // guards all below
	origin     time.Time
	runs       map[TaskKey][]*Run
	running    map[batch.NodeID]int // slots
	slots      map[batch.NodeID]int
	completed  map[TaskKey]bool
	limits     map[TaskKey]limit
	violations []string
	began      int
}

func newWitness() *Witness {
	return &Witness{
		origin: time.Now(), runs: map[TaskKey][]*Run{}, running: map[batch.NodeID]int{}, slots: map[batch.NodeID]int{},
		completed: map[TaskKey]bool{}, limits: map[TaskKey]limit{},
	}
}

// node says how many slots a node has.
func (w *Witness) node(id batch.NodeID, slots int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.slots[id] = slots
}

// Begin notes that a process of a task begins.
func (w *Witness) Begin(r Run) *Run {
	w.mu.Lock()
	defer w.mu.Unlock()
	run := &r
	run.Began = time.Now()
	for _, other := range w.runs[r.TaskKey] {
		if other.Ended.IsZero() {
			w.violate("%s/%s attempt %d begins on %s while attempt %d runs on %s since %v",
				r.Job, r.Task, r.Attempt, r.Node, other.Attempt, other.Node, other.Began.Sub(w.origin))
		}
	}
	if w.completed[r.TaskKey] {
		w.violate("%s/%s attempt %d begins on %s after the task was completed", r.Job, r.Task, r.Attempt, r.Node)
	}
	w.runs[r.TaskKey] = append(w.runs[r.TaskKey], run)
	w.running[r.Node] += r.Slots
	if n, most := w.running[r.Node], w.slots[r.Node]; n > most {
		w.violate("%s runs tasks of %d slots and has %d: %s", r.Node, n, most, w.runningOn(r.Node))
	}
	w.began++
	return run
}

// runningOn names what runs on a node. The caller holds the lock.
func (w *Witness) runningOn(node batch.NodeID) string {
	var names []string
	for _, runs := range w.runs {
		for _, r := range runs {
			if r.Node == node && r.Ended.IsZero() {
				names = append(names, fmt.Sprintf("%s/%s attempt %d since %v", r.Job, r.Task, r.Attempt, r.Began.Sub(w.origin)))
			}
		}
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// End notes that nothing of a process is left.
func (w *Witness) End(r *Run, done bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !r.Ended.IsZero() {
		w.violate("%s/%s attempt %d ends twice", r.Job, r.Task, r.Attempt)
		return
	}
	r.Ended, r.Done = time.Now(), done
	if l, ok := w.limits[r.TaskKey]; ok && r.Ended.Sub(r.Began) > l.length+l.grace {
		w.violate("%s/%s attempt %d ran for %v and had %v", r.Job, r.Task, r.Attempt, r.Ended.Sub(r.Began), l.length)
	}
	w.running[r.Node] -= r.Slots
}

// Completed notes that the server says that a task is completed, by a run that
// exited so. From now on it must not begin again.
func (w *Witness) Completed(task TaskKey, node batch.NodeID, exit int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.completed[task] {
		return
	}
	w.completed[task] = true
	told := func(r *Run) bool { return r.Done && r.Node == node && r.Exit == exit }
	if !slices.ContainsFunc(w.runs[task], told) {
		w.violate("%s/%s is completed by exit code %d on %s and no such run was seen", task.Job, task.Task, exit, node)
	}
	for _, r := range w.runs[task] {
		if r.Ended.IsZero() {
			w.violate("%s/%s is completed and attempt %d still runs on %s", task.Job, task.Task, r.Attempt, r.Node)
		}
	}
}

// limit is how long each run of a task may last.
type limit struct{ length, grace time.Duration }

// Limit says how long each run of a task may last, and how much later it has
// ended although there was nobody to end it.
func (w *Witness) Limit(task TaskKey, length, grace time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.limits[task] = limit{length, grace}
}

// clockGrain is by how much a run may be shorter than its time: it begins a little
// after the attempt.
const clockGrain = time.Second

// Exceeded notes that the server says that a task is completed because it ran for
// too long on a node. From now on it must not begin again.
func (w *Witness) Exceeded(task TaskKey, node batch.NodeID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.completed[task] = true
	long := func(r *Run) bool {
		// The time of an attempt goes on while it waits for what an agent before
		// this one left in its slot.
		l := w.limits[task]
		return r.Node == node && !r.Ended.IsZero() && r.Ended.Sub(r.Began) >= l.length-l.grace-clockGrain
	}
	if l, ok := w.limits[task]; !ok || !slices.ContainsFunc(w.runs[task], long) {
		w.violate("%s/%s was ended for its limit of %v (%v) and no run was as long", task.Job, task.Task, l.length, ok)
	}
}

// LastEnd is when a run of a task ended last; the zero time if none has.
func (w *Witness) LastEnd(task TaskKey) time.Time {
	var last time.Time
	for _, r := range w.Runs(task) {
		if r.Ended.After(last) {
			last = r.Ended
		}
	}
	return last
}

// Runs are the runs of a task so far.
func (w *Witness) Runs(task TaskKey) []Run {
	w.mu.Lock()
	defer w.mu.Unlock()
	var runs []Run
	for _, r := range w.runs[task] {
		runs = append(runs, *r)
	}
	return runs
}

// Began is how many processes have begun.
func (w *Witness) Began() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.began
}

// Age is how long the cluster has lived, in true time of the bubble.
func (w *Witness) Age() time.Duration { return time.Since(w.origin) }

// Running is how many slots are in use on all nodes together.
func (w *Witness) Running() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	total := 0
	for _, n := range w.running {
		total += n
	}
	return total
}

// Violations are the promises that were broken.
func (w *Witness) Violations() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.violations)
}

// maxViolations bounds how many are told; the first says most.
const maxViolations = 10

// violate notes a broken promise. The caller holds the lock.
func (w *Witness) violate(format string, args ...any) {
	if len(w.violations) < maxViolations {
		w.violations = append(w.violations, fmt.Sprintf("%v: ", time.Since(w.origin))+fmt.Sprintf(format, args...))
	}
}
