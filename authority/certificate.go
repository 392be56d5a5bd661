package authority

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"time"
)

const day = 24 * time.Hour

const (
	authorityYears = 10
	leafTime       = 397 * day // what browsers accept at most
	// backdated is how far clocks of clients may be behind.
	backdated = time.Hour
)

// pair is a certificate and its key, in PEM: one text, so that there is never
// one without the other.
type pair struct {
	tls.Certificate
	text []byte
}

// parsePair reads a text that has both.
func parsePair(text []byte) (pair, error) {
	certificate, err := tls.X509KeyPair(text, text)
	return pair{certificate, text}, err
}

// newRoot makes an authority.
func newRoot(now time.Time) (pair, error) {
	return sign(&x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "Batchyard local authority"},
		NotBefore: now.Add(-backdated), NotAfter: now.AddDate(authorityYears, 0, 0),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}, nil)
}

// issue makes a certificate for names, which ends no later than the authority.
func issue(root pair, names []string, now time.Time) (pair, error) {
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "Batchyard on this machine"},
		NotBefore: now.Add(-backdated), NotAfter: now.Add(leafTime),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if template.NotAfter.After(root.Leaf.NotAfter) {
		template.NotAfter = root.Leaf.NotAfter
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	leaf, err := sign(template, &root)
	if err != nil {
		return pair{}, fmt.Errorf("issue certificate: %w", err)
	}
	return leaf, nil
}

// sign makes a key and its certificate, signed by the authority or, without
// one, by itself.
func sign(template *x509.Certificate, root *pair) (pair, error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return pair{}, err
	}
	parent, signer := template, any(private)
	if root != nil {
		parent, signer = root.Leaf, root.PrivateKey
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, parent, &private.PublicKey, signer)
	if err != nil {
		return pair{}, err
	}
	key, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return pair{}, err
	}
	return parsePair(append(
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})...))
}

func serial() *big.Int {
	number, _ := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127)) // never fails since Go 1.24
	return number
}
