package authority_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/batchyard/batchyard/authority"
)

const day = 24 * time.Hour

var begin = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// server is an authority whose clock stands where the test puts it.
type server struct {
	*authority.Authority
	t      *testing.T
	folder string
	now    time.Time
	log    bytes.Buffer
	port   net.Listener
}

func open(t *testing.T, folder string, now time.Time) *server {
	t.Helper()
	s := &server{t: t, folder: folder, now: now}
	var config net.ListenConfig
	var err error
	if s.port, err = config.Listen(t.Context(), "tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.port.Close() })
	s.Authority, err = authority.Open(authority.Options{
		Folder: folder, Names: []string{"localhost", "127.0.0.1"}, Now: func() time.Time { return s.now },
		Log: slog.New(slog.NewTextHandler(&s.log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// trusted is what a client trusts that reads the public file now.
func (s *server) trusted() *x509.CertPool {
	s.t.Helper()
	text, err := os.ReadFile(s.File())
	if err != nil {
		s.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(text)
	return pool
}

// greet has a client shake hands, and gives the certificate that it was shown.
func (s *server) greet(trusted *x509.CertPool) (*x509.Certificate, error) {
	s.t.Helper()
	var d net.Dialer
	near, err := d.DialContext(s.t.Context(), "tcp", s.port.Addr().String())
	if err != nil {
		s.t.Fatal(err)
	}
	defer near.Close()
	far, err := s.port.Accept()
	if err != nil {
		s.t.Fatal(err)
	}
	done := make(chan struct{})
	defer func() { <-done }()
	go func() {
		defer close(done)
		_ = tls.Server(far, &tls.Config{GetCertificate: s.GetCertificate, MinVersion: tls.VersionTLS12}).Handshake()
		_ = far.Close()
	}()
	c := tls.Client(near, &tls.Config{RootCAs: trusted, ServerName: "localhost", Time: func() time.Time { return s.now }, MinVersion: tls.VersionTLS12})
	if err := c.Handshake(); err != nil {
		return nil, err
	}
	return c.ConnectionState().PeerCertificates[0], nil
}

// A server that runs for years is known to its clients every day of them, and to
// those that trusted it before the last.
func TestAServerIsKnownForDecades(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir(), begin)
	var trusts []*x509.CertPool // of clients that read the file up to three years before
	for s.now.Before(begin.AddDate(25, 0, 0)) {
		if s.now.Sub(begin)%(365*day) == 0 {
			trusts = append(trusts, s.trusted())
		}
		for age, trusted := range trusts[max(0, len(trusts)-3):] {
			leaf, err := s.greet(trusted)
			if err != nil {
				t.Fatalf("%s, a client of %d, counted from three years before: %v", s.now, age, err)
			}
			if left := leaf.NotAfter.Sub(s.now); left < 30*day {
				t.Fatalf("%s: the certificate has %s left", s.now, left)
			}
		}
		s.now = s.now.Add(5 * day)
	}
	if said := s.log.String(); !strings.Contains(said, "has a successor") || !strings.Contains(said, "has taken over") {
		t.Errorf("the log has no word of it:\n%s", said)
	}
	if strings.Contains(s.log.String(), "not renewed") {
		t.Error(s.log.String())
	}
}

func TestAServerThatIsStartedAgainKeepsItsAuthority(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	trusted := open(t, folder, begin).trusted()
	for _, later := range []time.Duration{time.Hour, 400 * day, 8 * 365 * day} {
		s := open(t, folder, begin.Add(later))
		if _, err := s.greet(trusted); err != nil {
			t.Errorf("after %s: %v", later, err)
		}
	}
}

// A clock that was set back, or forth for a while, shows nobody a certificate
// that does not hold.
func TestTheClockIsSet(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir(), begin.Add(2*365*day))
	trusted := s.trusted()
	for _, by := range []time.Duration{300 * day, -200 * day, 390 * day, -2 * day} {
		s.now = s.now.Add(by)
		if _, err := s.greet(trusted); err != nil {
			t.Errorf("set by %s: %v", by, err)
		}
	}
}

// The folder of an earlier program has the certificate in the public file alone.
func TestAnAuthorityOfBeforeIsKept(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	s := open(t, folder, begin)
	trusted := s.trusted()
	key := filepath.Join(folder, "ca.key")
	text, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "PRIVATE KEY" {
			if err := os.WriteFile(key, pem.EncodeToMemory(block), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	for range 2 {
		if _, err := open(t, folder, begin.Add(day)).greet(trusted); err != nil {
			t.Error(err)
		}
	}
}

// Whoever is killed between two files leaves something that the next can use.
func TestWhatAKilledServerLeaves(t *testing.T) {
	t.Parallel()
	late := begin.AddDate(10, 0, -100) // the successor takes over
	for name, leave := range map[string]func(folder string) error{
		"a key without public file": func(folder string) error { return os.Remove(filepath.Join(folder, "ca.pem")) },
		"a successor that took over and is there": func(folder string) error {
			text, err := os.ReadFile(filepath.Join(folder, "ca.key"))
			return errors.Join(err, os.WriteFile(filepath.Join(folder, "next.key"), text, 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			folder := t.TempDir()
			s := open(t, folder, begin)
			trusted := s.trusted()
			if err := leave(folder); err != nil {
				t.Fatal(err)
			}
			if _, err := open(t, folder, begin.Add(day)).greet(trusted); err != nil {
				t.Error(err)
			}
			s = open(t, folder, late)
			if _, err := s.greet(s.trusted()); err != nil {
				t.Error(err)
			}
			if _, err := os.Stat(filepath.Join(folder, "next.key")); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the file of the successor is left: %v", err)
			}
		})
	}
}

func TestPrivateFilesArePrivate(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir(), begin)
	for name, mode := range map[string]fs.FileMode{"ca.key": 0o600, "ca.pem": 0o644} {
		if info, err := os.Stat(filepath.Join(s.folder, name)); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
}
