package authority

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/batchyard/batchyard/disk"
)

// Files in the folder.
const (
	// publicName has the certificates that clients are to trust.
	publicName = "ca.pem"
	// rootName and successorName have an authority with its key each.
	rootName      = "ca.key"
	successorName = "next.key"
)

const (
	// announced is how long before its end an authority gets a successor, which
	// the public file has from then on.
	announced = 4 * 365 * day
	// succeeded is how long before its end the successor takes over: the last
	// certificate that it signs has a good time to go.
	succeeded = 180 * day
	// retryAfter is how long after a renewal that failed the next one is tried.
	retryAfter = time.Hour
)

// Options say where an authority is kept and what it is for.
type Options struct {
	// Folder is made if it is not there.
	Folder string
	// Names are host names and addresses that the certificate is for.
	Names []string
	// Now reads the clock; time.Now if nil.
	Now func() time.Time
	// Log gets a word when clients may have to do something; discarded if nil.
	Log *slog.Logger
}

// Authority has the certificate of a server. Its methods may be called from many
// goroutines.
type Authority struct {
	Options

	mu    sync.Mutex // guards all below
	root  pair
	leaf  pair
	renew time.Time // when the certificate is to be renewed
}

// Open takes up the authority in a folder, or makes one, and a certificate.
func Open(o Options) (*Authority, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if err := disk.MakeFolder(o.Folder, 0o755); err != nil {
		return nil, fmt.Errorf("make folder of certificates: %w", err)
	}
	a := &Authority{Options: o}
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.next(o.Now()); err != nil {
		return nil, err
	}
	return a, nil
}

// File has the certificates that clients are to trust.
func (a *Authority) File() string { return filepath.Join(a.Folder, publicName) }

// GetCertificate gives the certificate for a handshake: one that holds now, by
// the clock of this machine. It is for [tls.Config].
func (a *Authority) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	now := a.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	if now.Before(a.renew) && !now.Before(a.leaf.Leaf.NotBefore) {
		return &a.leaf.Certificate, nil
	}
	if err := a.next(now); err != nil {
		a.renew = now.Add(retryAfter)
		a.Log.Error("certificate not renewed", "ends", a.leaf.Leaf.NotAfter, "err", err)
	}
	return &a.leaf.Certificate, nil
}

// next makes the next certificate, and sees to the authority before. The caller
// holds the lock.
func (a *Authority) next(now time.Time) error {
	root, err := a.keepRoot(now)
	if err != nil {
		return fmt.Errorf("keep local authority: %w", err)
	}
	leaf, err := issue(root, a.Names, now)
	if err != nil {
		return err
	}
	if a.leaf.Leaf != nil {
		a.Log.Info("renewed the certificate of the local authority", "ends", leaf.Leaf.NotAfter)
	}
	a.root, a.leaf = root, leaf
	a.renew = leaf.Leaf.NotAfter.Add(-leaf.Leaf.NotAfter.Sub(now) / 3)
	return nil
}
