package blob

import (
	"net"
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/batchyard/batchyard/auth"
)

const (
	maxNameChars = 1024 // characters of a blob's name, a rule of the protocol
	maxNameBytes = 2048 // bytes of it, a rule of ours: an index of PostgreSQL takes no more
)

// place is what a URL names. Container and blob are decoded, and empty where
// the URL names the account or the container.
type place struct {
	account, container, blob string
	hostStyle                bool // the account stood in the host and not in the path
}

// target is the place as package auth has it.
func (p place) target() auth.Target {
	return auth.Target{Account: p.account, Container: p.container, Blob: p.blob}
}

// level is what the place is: the account, a container or a blob.
func (p place) level() auth.Level {
	switch {
	case p.container == "":
		return auth.ServiceLevel
	case p.blob == "":
		return auth.ContainerLevel
	default:
		return auth.ObjectLevel
	}
}

// splitPlace takes the address of a request apart, by hand: the mux of the
// standard library redirects a path with // or .., which are legal in the name
// of a blob. The path is escaped, as it was sent. The account is in the host
// where that reads account.blob.anything, else it is the first segment.
func splitPlace(host, path string) (place, error) {
	rest, ok := strings.CutPrefix(path, "/")
	if !ok {
		return place{}, refuse(invalidURI, "The path of the address must start with a slash.")
	}
	var p place
	if p.account, p.hostStyle = accountOfHost(host); !p.hostStyle {
		var err error
		if p.account, rest, err = cutSegment(rest); err != nil {
			return place{}, err
		}
		if !isAccountName(p.account) {
			return place{}, refuse(invalidURI, "The address must start with the name of a storage account, as in /account/container/blob.")
		}
	}
	var err error
	if p.container, rest, err = cutSegment(rest); err != nil {
		return place{}, err
	}
	if p.blob, err = unescape(rest); err != nil {
		return place{}, err
	}
	return p, p.check()
}

// cutSegment takes the part up to the next slash, decoded, off a path.
func cutSegment(path string) (segment, rest string, err error) {
	segment, rest, _ = strings.Cut(path, "/")
	segment, err = unescape(segment)
	return segment, rest, err
}

func unescape(s string) (string, error) {
	plain, err := url.PathUnescape(s)
	if err != nil || !utf8.ValidString(plain) || strings.Contains(plain, "\x00") {
		return "", refuse(invalidURI, "The path of the address must be percent-encoded UTF-8 without zero bytes.")
	}
	return plain, nil
}

// check holds the names against the rules.
func (p place) check() error {
	switch {
	case p.container == "" && p.blob == "":
		return nil
	case strings.HasPrefix(p.container, "$"):
		return refuse(invalidResourceName, "The container %s is not served: there are no system containers here.", clip(p.container))
	case !isContainerName(p.container):
		return refuse(invalidResourceName, "The name of a container is 3 to 63 lower-case letters, digits and single hyphens, "+
			"and starts and ends with a letter or digit.")
	case len(p.blob) > maxNameBytes || utf8.RuneCountInString(p.blob) > maxNameChars:
		return refuse(invalidResourceName, "The name of a blob is at most %d characters and %d bytes.", maxNameChars, maxNameBytes)
	}
	return nil
}

// accountOfHost is the account of a host like account.blob.example.org:10000.
func accountOfHost(host string) (string, bool) {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	account, rest, _ := strings.Cut(strings.ToLower(host), ".")
	zone, domain, _ := strings.Cut(rest, ".")
	return account, zone == "blob" && domain != "" && isAccountName(account)
}

// isAccountName is the rule for names of storage accounts.
func isAccountName(s string) bool {
	for i := range len(s) {
		if !isLowerOrDigit(s[i]) {
			return false
		}
	}
	return 3 <= len(s) && len(s) <= 24
}

func isContainerName(s string) bool {
	for i := range len(s) {
		hyphen := s[i] == '-' && i > 0 && i < len(s)-1 && s[i-1] != '-'
		if !hyphen && !isLowerOrDigit(s[i]) {
			return false
		}
	}
	return 3 <= len(s) && len(s) <= 63
}

func isLowerOrDigit(c byte) bool { return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' }
