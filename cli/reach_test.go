package cli_test

import (
	"context"
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
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/batchyard/batchyard/auth"
	"github.com/batchyard/batchyard/batch"
	"github.com/batchyard/batchyard/client"
)

// privateCertificate makes a certificate for a host, of an authority that
// nobody knows. The file has no authority in it, as such files seldom do.
func privateCertificate(t *testing.T, host string) (certificate, key, authority string) {
	t.Helper()
	folder := t.TempDir()
	write := func(name, kind string, bytes []byte) string {
		path := filepath.Join(folder, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: bytes}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	make := func(template, parent *x509.Certificate, signer *ecdsa.PrivateKey) ([]byte, *ecdsa.PrivateKey) {
		private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if signer == nil {
			signer = private
		}
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
		der, err := x509.CreateCertificate(rand.Reader, template, parent, &private.PublicKey, signer)
		if err != nil {
			t.Fatal(err)
		}
		return der, private
	}
	root := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "private authority"}, IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	rootDER, rootKey := make(root, root, nil)
	leafDER, leafKey := make(&x509.Certificate{
		SerialNumber: big.NewInt(2), DNSNames: []string{host}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, root, rootKey)
	leafPrivate, err := x509.MarshalPKCS8PrivateKey(leafKey)
	if err != nil {
		t.Fatal(err)
	}
	return write("cert.pem", "CERTIFICATE", leafDER), write("key.pem", "PRIVATE KEY", leafPrivate), write("ca.pem", "CERTIFICATE", rootDER)
}

func TestNodesComeUpWhereverTheServerListens(t *testing.T) {
	t.Parallel()
	certificate, key, authority := privateCertificate(t, "batch.example.com")
	for name, c := range map[string]struct{ address, more string }{
		"a wildcard":              {"0.0.0.0:0", ""},
		"a wildcard of version 6": {"[::]:0", ""},
		"a wildcard, a certificate of a private authority and an address elsewhere": {"0.0.0.0:0", fmt.Sprintf(
			"url = 'https://batch.example.com'\ntls = {certificate = %q, key = %q}\n", certificate, key)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			account := auth.NewKey()
			path := filepath.Join(t.TempDir(), "server.toml")
			configuration := fmt.Sprintf("data = %q\nlisten = {api = %q, blob = %q}\nlog = {format = 'json'}\n%s%s", dataFolder(t), c.address, c.address, c.more,
				accountsOf(map[string]auth.Key{"acme": account}, map[string]auth.Key{"acmestore": auth.NewKey()}))
			if err := os.WriteFile(path, []byte(configuration), 0o600); err != nil {
				t.Fatal(err)
			}
			p := startProcess(t, "server", "--config", path)
			p.await()
			t.Cleanup(func() { _ = p.stop(syscall.SIGTERM) })
			host, trusted := "localhost", p.Authority
			if c.more != "" {
				host, trusted = "batch.example.com", authority
			}
			_, port, err := net.SplitHostPort(p.Listen)
			if err != nil {
				t.Fatal(err)
			}
			text, err := os.ReadFile(trusted)
			if err != nil {
				t.Fatal(err)
			}
			pool := x509.NewCertPool()
			pool.AppendCertsFromPEM(text)
			transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, ServerName: host, MinVersion: tls.VersionTLS12}}
			t.Cleanup(transport.CloseIdleConnections)
			acme := &client.Client{Endpoint: "https://127.0.0.1:" + port, Account: "acme", Key: account, HTTP: &http.Client{Transport: transport}}
			if err := acme.AddPool(t.Context(), map[string]any{
				"id": "p", "vmSize": "custom_1c_1g", "targetDedicatedNodes": 1,
				"virtualMachineConfiguration": map[string]any{
					"nodeAgentSKUId": "batch.node.debian 12", "imageReference": map[string]any{"publisher": "debian", "offer": "debian-12"},
				},
			}); err != nil {
				t.Fatal(err)
			}
			for limited, cancel := context.WithTimeout(t.Context(), 40*time.Second); ; {
				nodes, err := acme.Nodes(limited, "p")
				if err != nil {
					cancel()
					t.Fatalf("no node came up: %v", err)
				}
				if len(nodes) == 1 && nodes[0].State == batch.NodeIdle {
					cancel()
					break
				}
			}
		})
	}
}

func TestAnAddressThatIsNone(t *testing.T) {
	t.Parallel()
	for _, address := range []string{"foo", "https://", "ftp://batch.example.com", "https://batch.example.com/path"} {
		said := startServer(t, dataFolder(t), fmt.Sprintf("url = %q\n", address)+accountsOf(map[string]auth.Key{"acme": auth.NewKey()}, nil)).refused()
		if !strings.Contains(said, "url is an address like https://") {
			t.Errorf("of %q the server says %s", address, said)
		}
	}
}
