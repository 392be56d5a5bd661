package authority

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/batchyard/batchyard/disk"
)

// keepRoot gives the authority that signs now. It makes one where there is none,
// makes a successor in time, and has it take over in time. Each file is written
// whole, and what a process that is killed leaves is taken up by the next.
func (a *Authority) keepRoot(now time.Time) (pair, error) {
	root, err := a.readRoot()
	if errors.Is(err, fs.ErrNotExist) {
		if root, err = newRoot(now); err == nil {
			err = a.write(rootName, root)
		}
	}
	if err != nil {
		return pair{}, err
	}
	next, err := a.read(successorName)
	hasNext := err == nil && !next.Leaf.Equal(root.Leaf) // equal: it took over, and its file was to be removed
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return pair{}, err
	}
	if !hasNext && now.Add(announced).After(root.Leaf.NotAfter) {
		if next, err = newRoot(now); err == nil {
			err = a.write(successorName, next)
		}
		if err != nil {
			return pair{}, err
		}
		hasNext = true
		a.Log.Warn("the local authority has a successor: have clients trust the file as it is now, before the authority ends",
			"file", a.File(), "ends", root.Leaf.NotAfter)
	}
	trusted := []*x509.Certificate{root.Leaf}
	if hasNext {
		trusted = append(trusted, next.Leaf)
	}
	if err := a.publish(trusted, now); err != nil {
		return pair{}, err
	}
	if hasNext && now.Add(succeeded).After(root.Leaf.NotAfter) {
		return next, a.succeed(root, next)
	}
	return root, nil
}

// succeed has the successor take over. It has been published, so whoever reads
// the public file trusts both.
func (a *Authority) succeed(root, next pair) error {
	if err := a.write(rootName, next); err != nil {
		return err
	}
	a.Log.Warn("the successor of the local authority has taken over: clients that trust an older copy of the file refuse this server",
		"file", a.File(), "ends", root.Leaf.NotAfter)
	if err := os.Remove(filepath.Join(a.Folder, successorName)); err != nil {
		return fmt.Errorf("remove file of the successor: %w", err)
	}
	return disk.SyncFolder(a.Folder)
}

// readRoot reads the authority. One of an earlier program has its certificate in
// the public file.
func (a *Authority) readRoot() (pair, error) {
	key, err := os.ReadFile(filepath.Join(a.Folder, rootName))
	if err != nil {
		return pair{}, err
	}
	if bytes.Contains(key, []byte("BEGIN CERTIFICATE")) {
		return parsePair(key)
	}
	public, err := os.ReadFile(a.File())
	if errors.Is(err, fs.ErrNotExist) {
		return pair{}, err // it was being made: nobody trusts it yet
	}
	if err != nil {
		return pair{}, err
	}
	root, err := parsePair(append(public, key...))
	if err != nil {
		return pair{}, fmt.Errorf("%s and %s: %w", a.File(), rootName, err)
	}
	return root, a.write(rootName, root)
}

func (a *Authority) read(name string) (pair, error) {
	text, err := os.ReadFile(filepath.Join(a.Folder, name))
	if err != nil {
		return pair{}, err
	}
	p, err := parsePair(text)
	if err != nil {
		return pair{}, fmt.Errorf("%s: %w", filepath.Join(a.Folder, name), err)
	}
	return p, nil
}

func (a *Authority) write(name string, p pair) error {
	return disk.WriteFile(filepath.Join(a.Folder, name), p.text, 0o600)
}

// publish writes what clients are to trust, if it is not what the file has: these
// certificates, and of those in it the ones that still hold.
func (a *Authority) publish(trusted []*x509.Certificate, now time.Time) error {
	before, err := os.ReadFile(a.File())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for rest := before; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err == nil && now.Before(c.NotAfter) && !contains(trusted, c) {
			trusted = append(trusted, c)
		}
	}
	var text []byte
	for _, c := range trusted {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	if bytes.Equal(text, before) {
		return nil
	}
	return disk.WriteFile(a.File(), text, 0o644)
}

func contains(all []*x509.Certificate, one *x509.Certificate) bool {
	for _, c := range all {
		if c.Equal(one) {
			return true
		}
	}
	return false
}
