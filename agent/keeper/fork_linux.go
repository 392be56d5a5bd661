package keeper

import (
	"errors"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// queue leaves a task to the next free thread of its kind, and sees to it that
// there is one.
func (h *holder) queue(t *task) {
	p := &h.plain
	if t.spec.Admin {
		p = &h.admin
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tasks = append(p.tasks, t)
	if p.idle == 0 && p.size < p.most {
		p.size++
		go h.work(p)
	}
	p.more.Signal()
}

// pool is the threads of one kind and the tasks that wait for them.
type pool struct {
	admin bool
	most  int

	mu    sync.Mutex // guards all below
	more  sync.Cond
	tasks []*task
	size  int
	idle  int
}

func (p *pool) init(admin bool, most int) {
	p.admin, p.most, p.more.L = admin, most, &p.mu
}

// next waits for a task.
func (p *pool) next() *task {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.idle++
	for len(p.tasks) == 0 {
		p.more.Wait()
	}
	p.idle--
	t := p.tasks[0]
	p.tasks = p.tasks[1:]
	return t
}

// work forks one task after another. It never ends, since its children would
// end with it.
func (h *holder) work(p *pool) {
	th, err := h.newThread(true, p.admin)
	if err != nil {
		for {
			h.forked(p.next(), 0, time.Time{}, err)
		}
	}
	h.workOn(th, p)
}

// workOn is work on a thread that there is already. One that is stranded leaves
// the work to others, which are made when they are needed.
func (h *holder) workOn(th *thread, p *pool) {
	th.patient = true
	for !th.stranded {
		h.fork(th, p.next())
	}
	h.log.Error("a thread of the keeper is lost to a task's namespaces")
	p.mu.Lock()
	p.size--
	p.mu.Unlock()
	select {} // until the process ends
}

// fork starts a task's process, on a thread that forks.
func (h *holder) fork(th *thread, t *task) {
	pid, at, err := h.forker.start(th, t)
	if !th.patient && errors.Is(err, unix.ETXTBSY) {
		h.queue(t)
		return
	}
	h.forked(t, pid, at, err)
}
