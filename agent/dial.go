package agent

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
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
	allowed = append(slices.Clone(allowed), proxies()...)
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
			Proxy: proxyFor(allowed), DialContext: dial, MaxIdleConnsPerHost: transfers, IdleConnTimeout: time.Minute,
			TLSHandshakeTimeout: 10 * time.Second, ResponseHeaderTimeout: time.Minute, ForceAttemptHTTP2: true,
			TLSClientConfig: trust.Clone(),
			// A file is fetched as it is kept, and no bomb is unpacked.
			DisableCompression: true,
		},
	}
}

// proxyFor is the proxy that the operator gave the agent. It is not asked for
// addresses that tasks may not reach without it either.
func proxyFor(allowed []string) func(*http.Request) (*url.URL, error) {
	return func(r *http.Request) (*url.URL, error) {
		proxy, err := http.ProxyFromEnvironment(r)
		if proxy == nil || err != nil {
			return nil, err
		}
		if _, err := netip.ParseAddr(r.URL.Hostname()); err == nil {
			return proxy, permitted(net.JoinHostPort(r.URL.Hostname(), cmp.Or(r.URL.Port(), "443")), allowed, false)
		}
		return proxy, nil
	}
}

// proxies are where the operator's proxies listen, which may be this machine.
func proxies() []string {
	var hosts []string
	for _, name := range []string{"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"} {
		proxy, err := url.Parse(os.Getenv(name))
		if err != nil || proxy.Host == "" {
			continue
		}
		port := cmp.Or(proxy.Port(), map[string]string{"https": "443", "socks5": "1080"}[proxy.Scheme], "80")
		hosts = append(hosts, net.JoinHostPort(proxy.Hostname(), port))
	}
	return hosts
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
