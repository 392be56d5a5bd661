package link

import (
	"bufio"
	"encoding"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"time"
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

// A Link carries messages over a socket. Messages that are sent while a write
// is under way leave together in the next one.
type Link struct {
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

// newLink is the link over a connected socket, which it owns from then on.
func newLink(conn *net.UnixConn) (*Link, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	l := &Link{
		conn: conn,
		in:   newSource(conn, raw),
		raw:  raw,
		wake: make(chan struct{}, 1),
		done: make(chan struct{}),
	}
	go l.write()
	return l, nil
}

// Close ends the link and waits for its writer. Messages not yet written are
// dropped.
func (l *Link) Close() {
	l.Fail(net.ErrClosed)
	<-l.done
}

// Finish ends the link once what was sent is written, or after a while if the
// peer does not read.
func (l *Link) Finish(patience time.Duration) {
	_ = l.conn.SetWriteDeadline(time.Now().Add(patience))
	l.Fail(io.EOF)
}

// Fail ends the link for a reason, which is what Send returns from then on.
func (l *Link) Fail(err error) {
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
func (l *Link) hangUp() {
	_ = l.conn.CloseRead()
	_ = l.conn.Close()
}

// Send sends a message and never blocks, so that a stopped peer cannot hold up
// who reports an exit. It writes at once as much as the socket takes, which
// saves waking another goroutine for each message; the rest is left to the
// writer. What queues up there is bounded by the requests that were read and
// the executions that are held.
func (l *Link) Send(m encoding.BinaryAppender) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	err := l.add(m)
	if err == nil {
		l.flush()
	}
	return err
}

// Post is send for what nobody waits for: a moment later, together with what
// else there is by then. Messages arrive in the order in which they were sent
// or posted.
func (l *Link) Post(m encoding.BinaryAppender) error {
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
func (l *Link) deliver() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting = false
	l.flush()
}

// add puts a message behind those that are not written yet. The caller holds
// the lock.
func (l *Link) add(m encoding.BinaryAppender) error {
	if l.err != nil {
		return l.err
	}
	begin := len(l.out)
	out, err := m.AppendBinary(append(l.out, 0, 0, 0, 0))
	if err != nil {
		return fmt.Errorf("encode message: %w", err)
	}
	size := len(out) - begin - 4
	if size > maxFrame {
		return fmt.Errorf("message of %d bytes is too long", size)
	}
	binary.BigEndian.PutUint32(out[begin:], uint32(size))
	l.out = out
	return nil
}

// flush writes what the socket takes and leaves the rest to the writer. The
// caller holds the lock.
func (l *Link) flush() {
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
func (l *Link) writeSome(b []byte) (n int) {
	_ = l.raw.Write(func(fd uintptr) bool {
		n = writeOnce(fd, b)
		return true
	})
	return n
}

func (l *Link) write() {
	defer close(l.done)
	defer l.hangUp()
	for range l.wake {
		l.mu.Lock()
		batch, err := l.out, l.err
		l.out, l.writing = nil, true
		l.mu.Unlock()
		if len(batch) > 0 {
			if _, werr := l.conn.Write(batch); werr != nil {
				l.Fail(werr)
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

// Receive reads the next message. It is valid until the next call; only one
// goroutine may call it.
func (l *Link) Receive() ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(l.in, head[:]); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint32(head[:]))
	if n > maxFrame {
		return nil, fmt.Errorf("message of %d bytes is too long", n)
	}
	if cap(l.body) < n || cap(l.body) > maxKept {
		l.body = make([]byte, max(n, 4<<10))
	}
	body := l.body[:n]
	_, err := io.ReadFull(l.in, body)
	return body, err
}

// Patience is how long the next message may be waited for from now on; zero is
// for ever.
func (l *Link) Patience(d time.Duration) error {
	var until time.Time
	if d > 0 {
		until = time.Now().Add(d)
	}
	return l.conn.SetReadDeadline(until)
}

// Block makes Receive wait in the kernel from now on, so that the goroutine
// keeps its thread and nobody else need be woken when a message comes.
func (l *Link) Block() { l.in.blocking = true }

// Buffered reports whether another message, or a part of one, has come already.
func (l *Link) Buffered() bool { return l.in.Buffered() > 0 }

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

// Broken reports whether the link has ended.
func (l *Link) Broken() bool {
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
