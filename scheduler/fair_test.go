package scheduler_test

import (
	"cmp"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/control"
	"github.com/batchyard/batchyard/scheduler"
	"github.com/batchyard/batchyard/store"
)

// simulation is a pool in which time goes in steps. Tasks come, are placed by
// Plan, run for some steps each and end. All are of one job.
type simulation struct {
	*rapid.T
	fill    batch.NodeFillType
	slots   int
	nodes   []string
	waiting []store.ReadyTask
	lengths map[batch.TaskID]int // in steps
	runs    []running
	added   int
	step    int
	began   map[batch.TaskID]int // in which step
}

type running struct {
	task store.ReadyTask
	node string
	end  int
}

func newSimulation(t *rapid.T) *simulation {
	s := &simulation{T: t, slots: rapid.IntRange(1, 5).Draw(t, "slots"), lengths: map[batch.TaskID]int{}, began: map[batch.TaskID]int{}}
	s.fill = rapid.SampledFrom([]batch.NodeFillType{batch.FillSpread, batch.FillPack}).Draw(t, "fill")
	for i := range rapid.IntRange(1, 4).Draw(t, "nodes") {
		s.nodes = append(s.nodes, fmt.Sprintf("n%d", i))
	}
	return s
}

// longest is how many steps a task runs at most.
const longest = 6

// add has a task come.
func (s *simulation) add(slots, length int) batch.TaskID {
	task := ready("j", fmt.Sprintf("t%d", s.added), slots)
	s.added++
	s.waiting, s.lengths[task.Task] = append(s.waiting, task), length
	return task.Task
}

// free is how many slots of a node are free.
func (s *simulation) free(node string) int {
	free := s.slots
	for _, r := range s.runs {
		if r.node == node {
			free -= r.task.Slots
		}
	}
	return free
}

// snapshot is what a pass would read: nodes with free slots, in the order of the
// store, and of each number of slots as many tasks as would fill what is free.
func (s *simulation) snapshot() scheduler.Snapshot {
	snap := scheduler.Snapshot{Fill: s.fill, Jobs: []scheduler.Job{job("j", 0, -1, 0)}}
	room, most := 0, 0
	for _, id := range s.nodes {
		if free := s.free(id); free > 0 {
			snap.Nodes = append(snap.Nodes, node(id, s.slots, s.slots-free))
			room, most = room+free, max(most, free)
		}
	}
	slices.SortFunc(snap.Nodes, func(a, b store.NodeSlots) int {
		up := cmp.Or(cmp.Compare(b.BoundSlots, a.BoundSlots), cmp.Compare(a.Node, b.Node))
		if s.fill == batch.FillPack {
			return up
		}
		return -up
	})
	read := map[int]int{}
	for _, t := range s.waiting {
		limit := 1
		if t.Slots <= most {
			limit = max(1, room/t.Slots)
		}
		if read[t.Slots]++; read[t.Slots] <= limit && t.Slots <= s.slots {
			snap.Tasks = append(snap.Tasks, t)
		}
	}
	return snap
}

// advance lets one step pass: what is over ends, and passes follow one another
// until they place nothing more.
func (s *simulation) advance() {
	s.step++
	s.runs = slices.DeleteFunc(s.runs, func(r running) bool { return r.end <= s.step })
	for {
		d := scheduler.Plan(s.snapshot(), noon())
		for _, a := range d.Assign {
			s.start(a)
		}
		if len(d.Assign) == 0 {
			break
		}
	}
	s.check()
}

func (s *simulation) start(a control.Assignment) {
	at := slices.IndexFunc(s.waiting, func(t store.ReadyTask) bool { return t.Task == a.Task })
	if at < 0 {
		s.Fatalf("%s was placed twice", a.Task)
	}
	task := s.waiting[at]
	if free := s.free(string(a.Node)); task.Slots > free {
		s.Fatalf("%s needs %d slots and %s has %d", task.Task, task.Slots, a.Node, free)
	}
	s.waiting = slices.Delete(s.waiting, at, at+1)
	s.runs = append(s.runs, running{task, string(a.Node), s.step + s.lengths[task.Task]})
	s.began[task.Task] = s.step
}

// check holds that slots idle beside tasks that would fit into them on one node
// at most: the one that is set aside.
func (s *simulation) check() {
	var idle []string
	for _, id := range s.nodes {
		if free := s.free(id); slices.ContainsFunc(s.waiting, func(t store.ReadyTask) bool { return t.Slots <= free }) {
			idle = append(idle, id)
		}
	}
	if len(idle) > 1 {
		s.Fatalf("step %d: nodes %v have room for what waits", s.step, idle)
	}
	if len(idle) == 1 && !slices.ContainsFunc(s.waiting, func(t store.ReadyTask) bool { return t.Slots > s.free(idle[0]) && t.Slots <= s.slots }) {
		s.Fatalf("step %d: node %s is set aside for nobody", s.step, idle[0])
	}
}

// TestNoTaskStarves has a task wait that needs any number of slots, in front of
// small ones that come without an end, in some runs such that no two slots of a
// node are ever free at once. It gets its node in bounded time, and what can
// never fit stands in nobody's way.
func TestNoTaskStarves(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := newSimulation(t)
		staggered := rapid.Bool().Draw(t, "staggered")
		length := func() int {
			if staggered {
				return longest
			}
			return rapid.IntRange(1, longest).Draw(t, "length")
		}
		for range s.slots {
			for range s.nodes {
				s.add(1, length())
			}
			s.advance()
		}
		if rapid.Bool().Draw(t, "misfit") {
			s.add(s.slots+1, 1)
		}
		one := s.add(s.slots-rapid.IntRange(0, s.slots-1).Draw(t, "less than all slots"), length())
		first := s.step // once nobody is before it
		for s.began[one] == 0 {
			for len(s.waiting) < 2+s.slots*len(s.nodes) {
				s.add(1, length())
			}
			s.advance()
			if s.waiting[0].Slots <= s.slots && s.waiting[0].Task != one {
				first = s.step
			}
			// The room on the node that is set aside grows until it suffices, or
			// another node has as much: for each slot at most once a node.
			if s.step-first > longest*s.slots*len(s.nodes) {
				t.Fatalf("%s waits since step %d", one, first)
			}
		}
	})
}

// TestSlotsIdleOnOneNodeAtMost has tasks of all sizes come and go, and holds after
// each step that only the node that is set aside has slots for what waits. In the
// end all have run.
func TestSlotsIdleOnOneNodeAtMost(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := newSimulation(t)
		for range rapid.IntRange(1, 20).Draw(t, "steps") {
			for range rapid.IntRange(0, 2*s.slots).Draw(t, "come") {
				s.add(rapid.IntRange(1, s.slots).Draw(t, "needs"), rapid.IntRange(1, longest).Draw(t, "length"))
			}
			s.advance()
		}
		for end := s.step + s.added*longest; len(s.waiting) > 0; {
			if s.advance(); s.step > end {
				t.Fatalf("%d tasks still wait", len(s.waiting))
			}
		}
	})
}
