package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"syscall"
	"time"

	"github.com/batchyard/batchyard/agent/run"
)

// diskWatch holds the node to its share of the disk. Filesystems of other
// people's machines have no quota to rely on, so it measures: while tasks run,
// at an interval that keeps the measuring below a twentieth of one core. A
// single file is bounded by a resource limit at once; many files are found at
// the next measuring. The attempt that uses most is ended.
type diskWatch struct {
	agent *Agent
	limit int64

	mu     sync.Mutex
	blames map[string]string // why an attempt was ended, by its id at the keeper
}

const (
	measureEvery = time.Second
	measureShare = 20
)

func (w *diskWatch) run(ctx context.Context) {
	timer := time.NewTimer(measureEvery)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		begun := time.Now()
		if !w.agent.desk.idle() {
			w.measure()
		}
		timer.Reset(max(measureEvery, measureShare*time.Since(begun)))
	}
}

func (w *diskWatch) measure() {
	used := w.agent.tree.usage(".")
	if used <= w.limit {
		return
	}
	t := w.agent.desk.largest(func(t *attempt) int64 { return w.agent.tree.usage(taskPlace(t.id.job, t.id.task)) })
	if t == nil {
		return
	}
	w.mu.Lock()
	if w.blames == nil {
		w.blames = map[string]string{}
	}
	w.blames[t.id.String()] = fmt.Sprintf("the node's files use %d bytes of %d", used, w.limit)
	w.mu.Unlock()
	w.agent.Log.Warn("task ended because the node's disk share is full", "job", t.id.job, "task", t.id.task, "used", used, "limit", w.limit)
	if err := w.agent.keeper.Process(run.Spec{ID: t.id.String()}).Kill(w.agent.desk.context(), 0); err != nil {
		w.agent.Log.Error("task not ended", "err", err)
	}
}

// blamed takes the reason why an attempt was ended, or "".
func (w *diskWatch) blamed(id string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	reason := w.blames[id]
	delete(w.blames, id)
	return reason
}

// usage is what the files below a place take on disk, in bytes. Files that go
// while it looks do not count.
func (t *tree) usage(place string) int64 {
	var total int64
	_ = fs.WalkDir(t.root.FS(), place, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return fs.SkipDir
		}
		if info, err := entry.Info(); err == nil {
			if stat, ok := info.Sys().(*syscall.Stat_t); ok {
				total += stat.Blocks * 512
			}
		}
		return nil
	})
	return total
}
