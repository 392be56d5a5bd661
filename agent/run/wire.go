package run

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/go-json-experiment/json"
	jsonv1 "github.com/go-json-experiment/json/v1"
)

// encoding writes durations as numbers of nanoseconds.
func encoding() json.Options { return jsonv1.FormatDurationAsNano(true) }

// protocolVersion is what this program speaks. A keeper outlives upgrades of
// the agent, so an agent must understand every keeper back to oldestVersion;
// fields are only ever added.
const (
	protocolVersion = 2
	oldestVersion   = 1
	// lineVersion is the first that knows LineUp and Withdraw.
	lineVersion = 2
)

// maxFrame bounds one message. The kernel refuses arguments and environments
// of more than a few megabytes long before.
const maxFrame = 16 << 20

// maxKept bounds the buffers that are kept for the next message.
const maxKept = 1 << 20

// What is posted waits for company: at most so long, and for so many bytes.
const (
	postTime = 2 * time.Millisecond
	maxPost  = 32 << 10
)

// A message is one frame between agent and keeper: a length of four bytes,
// then JSON. ID joins a request and its reply and is 0 for messages that have
// none. Exactly one of the other fields is set, or none in a bare "done".
type message struct {
	ID uint64 `json:"id,omitzero"`

	// Requests of the agent.
	Hello    *hello       `json:"hello,omitempty"`
	Start    *Spec        `json:"start,omitempty"`
	LineUp   *Spec        `json:"lineUp,omitempty"`
	Withdraw string       `json:"withdraw,omitempty"`
	Kill     *killRequest `json:"kill,omitempty"`
	Forget   []string     `json:"forget,omitempty"`
	Lease    int64        `json:"lease,omitzero"`
	List     bool         `json:"list,omitzero"`
	Shutdown bool         `json:"shutdown,omitzero"`
	Bye      bool         `json:"bye,omitzero"`
	// posted is called when a request that nobody hurries for is under way.
	posted func()

	// Replies and events of the keeper.
	Welcome *welcome   `json:"welcome,omitempty"`
	Started *Started   `json:"started,omitempty"`
	Held    []Held     `json:"held,omitempty"`
	Exited  *Held      `json:"exited,omitempty"`
	Error   *wireError `json:"error,omitempty"`
}

// hello is the first message of an agent. Lease is the end of its lease as
// nanoseconds of the boot clock, which both sides read and which goes on while
// the machine sleeps; 0 leaves the keeper's as it is.
type hello struct {
	Version int        `json:"version"`
	Node    NodeLimits `json:"node"`
	Lease   int64      `json:"lease,omitzero"`
}

// welcome is the keeper's answer to hello. Instance names this keeper process
// and no other.
type welcome struct {
	Version      int          `json:"version"`
	Instance     string       `json:"instance"`
	Build        string       `json:"build,omitempty"`
	PID          int          `json:"pid"`
	Capabilities Capabilities `json:"capabilities"`
	Held         []Held       `json:"held,omitempty"`
}

// killRequest asks for the end of an execution; Grace is in nanoseconds.
type killRequest struct {
	ID    string `json:"id"`
	Grace int64  `json:"grace,omitzero"`
}

// A link carries messages over a socket. Messages that are sent while a write
// is under way leave together in the next one.
type link struct {
	conn *net.UnixConn
	in   *source
	body []byte

	raw  syscall.RawConn
	wake chan struct{}
	done chan struct{}

	mu      sync.Mutex // guards all below
	out     []byte
	writing bool        // the writer is at it
	posted  *time.Timer // flushes what was posted, nil until something was
	waiting bool        // that timer runs
	err     error
}

func newLink(conn *net.UnixConn) (*link, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	l := &link{
		conn: conn,
		in:   newSource(conn, raw),
		raw:  raw,
		wake: make(chan struct{}, 1),
		done: make(chan struct{}),
	}
	go l.write()
	return l, nil
}

// close ends the link and waits for its writer. Messages not yet written are
// dropped.
func (l *link) close() {
	l.fail(net.ErrClosed)
	<-l.done
}

// finish ends the link once what was sent is written, or after a while if the
// peer does not read.
func (l *link) finish(patience time.Duration) {
	_ = l.conn.SetWriteDeadline(time.Now().Add(patience))
	l.fail(io.EOF)
}

func (l *link) fail(err error) {
	l.mu.Lock()
	if l.err == nil {
		l.err = err
	}
	l.mu.Unlock()
	if !errors.Is(err, io.EOF) {
		l.hangUp()
	}
	signalOne(l.wake)
}

// hangUp closes the socket. To close it does not wake who waits in the kernel;
// to shut it down does.
func (l *link) hangUp() {
	_ = l.conn.CloseRead()
	_ = l.conn.Close()
}

// send sends a message and never blocks, so that a stopped peer cannot hold up
// who reports an exit. It writes at once as much as the socket takes, which
// saves waking another goroutine for each message; the rest is left to the
// writer. What queues up there is bounded by the requests that were read and
// the executions that are held.
func (l *link) send(m *message) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	err := l.add(m)
	if err == nil {
		l.flush()
	}
	return err
}

// post is send for what nobody waits for: a moment later, together with what
// else there is by then. Messages arrive in the order in which they were sent
// or posted.
func (l *link) post(m *message) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.add(m); err != nil {
		return err
	}
	switch {
	case len(l.out) >= maxPost:
		l.flush()
	case l.waiting:
	case l.posted == nil:
		l.posted = time.AfterFunc(postTime, l.deliver)
		l.waiting = true
	default:
		l.posted.Reset(postTime)
		l.waiting = true
	}
	return nil
}

// deliver writes what was posted.
func (l *link) deliver() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting = false
	l.flush()
}

// add puts a message behind those that are not written yet. The caller holds
// the lock.
func (l *link) add(m *message) error {
	if l.err != nil {
		return l.err
	}
	begin := len(l.out)
	l.out = append(l.out, 0, 0, 0, 0)
	buffer := bytes.NewBuffer(l.out)
	if err := json.MarshalWrite(buffer, m, encoding()); err != nil {
		l.out = l.out[:begin]
		return fmt.Errorf("encode message: %w", err)
	}
	size := buffer.Len() - begin - 4
	if size > maxFrame {
		l.out = l.out[:begin]
		return fmt.Errorf("message of %d bytes is too long", size)
	}
	l.out = buffer.Bytes()
	binary.BigEndian.PutUint32(l.out[begin:], uint32(size))
	return nil
}

// flush writes what the socket takes and leaves the rest to the writer. The
// caller holds the lock.
func (l *link) flush() {
	if !l.writing && len(l.out) > 0 {
		n := l.writeSome(l.out)
		l.out = l.out[:copy(l.out, l.out[n:])]
	}
	if len(l.out) > 0 {
		signalOne(l.wake)
	} else if cap(l.out) > maxKept {
		l.out = nil
	}
}

// writeSome writes what can be written without waiting. An error is left to the
// writer, which meets it again.
func (l *link) writeSome(b []byte) (n int) {
	_ = l.raw.Write(func(fd uintptr) bool {
		n = writeOnce(fd, b)
		return true
	})
	return n
}

func (l *link) write() {
	defer close(l.done)
	defer l.hangUp()
	for range l.wake {
		l.mu.Lock()
		batch, err := l.out, l.err
		l.out, l.writing = nil, true
		l.mu.Unlock()
		if len(batch) > 0 {
			if _, werr := l.conn.Write(batch); werr != nil {
				l.fail(werr)
				return
			}
		}
		if err != nil {
			return
		}
		l.mu.Lock()
		l.writing = false
		if len(l.out) > 0 {
			signalOne(l.wake)
		}
		l.mu.Unlock()
	}
}

// receive reads the next message. Only one goroutine may call it.
func (l *link) receive(m *message) error {
	var head [4]byte
	if _, err := io.ReadFull(l.in, head[:]); err != nil {
		return err
	}
	n := int(binary.BigEndian.Uint32(head[:]))
	if n > maxFrame {
		return fmt.Errorf("message of %d bytes is too long", n)
	}
	if cap(l.body) < n || cap(l.body) > maxKept {
		l.body = make([]byte, max(n, 4<<10))
	}
	if _, err := io.ReadFull(l.in, l.body[:n]); err != nil {
		return err
	}
	*m = message{}
	if err := json.Unmarshal(l.body[:n], m, encoding()); err != nil {
		return fmt.Errorf("decode message: %w", err)
	}
	return nil
}

// source reads from a socket, either by way of the Go runtime, which leaves the
// thread to others meanwhile, or by waiting in the kernel.
type source struct {
	*bufio.Reader
	conn     *net.UnixConn
	raw      syscall.RawConn
	blocking bool
}

func newSource(conn *net.UnixConn, raw syscall.RawConn) *source {
	s := &source{conn: conn, raw: raw}
	s.Reader = bufio.NewReaderSize(readFunc(s.read), 32<<10)
	return s
}

// block makes the source wait in the kernel from now on.
func (s *source) block() { s.blocking = true }

// buffered reports whether something can be read at once.
func (s *source) buffered() bool { return s.Buffered() > 0 }

func (s *source) read(b []byte) (n int, err error) {
	if !s.blocking {
		return s.conn.Read(b)
	}
	rerr := s.raw.Read(func(fd uintptr) bool {
		n, err = readBlocking(fd, b)
		return true
	})
	if rerr != nil {
		return 0, rerr
	}
	return n, err
}

type readFunc func([]byte) (int, error)

func (f readFunc) Read(b []byte) (int, error) { return f(b) }

// broken reports whether the link has ended.
func (l *link) broken() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err != nil
}

// signalOne wakes whoever waits on a channel of size one.
func signalOne(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
