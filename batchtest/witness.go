package batchtest

import (
	"fmt"
	"slices"
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
	violations []string
	began      int
}

func newWitness() *Witness {
	return &Witness{
		origin: time.Now(), runs: map[TaskKey][]*Run{}, running: map[batch.NodeID]int{}, slots: map[batch.NodeID]int{},
		completed: map[TaskKey]bool{},
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
		w.violate("%s runs tasks of %d slots and has %d", r.Node, n, most)
	}
	w.began++
	return run
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
