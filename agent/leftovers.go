package agent

import "time"

// leftovers is the memory of the node that nobody's process has: files in its
// shared memory and objects of IPC stay when the task that made them has ended.
// Tasks may mean them for others, so they are left as long as they do not hurt.
// When they do, the next tasks would all run out of memory, so the node takes
// none until nothing runs and its machine has been emptied.
type leftovers struct {
	agent   *Agent
	group   string    // the control group that counts, "" if there is none
	limit   int64     // bytes that the node has, 0 if that is not bounded
	emptied time.Time // by the clock of leases; only look uses it
}

const (
	// An eighth of the node's memory is much to be left once a task has died for
	// want of memory; otherwise seven eighths are.
	leftoverShare = 8
	// emptyAgain is when a machine is emptied again that had been in vain.
	emptyAgain = 30 * time.Second
)

func (l *leftovers) counts() bool  { return l.group != "" && l.limit > 0 }
func (l *leftovers) little() int64 { return l.limit / leftoverShare }
func (l *leftovers) most() int64   { return l.limit - l.little() }

// suspect looks whether a task that ran out of memory did so because of others
// before it. It is called before the task's slot is free.
func (l *leftovers) suspect() {
	if !l.counts() {
		return
	}
	if _, shared := groupMemory(l.group); shared > l.little() {
		l.tell()
	}
}

// look looks at what is left when nothing runs.
func (l *leftovers) look(busy bool) {
	if busy || !l.counts() {
		return
	}
	used, _ := groupMemory(l.group)
	told := l.agent.health.has(causeLeftovers)
	switch {
	case used <= l.little(), used <= l.most() && !told:
		l.agent.health.over(causeLeftovers)
	case !told || l.agent.clock().Sub(l.emptied) >= emptyAgain:
		l.tell() // nothing may begin meanwhile
		l.empty(used)
	}
}

func (l *leftovers) tell() {
	if l.agent.health.has(causeLeftovers) {
		return
	}
	l.agent.Log.Warn("node takes no tasks because shared memory that tasks left uses up its memory")
	l.agent.health.tell(causeLeftovers, true, errorOutOfMemory,
		"Shared memory that tasks left on the compute node uses up its memory. It takes tasks again when nothing runs and that has been removed.")
}

// empty empties the node's own machine.
func (l *leftovers) empty(before int64) {
	a := l.agent
	l.emptied = a.clock()
	if err := a.keeper.Clear(a.working); err != nil && a.working.Err() == nil {
		a.Log.Error("shared memory of the node is left", "err", err)
	}
	after, _ := groupMemory(l.group)
	a.Log.Warn("temporary files and shared memory of the node removed, because its memory is used up", "bytes", before-after)
	if after <= l.most() {
		a.health.over(causeLeftovers)
	}
}
