package scheduler

import (
	"cmp"
	"container/heap"
	"slices"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/store"
)

// reader reads the tasks of a window out of the queues of a pool: for each
// number of slots the next ones in the order of the pool, as many as would fit
// if they were alone. So whatever of one number of slots cannot be placed, that
// of another is there to be placed instead.
type reader struct {
	tx      *store.Tx
	pool    store.PoolRef
	sizes   []int // numbers of slots that tasks need, in rising order
	tasks   []store.ReadyTask
	found   []Job
	jobs    map[string]bool // keys of found
	fitting int             // tasks that fit into what is free on one node
	cut     bool            // there are more than were read
}

// readSizes reads for how many slots tasks wait that a node of the pool has room
// for when it is empty. What needs more than that is passed over.
func (r *reader) readSizes(ofNode, room int) (err error) {
	if ofNode == 1 && room > 0 {
		r.sizes = []int{1} // if there are any
		return nil
	}
	if r.sizes, err = r.tx.QueueSlots(r.pool.Account, r.pool.Pool); err != nil {
		return err
	}
	fit, _ := slices.BinarySearch(r.sizes, ofNode+1)
	r.sizes = r.sizes[:fit]
	return nil
}

// read reads tasks for so many slots in all, of which at most so many are free on
// one node. Of tasks that need more than that it reads the first of each size: a
// node may be reserved for one of them.
func (r *reader) read(most, room int) error {
	if room == 0 {
		return nil
	}
	for _, slots := range r.sizes {
		var err error
		if slots <= most {
			err = r.readSize(slots, max(1, room/slots))
		} else {
			err = r.readFirst(slots)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// readFirst reads the first task of all that need so many slots.
func (r *reader) readFirst(slots int) error {
	queues, err := r.tx.OpenQueues(r.pool.Account, r.pool.Pool, slots, 1)
	if err != nil || len(queues) == 0 {
		return err
	}
	r.note(queues[0])
	tasks, err := r.tx.HeadTasks(r.pool.Account, queues)
	r.tasks = append(r.tasks, tasks...)
	return err
}

// readSize reads the first n tasks that need so many slots. They are in the
// first n queues, since each of these has at least one, and their heads are read
// at once.
func (r *reader) readSize(slots, n int) error {
	queues, err := r.tx.OpenQueues(r.pool.Account, r.pool.Pool, slots, n)
	if err != nil || len(queues) == 0 {
		return err
	}
	m := merge{tx: r.tx, account: r.pool.Account, enough: n}
	if err := m.open(queues); err != nil {
		return err
	}
	for _, q := range queues {
		r.note(q)
	}
	for len(m.lines) > 0 && n > 0 {
		t, err := m.next()
		if err != nil {
			return err
		}
		r.tasks = append(r.tasks, t)
		r.fitting++
		n--
	}
	r.cut = r.cut || n == 0
	return nil
}

// note keeps the job of a queue.
func (r *reader) note(q store.Queue) {
	key := batch.Key(q.Job)
	if !r.jobs[key] {
		r.jobs[key] = true
		r.found = append(r.found, Job{Job: q.Job, Priority: q.Priority, MaxParallel: q.MaxParallel, Bound: q.Bound})
	}
}

// merge gives the tasks of several queues in the order of the pool.
type merge struct {
	tx      *store.Tx
	account batch.AccountName
	lines   []*line // a heap
	enough  int     // tasks that are wanted of all
}

// line is what was read of a queue and not given yet.
type line struct {
	store.Queue
	tasks []store.ReadyTask
	left  int // tasks that its job may still start, and are wanted
	step  int // tasks to be read next time
	ended bool
}

// firstStep is how many tasks of a queue are read after its head; each time
// after that it is four times as many.
const firstStep = 16

// open begins with the heads of the queues, or, if there is only one, with all
// that is wanted of it.
func (m *merge) open(queues []store.Queue) error {
	at := make(map[string]*line, len(queues))
	for _, q := range queues {
		l := &line{Queue: q, left: m.enough, step: firstStep}
		if q.MaxParallel >= 0 {
			l.left = int(min(int64(m.enough), int64(q.MaxParallel)-q.Bound))
		}
		at[batch.Key(q.Job)] = l
		m.lines = append(m.lines, l)
	}
	if len(queues) == 1 {
		m.lines[0].step = m.enough
		return m.openOne(queues[0].Head)
	}
	heads, err := m.tx.HeadTasks(m.account, queues)
	if err != nil {
		return err
	}
	for _, t := range heads {
		l := at[batch.Key(t.Job)]
		l.tasks = append(l.tasks, t)
	}
	m.lines = slices.DeleteFunc(m.lines, func(l *line) bool { return len(l.tasks) == 0 })
	heap.Init(m)
	return nil
}

// openOne begins with the only queue there is.
func (m *merge) openOne(head int64) error {
	err := m.fill(m.lines[0], head)
	if len(m.lines[0].tasks) == 0 {
		m.lines = nil
	}
	return err
}

// fill reads the next tasks of a queue, from a sequence number on.
func (m *merge) fill(l *line, from int64) error {
	want := min(l.step, l.left)
	tasks, err := m.tx.QueuedTasks(m.account, l.QueueRef, from, want)
	l.tasks, l.step, l.ended = tasks, l.step*4, len(tasks) < want
	return err
}

// next gives the next task; there is one while there are lines.
func (m *merge) next() (store.ReadyTask, error) {
	l := m.lines[0]
	t := l.tasks[0]
	l.tasks, l.left = l.tasks[1:], l.left-1
	if len(l.tasks) == 0 && !l.ended && l.left > 0 {
		if err := m.fill(l, t.Sequence+1); err != nil {
			return t, err
		}
	}
	if len(l.tasks) == 0 || l.left == 0 {
		heap.Pop(m)
	} else {
		heap.Fix(m, 0)
	}
	return t, nil
}

// Len, Less, Swap, Push and Pop make the lines a heap.
func (m *merge) Len() int { return len(m.lines) }

// Less tells which line goes first: by priority, then by age.
func (m *merge) Less(i, j int) bool {
	a, b := m.lines[i], m.lines[j]
	return cmp.Or(cmp.Compare(b.Priority, a.Priority), cmp.Compare(a.tasks[0].Sequence, b.tasks[0].Sequence)) < 0
}

// Swap exchanges two lines.
func (m *merge) Swap(i, j int) { m.lines[i], m.lines[j] = m.lines[j], m.lines[i] }

// Push is never called: no line comes while others go.
func (m *merge) Push(any) {}

// Pop drops the last line.
func (m *merge) Pop() any {
	last := m.lines[len(m.lines)-1]
	m.lines = m.lines[:len(m.lines)-1]
	return last
}
