package cli

import (
	"log/slog"
	"net"
	"testing"
	"time"
)

// TestNewConnectionsAreLeftInPeace fills a port with connections that have brought nothing yet, and
// lets another come soon and late.
func TestNewConnectionsAreLeftInPeace(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		after   time.Duration
		evicted uint64
		late    bool
	}{
		"while they are young": {youth - time.Millisecond, 0, true},
		"and no longer":        {youth, 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conns := newConnections("api", 2, slog.New(slog.DiscardHandler))
			now := time.Now()
			for range 2 {
				near, far := net.Pipe()
				t.Cleanup(func() { _ = near.Close(); _ = far.Close() })
				if conns.admit(near, now) == nil {
					t.Fatal("a connection for which there is room was refused")
				}
			}
			near, far := net.Pipe()
			t.Cleanup(func() { _ = near.Close(); _ = far.Close() })
			got := conns.admit(near, now.Add(c.after))
			if got == nil || got.late != c.late || conns.evicted != c.evicted {
				t.Errorf("admitted %+v, %d evicted", got, conns.evicted)
			}
		})
	}
}
