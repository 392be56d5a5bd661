package cli

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"sync/atomic"
)

// unreadable is what net/http itself writes about a request of which it cannot
// read the first line, its address above all, or a header. No handler is asked,
// and no answer of a handler has this text.
const unreadable = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n400 Bad Request"

// wordingListener has its connections say it in the words of a protocol.
type wordingListener struct {
	net.Listener
	// refusal is the answer in place of unreadable, from its first line on.
	refusal func() []byte
}

// Accept gives the next connection.
func (l *wordingListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &wordedConn{Conn: conn, refusal: l.refusal}, nil
}

// wordedConn is a connection as the server of net/http sees it, already
// decrypted. That server looks for TLS by type and does not find it behind this
// one; see knowTLS.
type wordedConn struct {
	net.Conn
	refusal func() []byte
	begun   atomic.Bool
}

// Write puts the one answer that is not of a handler into other words.
func (c *wordedConn) Write(p []byte) (int, error) {
	if len(p) != len(unreadable) || string(p) != unreadable {
		return c.Conn.Write(p)
	}
	if _, err := c.Conn.Write(c.refusal()); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Read tells who speaks plain HTTP to a port of TLS so, before it fails.
func (c *wordedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err == nil || c.begun.Swap(true) {
		return n, err
	}
	if record, ok := errors.AsType[tls.RecordHeaderError](err); ok && record.Conn != nil {
		_, _ = io.WriteString(record.Conn, "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n")
		_ = record.Conn.Close()
	}
	return n, err
}

// tlsKey is where a request's context has its *tls.Conn.
type tlsKey struct{}

// rememberTLS is a part of a server's ConnContext.
func rememberTLS(ctx context.Context, conn net.Conn) context.Context {
	if worded, ok := conn.(*wordedConn); ok {
		if secure, ok := worded.Conn.(*tls.Conn); ok {
			return context.WithValue(ctx, tlsKey{}, secure)
		}
	}
	return ctx
}

// knowTLS sets what net/http says about TLS to requests that came by it.
func knowTLS(handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if secure, ok := r.Context().Value(tlsKey{}).(*tls.Conn); ok && r.TLS == nil {
			state := secure.ConnectionState()
			r.TLS = &state
		}
		handler.ServeHTTP(w, r)
	})
}

// CloseWrite lets the other end know that nothing more comes, where that can be
// told: the server of net/http looks for it.
func (c *wordedConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}
