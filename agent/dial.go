package agent

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"time"
)

// stallTime is how long a connection may neither give nor take a byte. A task
// without a time limit would wait for ever for a peer that fell silent.
const stallTime = 2 * time.Minute

// guardedClient is an HTTP client that a task's URLs may be given to: it
// refuses to connect to loopback, link-local and metadata addresses and to all
// others of the node's own machine, unless host and port are allowed. The check
// is made on the address that is dialled, so neither a name nor a redirect gets
// around it.
func guardedClient(allowed []string, trust *tls.Config) *http.Client {
	open := &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}
	guarded := *open
	guarded.Control = func(_, address string, _ syscall.RawConn) error { return permitted(address, allowed, false) }
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		dialer := &guarded
		if slices.Contains(allowed, address) { // by its name
			dialer = open
		}
		conn, err := dialNear(ctx, dialer, network, address)
		if err != nil {
			return nil, err
		}
		// A route may lead an address to this machine that is at no interface.
		if dialer == &guarded && comesBack(conn) {
			if err := permitted(conn.RemoteAddr().String(), allowed, true); err != nil {
				conn.Close()
				return nil, err
			}
		}
		return &lively{Conn: conn}, nil
	}
	return &http.Client{
		Transport: &http.Transport{
			DialContext: dial, MaxIdleConnsPerHost: transfers, IdleConnTimeout: time.Minute,
			TLSHandshakeTimeout: 10 * time.Second, ResponseHeaderTimeout: time.Minute, ForceAttemptHTTP2: true,
			TLSClientConfig: trust.Clone(),
			// A file is fetched as it is kept, and no bomb is unpacked.
			DisableCompression: true,
		},
	}
}

// dialNear dials an address, and asks no resolver for localhost and the names
// below it: they are this machine (RFC 6761), but Debian's resolver does not
// know the latter, by which storage names its accounts, and a machine without
// /etc/hosts knows neither.
func dialNear(ctx context.Context, dialer *net.Dialer, network, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	name := "." + strings.ToLower(strings.TrimSuffix(host, "."))
	if !strings.HasSuffix(name, ".localhost") {
		return dialer.DialContext(ctx, network, address)
	}
	conn, err := dialer.DialContext(ctx, network, net.JoinHostPort("127.0.0.1", port))
	if err != nil {
		if other, second := dialer.DialContext(ctx, network, net.JoinHostPort("::1", port)); second == nil {
			return other, nil
		}
	}
	return conn, err
}

// lively is a connection on which nothing waits longer than stallTime.
type lively struct{ net.Conn }

func (c *lively) Read(b []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(stallTime)); err != nil {
		return 0, err
	}
	return c.Conn.Read(b)
}

func (c *lively) Write(b []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(stallTime)); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}

// refusedAddressError is a refusal of the guard.
type refusedAddressError struct{ address string }

func (e *refusedAddressError) Error() string {
	return fmt.Sprintf("tasks may not reach %s, an address of the node's own machine or network; the operator can allow it (fetch.allow)", e.address)
}

// NonRetriable tells the storage client that another try is of no use.
func (e *refusedAddressError) NonRetriable() {}

// metadata are addresses outside of the link-local ranges at which clouds tell
// a machine its secrets.
func metadata(ip netip.Addr) bool {
	switch ip.String() {
	case "168.63.129.16", "100.100.100.200", "fd00:ec2::254":
		return true
	}
	return false
}

// permitted refuses an address that tasks may not reach; own tells that it is
// known to be this machine's.
func permitted(address string, allowed []string, own bool) error {
	if slices.Contains(allowed, address) {
		return nil
	}
	target, err := netip.ParseAddrPort(address)
	if err != nil {
		return &refusedAddressError{address}
	}
	ip := target.Addr().Unmap().WithZone("")
	switch {
	case ip.IsLinkLocalUnicast(), ip.IsLinkLocalMulticast(), ip.IsMulticast(), metadata(ip):
		return &refusedAddressError{address}
	case own, ip.IsLoopback(), ip.IsUnspecified(), isOwn(ip):
		if !allowedAnywhere(target.Port(), allowed) {
			return &refusedAddressError{address}
		}
	}
	return nil
}

// allowedAnywhere tells whether a port is allowed at all addresses of this
// machine, by an unspecified one: a server that listens on them all is told so.
func allowedAnywhere(port uint16, allowed []string) bool {
	return slices.ContainsFunc(allowed, func(entry string) bool {
		at, err := netip.ParseAddrPort(entry)
		return err == nil && at.Addr().IsUnspecified() && at.Port() == port
	})
}

// isOwn tells whether an address is one of this machine, as far as that tells.
func isOwn(ip netip.Addr) bool {
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return false // the connection shows it, see comesBack
	}
	return slices.ContainsFunc(addresses, func(address net.Addr) bool {
		own, ok := address.(*net.IPNet)
		return ok && own.IP.Equal(net.IP(ip.AsSlice()))
	})
}

// comesBack tells whether both ends of a connection have one address, as those
// on one machine do.
func comesBack(conn net.Conn) bool {
	here, fine := conn.LocalAddr().(*net.TCPAddr)
	there, ok := conn.RemoteAddr().(*net.TCPAddr)
	return fine && ok && here.IP.Equal(there.IP)
}
