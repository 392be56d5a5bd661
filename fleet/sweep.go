package fleet

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/disk"
)

const (
	// strangerPatience is the default of Local.Patience.
	strangerPatience = time.Minute
	// fewStrangers is how many folders a server may leave that is killed while
	// nodes go; more are removed only if most folders are known.
	fewStrangers = 8
)

// rooms is what the provider knows of the folders of nodes. One whose node had a
// row and has none any more is to go. One of which no row has spoken since the
// provider began is a stranger: an earlier server may have been killed before it
// could remove it, or this is the folder of another database. Strangers go later,
// and not when they are the most.
type rooms struct {
	known           map[batch.NodeID]bool // nodes that have, or had, a row
	lookAtStrangers bool                  // they have been left alone for long enough
	refused         int                   // strangers that were last said to be too many
}

// sweep removes folders of nodes that have neither a row nor an agent.
func (l *Local) sweep(ctx context.Context, rows map[batch.NodeID]bool) error {
	entries, err := os.ReadDir(l.Dir)
	if err != nil {
		return fmt.Errorf("read folder of nodes: %w", err)
	}
	if l.rooms.known == nil {
		l.rooms.known = map[batch.NodeID]bool{}
	}
	for id := range rows {
		l.rooms.known[id] = true
	}
	var strangers []batch.NodeID
	folders := 0
	for _, entry := range entries {
		if !strings.HasPrefix(entry.Name(), nodePrefix) {
			continue
		}
		folders++
		switch id := batch.NodeID(entry.Name()); {
		case rows[id] || l.agents[id] != nil:
		case l.rooms.known[id]:
			l.remove(ctx, id)
		default:
			strangers = append(strangers, id)
		}
	}
	if l.rooms.lookAtStrangers {
		l.removeStrangers(ctx, strangers, folders)
	}
	return nil
}

// removeStrangers removes the folders of nodes that never had a row, unless they
// are most of all folders: then the question is whether this is the database
// that they are of.
func (l *Local) removeStrangers(ctx context.Context, strangers []batch.NodeID, folders int) {
	if len(strangers) > fewStrangers && 2*len(strangers) > folders {
		if len(strangers) != l.rooms.refused {
			l.Log.Error("folders of nodes not removed: the database knows nothing of most of them; if it is the right one, stop the server and use 'batchyard admin fsck --repair --lost rows'",
				"folders", folders, "unknown", len(strangers), "dir", l.Dir)
		}
		l.rooms.refused = len(strangers)
		return
	}
	l.rooms.refused = 0
	removed := 0
	for _, id := range strangers {
		if l.remove(ctx, id) {
			removed++
		}
	}
	if removed > 0 {
		l.Log.Info("removed folders of nodes that are no more", "removed", removed, "folders", folders)
	}
}

// remove removes the folder of a node that is no more, or waits for its agent.
func (l *Local) remove(ctx context.Context, id batch.NodeID) (removed bool) {
	folder := filepath.Join(l.Dir, string(id))
	unlock, free, err := tryLock(folder)
	if err == nil && !free {
		err = l.followGone(ctx, id, folder)
	}
	if err != nil {
		l.Log.Warn("agent of a removed node not found", "node", id, "err", err)
	}
	if !free {
		return false
	}
	err = disk.RazePath(folder)
	unlock()
	if err != nil {
		l.Log.Error("folder of a removed node not removed", "node", id, "err", err)
		return false
	}
	delete(l.rooms.known, id)
	return true
}

// followGone waits for an agent of an earlier server whose node has no row.
func (l *Local) followGone(ctx context.Context, id batch.NodeID, folder string) error {
	process, err := findAgent(folder)
	if err != nil {
		return err
	}
	following, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	agent := &agentProcess{stop: stop}
	agent.gone.Store(true)
	time.AfterFunc(goneGrace, func() { stop(errGone) })
	l.agents[id] = agent
	l.work.Go(func() {
		l.follow(following, process)
		l.ended <- id
	})
	return nil
}
