package blob

import "sync"

// readers knows which files are being read, so that one that is replaced or
// deleted meanwhile is removed only after its last reader is done with it.
//
// A reader holds gate, shared, from before it looks a blob up until it has noted
// the blob's files. Whoever has committed a change that frees files takes gate
// alone: then every reader that may have seen the old row has noted its files,
// and every later one sees the new row.
type readers struct {
	gate sync.RWMutex

	mu     sync.Mutex
	open   map[string]int  // file → number of its readers
	doomed map[string]bool // files to remove after their last reader
}

func newReaders() *readers {
	return &readers{open: map[string]int{}, doomed: map[string]bool{}}
}

// enter begins a look-up; leave ends it.
func (r *readers) enter() { r.gate.RLock() }
func (r *readers) leave() { r.gate.RUnlock() }

// note registers a reader of files. It is called between enter and leave.
func (r *readers) note(files []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, file := range files {
		r.open[file]++
	}
}

// done ends a reader of files and gives those that may be removed now.
func (r *readers) done(files []string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var free []string
	for _, file := range files {
		if r.open[file]--; r.open[file] > 0 {
			continue
		}
		delete(r.open, file)
		if r.doomed[file] {
			delete(r.doomed, file)
			free = append(free, file)
		}
	}
	return free
}

// doom takes files that no row refers to any more and gives those that may be
// removed now. The others are given to the last of their readers.
func (r *readers) doom(files []string) []string {
	r.gate.Lock()
	defer r.gate.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	var free []string
	for _, file := range files {
		if r.open[file] > 0 {
			r.doomed[file] = true
		} else {
			free = append(free, file)
		}
	}
	return free
}
