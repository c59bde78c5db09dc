// Package ca is the cluster's certificate authority: it signs certificates
// for engines, agents and operators, makes join tokens, and says who is at
// the other end of a connection. Every connection is mutual TLS 1.3; the role
// stands in the certificate's organization, the id in its common name, an
// operator's level in its organizational unit.
//
// A CA is replaced without a gap: while two roots are trusted, certificates
// are signed anew; a bridge (the new root's key, signed by the old root) lets
// those who were away find the way to the new one.
package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"net"
	"time"
)

// Role is what a certificate allows.
type Role string

const (
	Engine   Role = "engine"
	Agent    Role = "agent"
	Operator Role = "operator"
)

const (
	caLife = 20 * 365 * 24 * time.Hour
	// Life of a node's certificate; it is renewed at 50 to 80 % of it.
	Life = 7 * 24 * time.Hour
	// OperatorLife is that of an operator's certificate.
	OperatorLife = 90 * 24 * time.Hour
	// Backdated is how much earlier than it was issued a certificate begins,
	// for clocks that are behind.
	Backdated = time.Hour

	// ServerName is the name that every engine's certificate has, so that
	// engines may change their addresses.
	ServerName = "engine.orch"
)

// Authority signs certificates.
type Authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// New makes an authority with a key of its own (ECDSA P-256).
func New() (*Authority, error) {
	key, err := NewKey()
	if err != nil {
		return nil, err
	}
	id := make([]byte, 4)
	if _, err := rand.Read(id); err != nil {
		return nil, err
	}
	template := authority(pkix.Name{CommonName: "orch cluster CA " + hex.EncodeToString(id)})
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &Authority{cert: cert, key: key}, nil
}

func authority(name pkix.Name) *x509.Certificate {
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: serial(), Subject: name,
		NotBefore: now.Add(-Backdated), NotAfter: now.Add(caLife),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
}

// Parse is the inverse of Certificate and Key.
func Parse(certificate, key []byte) (*Authority, error) {
	cert, err := x509.ParseCertificate(certificate)
	if err != nil {
		return nil, fmt.Errorf("the certificate of the cluster's CA can't be read: %w", err)
	}
	k, err := ParseKey(key)
	if err != nil {
		return nil, fmt.Errorf("the key of the cluster's CA can't be read: %w", err)
	}
	if !k.PublicKey.Equal(cert.PublicKey) {
		return nil, errors.New("the key of the cluster's CA is not that of its certificate")
	}
	return &Authority{cert: cert, key: k}, nil
}

// Certificate is the authority's own, as DER.
func (a *Authority) Certificate() []byte { return a.cert.Raw }

// Key is the authority's private key, as PKCS #8 DER.
func (a *Authority) Key() ([]byte, error) { return x509.MarshalPKCS8PrivateKey(a.key) }

// NewKey makes the key of a node or an operator (ECDSA P-256).
func NewKey() (*ecdsa.PrivateKey, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }

// ParseKey reads a key from PKCS #8 DER.
func ParseKey(der []byte) (*ecdsa.PrivateKey, error) {
	k, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, err
	}
	key, ok := k.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("it is of another kind (%T)", k)
	}
	return key, nil
}

func serial() *big.Int {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		panic(err) // no randomness: nothing here can go on
	}
	return n
}

// Subject is whom a certificate is for.
type Subject struct {
	Role  Role
	ID    string        // node id, or operator's name
	Level string        // operators: admin | deploy | view
	Life  time.Duration // 0: Life
}

// Sign makes a certificate (DER) for a public key.
func (a *Authority) Sign(s Subject, public crypto.PublicKey) ([]byte, error) {
	now := time.Now()
	if s.Life == 0 {
		s.Life = Life
	}
	template := &x509.Certificate{
		SerialNumber: serial(),
		Subject:      pkix.Name{CommonName: s.ID, Organization: []string{string(s.Role)}},
		NotBefore:    now.Add(-Backdated), NotAfter: now.Add(s.Life),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if s.Level != "" {
		template.Subject.OrganizationalUnit = []string{s.Level}
	}
	if s.Role == Engine {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
		template.DNSNames = []string{ServerName, "localhost"}
		template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
	}
	return x509.CreateCertificate(rand.Reader, template, a.cert, public, a.key)
}

// Bridge makes a certificate (DER) for next's name and key, signed by a: who
// trusts a only can go over it to what next has signed.
func (a *Authority) Bridge(next *Authority) ([]byte, error) {
	template := authority(next.cert.Subject)
	template.SubjectKeyId = next.cert.SubjectKeyId
	return x509.CreateCertificate(rand.Reader, template, a.cert, &next.key.PublicKey, a.key)
}

// Request makes a certificate request (PKCS #10, DER). All that is taken
// from it is the key and the proof that the sender has it.
func Request(key *ecdsa.PrivateKey) ([]byte, error) {
	return x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
}

// ParseRequest is the public key of a certificate request.
func ParseRequest(der []byte) (crypto.PublicKey, error) {
	r, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, fmt.Errorf("the certificate request can't be read: %w", err)
	}
	if err := r.CheckSignature(); err != nil {
		return nil, fmt.Errorf("the certificate request isn't signed by its key: %w", err)
	}
	if _, ok := r.PublicKey.(*ecdsa.PublicKey); !ok {
		return nil, fmt.Errorf("the certificate request has a key of another kind (%T)", r.PublicKey)
	}
	return r.PublicKey, nil
}

// KeyDigest is the SHA-256 of a public key's DER (SubjectPublicKeyInfo), in
// hex.
func KeyDigest(public crypto.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:]), nil
}

// Digest identifies a CA by the SHA-256 of its public key's DER, in hex;
// empty where the certificate can't be read.
func Digest(certificate []byte) string {
	cert, err := x509.ParseCertificate(certificate)
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:])
}

// Wallet makes a key and a certificate, and a wallet that trusts a.
func (a *Authority) Wallet(s Subject) (*Wallet, error) {
	key, err := NewKey()
	if err != nil {
		return nil, err
	}
	cert, err := a.Sign(s, key.Public())
	if err != nil {
		return nil, err
	}
	return NewWallet(Credentials{Key: key, Certificate: cert, Roots: [][]byte{a.Certificate()}})
}
