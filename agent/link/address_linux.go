package link

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

const socketName = "keeper.sock"

// socketPath is where the keeper of a node listens. An address may have 107
// bytes; a longer one is written by way of an open folder, which must stay open
// until done is called.
func socketPath(dir string) (path string, done func(), err error) {
	path = filepath.Join(dir, socketName)
	if len(path) <= 107 {
		return path, func() {}, nil
	}
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", nil, fmt.Errorf("open %s: %w", dir, err)
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", fd, socketName), func() { unix.Close(fd) }, nil
}

// Listener is the keeper's end of a node's socket.
type Listener struct{ socket *net.UnixListener }

// Listen makes the node's socket. The caller holds the node's lock, so that one
// found there belongs to nobody.
func Listen(dir string) (*Listener, error) {
	path, done, err := socketPath(dir)
	if err != nil {
		return nil, err
	}
	defer done()
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove old socket: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	// The name may be gone when the listener is closed; the next keeper removes
	// what is there.
	l.SetUnlinkOnClose(false)
	return &Listener{l}, nil
}

// ErrStranger refuses a connection by a process of another user.
var ErrStranger = errors.New("the other end is a process of another user")

// Accept waits for the next connection. Its errors are net.ErrClosed after
// Close, ErrStranger, and those of a system that is out of something.
func (l *Listener) Accept() (*Link, error) {
	conn, err := l.socket.AcceptUnix()
	if err != nil {
		return nil, err
	}
	return over(conn)
}

// Close ends Accept.
func (l *Listener) Close() error { return l.socket.Close() }

// over is the link over a connection to a process of the same user, which is
// closed if it is none.
func over(conn *net.UnixConn) (*Link, error) {
	err := peerIsUs(conn)
	var l *Link
	if err == nil {
		l, err = newLink(conn)
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return l, nil
}

// peerIsUs reports whether the other end of a socket is a process of the same
// user. The folder is private; this is the second lock on the door.
func peerIsUs(c *net.UnixConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var cred *unix.Ucred
	var cerr error
	err = raw.Control(func(fd uintptr) {
		cred, cerr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err := errors.Join(err, cerr); err != nil {
		return err
	}
	if int(cred.Uid) != os.Geteuid() {
		return fmt.Errorf("%w: %d", ErrStranger, cred.Uid)
	}
	return nil
}

// Dial connects to the keeper that listens in the node's private folder.
func Dial(ctx context.Context, dir string) (*Link, error) {
	path, done, err := socketPath(dir)
	if err != nil {
		return nil, err
	}
	defer done()
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	return over(c.(*net.UnixConn))
}
