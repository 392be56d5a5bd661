package cli

import (
	"bytes"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/batchyard/batchyard/batch"
	"github.com/prometheus/client_golang/prometheus"
)

// Bounds of the log.
const (
	maxLogValue = 2 << 10   // bytes of a text in it: what strangers send ends up in some
	maxLogTrace = 16 << 10  // bytes of the place where a bug was met
	maxLogLine  = 64 << 10  // bytes of a line
	maxLogWait  = 256 << 10 // bytes that wait to be written
	// logFarewell is how long the end of the program waits for the log.
	logFarewell = time.Second
)

// journal writes a log without ever keeping those waiting who have something
// to say: a terminal that is stopped, or a reader of a pipe that hangs, would
// stop the server otherwise. What does not fit into the wait is dropped, and
// how much of it is said once there is room again.
type journal struct {
	to io.Writer

	mu      sync.Mutex
	waiting bytes.Buffer // guarded by mu, as all below
	missed  uint64       // lines dropped since the last that was written
	dropped uint64       // lines dropped ever
	closed  bool

	wake chan struct{} // receives when there is something to write
	done chan struct{} // closed when run has ended
}

// startJournal starts one. At its end it writes what waits, unless that takes
// too long.
func startJournal(to io.Writer) (j *journal, end func()) {
	j = &journal{to: to, wake: make(chan struct{}, 1), done: make(chan struct{})}
	// A reader of the log that ends must not end the server. The signal is
	// caught and not ignored, because tasks would inherit that.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	go j.run()
	return j, j.close
}

// Write takes a line, or drops it.
func (j *journal) Write(line []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed || j.waiting.Len()+len(line) > maxLogWait || len(line) > maxLogLine {
		j.missed++
		j.dropped++
		return len(line), nil
	}
	j.waiting.Write(line)
	j.signal()
	return len(line), nil
}

func (j *journal) signal() {
	select {
	case j.wake <- struct{}{}:
	default:
	}
}

// run writes until the journal is closed.
func (j *journal) run() {
	defer close(j.done)
	var text bytes.Buffer
	for range j.wake {
		for {
			missed, closed := j.take(&text)
			if text.Len() == 0 && missed == 0 {
				if closed {
					return
				}
				break
			}
			_, _ = j.to.Write(text.Bytes()) // there is nobody to tell
			text.Reset()
			if missed > 0 {
				logger := slog.New(slog.NewTextHandler(j.to, nil))
				logger.Warn("log was not read fast enough, lines are missing", "lines", missed)
			}
		}
	}
}

// take moves what waits into text.
func (j *journal) take(text *bytes.Buffer) (missed uint64, closed bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	_, _ = j.waiting.WriteTo(text)
	missed, j.missed = j.missed, 0
	return missed, j.closed
}

func (j *journal) close() {
	j.mu.Lock()
	j.closed = true
	j.signal()
	j.mu.Unlock()
	select {
	case <-j.done:
	case <-time.After(logFarewell):
	}
}

// Describe makes a journal a collector of Prometheus.
func (j *journal) Describe(to chan<- *prometheus.Desc) { prometheus.DescribeByCollect(j, to) }

// Collect tells how much was dropped.
func (j *journal) Collect(to chan<- prometheus.Metric) {
	j.mu.Lock()
	defer j.mu.Unlock()
	desc := prometheus.NewDesc("batchyard_log_dropped_lines_total", "Lines of the log that nobody read in time.", nil, nil)
	to <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, float64(j.dropped))
}

// bounded keeps texts of the log short.
func bounded(_ []string, a slog.Attr) slog.Attr {
	most := maxLogValue
	if a.Key == "stack" {
		most = maxLogTrace
	}
	var text string
	switch v := a.Value.Any().(type) {
	case string:
		text = v
	case error:
		text = v.Error()
	default:
		return a
	}
	if len(text) <= most {
		return a
	}
	return slog.String(a.Key, batch.Shorten(text, most)+"…")
}
