package cli

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

const (
	// firstByte is how long a connection may wait to send one.
	firstByte = 10 * time.Second
	// tlsRecord is the first byte of a TLS connection; no method of HTTP
	// begins with it.
	tlsRecord = 0x16
)

// bothListener accepts connections of HTTP and of HTTPS on one port, told
// apart by their first byte. The listener below it bounds their number.
type bothListener struct {
	net.Listener
	tls    *tls.Config
	ready  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func listenBoth(listener net.Listener, config *tls.Config) *bothListener {
	l := &bothListener{
		Listener: listener, tls: config,
		ready: make(chan net.Conn), closed: make(chan struct{}),
	}
	go l.accept()
	return l
}

// accept runs until the listener is closed.
func (l *bothListener) accept() {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			time.Sleep(10 * time.Millisecond) // out of descriptors: let some be closed
			continue
		}
		go l.decide(conn) // ends with the connection, and of those there are so many
	}
}

func (l *bothListener) decide(conn net.Conn) {
	reader := bufio.NewReaderSize(conn, 4096)
	_ = conn.SetReadDeadline(time.Now().Add(firstByte))
	first, err := reader.Peek(1)
	if err != nil {
		_ = conn.Close()
		return
	}
	_ = conn.SetReadDeadline(time.Time{})
	var decided net.Conn = &peekedConn{conn, reader}
	if first[0] == tlsRecord {
		decided = tls.Server(decided, l.tls)
	}
	select {
	case l.ready <- decided:
	case <-l.closed:
		_ = conn.Close()
	}
}

// Accept gives the next connection that has shown what it speaks.
func (l *bothListener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.ready:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close ends the listener and every connection that has not spoken.
func (l *bothListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// peekedConn gives back the bytes that were looked at.
type peekedConn struct {
	net.Conn
	reader *bufio.Reader
}

func (c *peekedConn) Read(p []byte) (int, error) { return c.reader.Read(p) }

// listen opens a TCP port, or a socket that is its owner's alone.
func listen(ctx context.Context, address string) (net.Listener, error) {
	var config net.ListenConfig
	if !isPath(address) {
		return config.Listen(ctx, "tcp", address)
	}
	if info, err := os.Lstat(address); err == nil && info.Mode().Type() == fs.ModeSocket { // of an earlier server
		if err := os.Remove(address); err != nil {
			return nil, err
		}
	}
	config.Control = func(_, _ string, socket syscall.RawConn) (err error) {
		// Before it has a name, or somebody could be faster.
		if fault := socket.Control(func(fd uintptr) { err = syscall.Fchmod(int(fd), 0o600) }); fault != nil {
			return fault
		}
		return err
	}
	return config.Listen(ctx, "unix", address)
}

// isPath tells whether an address is that of a socket in the file system.
func isPath(address string) bool { return filepath.IsAbs(address) }

// isLoopback tells whether only this machine can reach an address.
func isLoopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
