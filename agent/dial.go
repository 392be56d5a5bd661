package agent

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"syscall"
	"time"
)

// guardedClient is an HTTP client that a task's URLs may be given to: it
// refuses to connect to loopback, link-local and metadata addresses of the
// node's machine, unless host and port are allowed. The check is made on the
// address that is dialled, so neither a name nor a redirect gets around it.
func guardedClient(allowed []string) *http.Client {
	dialer := &net.Dialer{
		Timeout: 10 * time.Second, KeepAlive: 30 * time.Second,
		Control: func(_, address string, _ syscall.RawConn) error { return permitted(address, allowed) },
	}
	return &http.Client{
		Transport: &http.Transport{
			DialContext: dialer.DialContext, MaxIdleConnsPerHost: transfers, IdleConnTimeout: time.Minute,
			TLSHandshakeTimeout: 10 * time.Second, ResponseHeaderTimeout: time.Minute, ForceAttemptHTTP2: true,
		},
	}
}

// errRefusedAddress is wrapped by refusals of the guard.
type refusedAddressError struct{ address string }

func (e *refusedAddressError) Error() string {
	return fmt.Sprintf("tasks may not fetch from %s, an address of the node's own machine; the operator can allow it (fetch.allow)", e.address)
}

func permitted(address string, allowed []string) error {
	if slices.Contains(allowed, address) {
		return nil
	}
	target, err := netip.ParseAddrPort(address)
	if err != nil {
		return &refusedAddressError{address}
	}
	ip := target.Addr().Unmap()
	if ip.IsLoopback() || ip.IsLinkLocalUnicast() || ip.IsLinkLocalMulticast() || ip.IsMulticast() || ip.IsUnspecified() {
		return &refusedAddressError{address}
	}
	return nil
}
