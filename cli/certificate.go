package cli

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"path/filepath"
	"time"

	"github.com/batchyard/batchyard/disk"
)

const (
	authorityYears = 10
	leafDays       = 397 // what browsers accept at most
)

// localCertificate gives a certificate for names from an authority that is
// kept in folder, so that clients have to be told to trust it only once. It
// returns the path of the authority's certificate.
func localCertificate(folder string, names []string, now time.Time) (tls.Certificate, string, error) {
	if err := disk.MakeFolder(folder, 0o755); err != nil {
		return tls.Certificate{}, "", fmt.Errorf("make folder of certificates: %w", err)
	}
	path := filepath.Join(folder, "ca.pem")
	authority, err := tls.LoadX509KeyPair(path, filepath.Join(folder, "ca.key"))
	if err == nil && now.Add(leafDays*24*time.Hour).After(authority.Leaf.NotAfter) {
		err = fs.ErrNotExist // too old to sign for as long as we need
	}
	if errors.Is(err, fs.ErrNotExist) {
		authority, err = newAuthority(folder, now)
	}
	if err != nil {
		return tls.Certificate{}, "", fmt.Errorf("load local authority: %w", err)
	}
	leaf, err := issue(authority, names, now)
	return leaf, path, err
}

func newAuthority(folder string, now time.Time) (tls.Certificate, error) {
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "Batchyard local authority"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(authorityYears, 0, 0),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	certificate, key, err := sign(template, nil)
	if err != nil {
		return tls.Certificate{}, err
	}
	// The key first: a certificate without its key would never be replaced.
	for _, file := range []struct {
		name, kind string
		bytes      []byte
		mode       fs.FileMode
	}{{"ca.key", "PRIVATE KEY", key, 0o600}, {"ca.pem", "CERTIFICATE", certificate, 0o644}} {
		text := pem.EncodeToMemory(&pem.Block{Type: file.kind, Bytes: file.bytes})
		if err := disk.WriteFile(filepath.Join(folder, file.name), text, file.mode); err != nil {
			return tls.Certificate{}, err
		}
	}
	return tls.LoadX509KeyPair(filepath.Join(folder, "ca.pem"), filepath.Join(folder, "ca.key"))
}

func issue(authority tls.Certificate, names []string, now time.Time) (tls.Certificate, error) {
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "Batchyard on this machine"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(0, 0, leafDays),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	certificate, key, err := sign(template, &authority)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("issue certificate: %w", err)
	}
	return tls.X509KeyPair(
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}))
}

// sign makes a key and its certificate, signed by the authority or, without
// one, by itself.
func sign(template *x509.Certificate, authority *tls.Certificate) (certificate, key []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	parent, signer := template, any(private)
	if authority != nil {
		parent, signer = authority.Leaf, authority.PrivateKey
	}
	if certificate, err = x509.CreateCertificate(rand.Reader, template, parent, &private.PublicKey, signer); err != nil {
		return nil, nil, err
	}
	key, err = x509.MarshalPKCS8PrivateKey(private)
	return certificate, key, err
}

func serial() *big.Int {
	number, _ := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127)) // never fails since Go 1.24
	return number
}
