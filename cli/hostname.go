package cli

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// loopbackNamesOnly serves callers who address this machine by a name or an
// address of loopback, and answers others by refuse. The keys of dev are known
// to everybody; that it listens on loopback keeps other machines out, but not a
// web page that a browser here has loaded under a name which its owner lets
// lead to 127.0.0.1 a moment later. The browser sends that name as Host.
func loopbackNamesOnly(handler http.Handler, refuse func(http.ResponseWriter, *http.Request)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !isLoopbackName(r.Host) {
			refuse(w, r)
			return
		}
		handler.ServeHTTP(w, r)
	})
}

// isLoopbackName tells whether a Host names this machine whoever resolves it:
// loopback addresses, localhost and the names below it (RFC 6761), by which
// storage names its accounts.
func isLoopbackName(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if ip, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return ip.Unmap().IsLoopback()
	}
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}

const wrongName = "batchyard dev answers to localhost, names below it and loopback addresses only, because its keys are public. " +
	"Use one of these in the address, or 'batchyard server' for anything else."

// wrongNameInAPI is the refusal in the words of the Batch protocol,
// wrongNameInStorage in those of storage.
func wrongNameInAPI(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json;odata=minimalmetadata")
	w.WriteHeader(http.StatusForbidden)
	_, _ = fmt.Fprintf(w, `{"code":"Forbidden","message":{"lang":"en-US","value":%q}}`, wrongName)
}

func wrongNameInStorage(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/xml")
	w.Header().Set("X-Ms-Error-Code", "AuthorizationFailure")
	w.WriteHeader(http.StatusForbidden)
	_, _ = fmt.Fprintf(w, `<?xml version="1.0" encoding="utf-8"?><Error><Code>AuthorizationFailure</Code><Message>%s</Message></Error>`, wrongName)
}
