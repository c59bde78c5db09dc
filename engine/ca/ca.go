// Package ca is the cluster's certificate authority: it makes the CA, issues
// certificates for engines, agents and operators, and says who is at the
// other end of a connection. Every connection is mutual TLS 1.3; the role
// stands in the certificate's organization, the id in its common name.
package ca

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
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"orch/engine/durable"
)

// Role is what a certificate allows.
type Role string

const (
	Engine   Role = "engine"
	Agent    Role = "agent"
	Operator Role = "operator"
)

const (
	caLife    = 20 * 365 * 24 * time.Hour
	life      = 365 * 24 * time.Hour // engines issue their own anew at each start
	backdated = time.Hour            // for clocks that are behind

	// ServerName is the name that every engine's certificate has, so that
	// engines may change their addresses.
	ServerName = "engine.orch"
)

// Authority signs certificates.
type Authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

// Open reads the authority in dir, or makes one. Its key never leaves dir.
func Open(dir string) (*Authority, error) {
	certPath, keyPath := filepath.Join(dir, "ca.crt"), filepath.Join(dir, "ca.key")
	certPEM, err := os.ReadFile(certPath)
	if errors.Is(err, os.ErrNotExist) {
		return create(certPath, keyPath)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the cluster's CA: %w", err)
	}
	keyPEM, err := os.ReadFile(keyPath)
	if err != nil {
		return nil, fmt.Errorf("cannot read the key of the cluster's CA: %w", err)
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, fmt.Errorf("the cluster's CA in %s is damaged: %w", dir, err)
	}
	key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("the cluster's CA in %s has a key of another kind", dir)
	}
	return &Authority{cert: pair.Leaf, key: key, pem: certPEM}, nil
}

func create(certPath, keyPath string) (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "orch cluster CA"},
		NotBefore: now.Add(-backdated), NotAfter: now.Add(caLife),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	a := &Authority{cert: cert, key: key, pem: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
	keyPEM, err := encodeKey(key)
	if err != nil {
		return nil, err
	}
	if err := durable.WriteFile(keyPath, keyPEM, 0o600); err != nil {
		return nil, fmt.Errorf("cannot keep the key of the cluster's CA: %w", err)
	}
	if err := durable.WriteFile(certPath, a.pem, 0o644); err != nil {
		return nil, fmt.Errorf("cannot keep the cluster's CA: %w", err)
	}
	return a, nil
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

func serial() *big.Int {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		panic(err) // no randomness: nothing here can go on
	}
	return n
}

// Credentials are a key, its certificate, and the CA that signed it, as PEM.
type Credentials struct{ CA, Cert, Key []byte }

// Issue makes a key and a certificate for id in role.
func (a *Authority) Issue(role Role, id string) (Credentials, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Credentials{}, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: serial(),
		Subject:      pkix.Name{CommonName: id, Organization: []string{string(role)}},
		NotBefore:    now.Add(-backdated), NotAfter: now.Add(life),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if role == Engine {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
		template.DNSNames = []string{ServerName, "localhost"}
		template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		return Credentials{}, err
	}
	keyPEM, err := encodeKey(key)
	return Credentials{a.pem, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), keyPEM}, err
}
