package agent

// stock is how much waited on the node when it was filled up last, and how much
// has ended since: counting what waits each time would cost more. The server fills
// a node up when half is left, so until then nobody waits for a report.
type stock struct {
	full, gone int
	slots      int // of the node: so much is never plenty
}

// fill notes how many attempts wait.
func (s *stock) fill(waiting, slots int) {
	*s = stock{full: waiting, slots: slots}
}

// take notes that an attempt has ended, and another begins in its place. It tells
// whether what is left has just ceased to be plenty.
func (s *stock) take() bool {
	before := s.plenty()
	s.gone++
	return before && !s.plenty()
}

// plenty tells whether the node has more to go on with than it is worth talking
// of.
func (s *stock) plenty() bool {
	left := s.full - s.gone
	return left > s.full/2 && left > 2*s.slots
}

// count is how many attempts wait. The caller holds the lock.
func (d *desk) count() int {
	n := 0
	for _, t := range d.attempts {
		if t.waits() {
			n++
		}
	}
	return n
}
