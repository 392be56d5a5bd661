package fleet

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/control"
)

// AgentLog is where an agent's log is, in its node's folder.
const AgentLog = "state/agent.log"

// An agent that runs and is not heard is asked about after a while, and seldom
// from then on.
const (
	firstListen = 10 * time.Second
	laterListen = time.Minute
)

// listen looks whether the node of an agent that runs is heard, until hush is
// called. If not, the agent's last word is said in the log and at the node.
func (l *Local) listen(ctx context.Context, node control.NodeWanted, folder string) (hush func()) {
	listening, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		said := ""
		for wait := firstListen; ; wait = laterListen {
			timer := time.NewTimer(wait)
			select {
			case <-listening.Done():
				timer.Stop()
				return
			case <-timer.C:
			}
			word := lastWord(folder)
			if l.notHeard(listening, node, word) && word != said {
				l.Log.Warn("agent runs, but its node is not heard", "node", node.Node, "pool", node.Pool, "said", word)
				said = word
			}
		}
	}()
	return func() { stop(); <-done }
}

// notHeard notes an agent's last word at its node, unless that is heard.
func (l *Local) notHeard(ctx context.Context, node control.NodeWanted, word string) bool {
	noted, err := l.Nodes.NodeNotHeard(ctx, node.Node, word)
	if err != nil && ctx.Err() == nil {
		l.Log.Error("agent's word not noted", "node", node.Node, "err", err)
	}
	return noted
}

// lastWord is the last line of an agent's log.
func lastWord(folder string) string {
	const most = 4 << 10
	file, err := os.Open(filepath.Join(folder, AgentLog))
	if err != nil {
		return "its log cannot be read: " + err.Error()
	}
	defer file.Close()
	if info, err := file.Stat(); err == nil && info.Size() > most {
		_, _ = file.Seek(-most, io.SeekEnd) // or from the start, for want of it
	}
	text, err := io.ReadAll(io.LimitReader(file, most))
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	if err != nil {
		return "its log cannot be read: " + err.Error()
	}
	return batch.Printable(lines[len(lines)-1], 1024)
}
