package cli

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
)

// nodeAccess is how a node on the server's own machine reaches the server,
// whatever others call it: by a port of this machine, with the certificate that
// the server itself shows.
type nodeAccess struct {
	// URL is the address; ServerName is what the certificate there is for.
	URL        string `json:"url"`
	ServerName string `json:"serverName,omitempty"`
	// CAFiles have the certificates to trust there and where tasks fetch from,
	// beside the authorities of the machine. CASum tells when they change.
	CAFiles []string `json:"caFiles,omitempty"`
	CASum   string   `json:"caSum,omitempty"`
	// Environ is what the operator gave the server for all programs: proxies,
	// and files of authorities. Agents and tasks get it.
	Environ []string `json:"environ,omitempty"`
}

func (a nodeAccess) equal(b nodeAccess) bool {
	return a.URL == b.URL && a.ServerName == b.ServerName && a.CASum == b.CASum &&
		slices.Equal(a.CAFiles, b.CAFiles) && slices.Equal(a.Environ, b.Environ)
}

// nodeAccess finds it out. The ports are open.
func (s *stack) nodeAccess(environ []string) (nodeAccess, error) {
	access := nodeAccess{URL: s.scheme() + near(s.api.Addr()), Environ: passedOn(environ)}
	if !s.httpToo {
		name, err := certificateName(*s.certificate)
		if err != nil {
			return access, err
		}
		access.ServerName = name
	}
	if s.caFile != "" {
		access.CAFiles = append(access.CAFiles, s.caFile)
	} else if s.config.TLS.Certificate != "" {
		access.CAFiles = append(access.CAFiles, s.config.TLS.Certificate)
	}
	if s.config.Nodes.Authorities != "" {
		access.CAFiles = append(access.CAFiles, s.config.Nodes.Authorities)
	}
	sum := sha256.New()
	for _, name := range access.CAFiles {
		text, err := os.ReadFile(name)
		if err != nil {
			return access, fmt.Errorf("read authority: %w", err)
		}
		_, _ = sum.Write(text) // never fails
	}
	access.CASum = hex.EncodeToString(sum.Sum(nil))
	_, err := trust(access.CAFiles, "") // better said here than in the log of each agent
	return access, err
}

func (s *stack) scheme() string {
	if s.httpToo {
		return "http://"
	}
	return "https://"
}

// near is how this machine reaches a port that it listens on: a wildcard is not
// an address, but loopback is one of those that it stands for.
func near(address net.Addr) string {
	tcp, ok := address.(*net.TCPAddr)
	if !ok || !tcp.IP.IsUnspecified() {
		return address.String()
	}
	return net.JoinHostPort("127.0.0.1", fmt.Sprint(tcp.Port))
}

// certificateName is a name that a certificate is for.
func certificateName(certificate tls.Certificate) (string, error) {
	leaf := certificate.Leaf
	switch {
	case leaf != nil && len(leaf.DNSNames) > 0:
		return strings.Replace(leaf.DNSNames[0], "*", "node", 1), nil
	case leaf != nil && len(leaf.IPAddresses) > 0:
		return leaf.IPAddresses[0].String(), nil
	}
	return "", errors.New("the server's certificate (tls.certificate) is for no host: clients and nodes would refuse it")
}

// passedOn picks from an environment what all programs should have: where
// authorities are and how to get out.
func passedOn(environ []string) []string {
	var kept []string
	for _, setting := range environ {
		switch name, _, _ := strings.Cut(setting, "="); name {
		case "SSL_CERT_FILE", "SSL_CERT_DIR", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy":
			kept = append(kept, setting)
		}
	}
	slices.Sort(kept)
	return kept
}

// checkURL refuses an address of the API that is none.
func checkURL(text string) error {
	if text == "" {
		return nil
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.User != nil {
		return fmt.Errorf("configuration: url is an address like https://batch.example.com:8443, which %q is not", text)
	}
	return nil
}
