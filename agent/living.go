package agent

// living are the attempts that have a goroutine. A node may hold very many more,
// which a short task should not have to be looked for among.
type living struct {
	attempts map[attemptID]*attempt
	tasks    map[attemptID]int // how many, by task: no attempt is number -1
}

func newLiving() living {
	return living{attempts: map[attemptID]*attempt{}, tasks: map[attemptID]int{}}
}

// keyOf is what the attempts of a task have in common.
func keyOf(t *attempt) attemptID { return attemptID{t.id.job, t.id.task, -1} }

// enter notes that an attempt has a goroutine, leave that it has none any more,
// which may be said again.
func (l *living) enter(t *attempt) {
	t.alive = true
	l.attempts[t.id] = t
	l.tasks[keyOf(t)]++
}

func (l *living) leave(t *attempt) {
	if !t.alive {
		return
	}
	t.alive = false
	if l.attempts[t.id] == t {
		delete(l.attempts, t.id)
	}
	if l.tasks[keyOf(t)]--; l.tasks[keyOf(t)] == 0 {
		delete(l.tasks, keyOf(t))
	}
}

// beside tells whether another attempt of the same task lives.
func (l *living) beside(t *attempt) bool {
	n := l.tasks[keyOf(t)]
	return n > 1 || n == 1 && !t.alive
}
