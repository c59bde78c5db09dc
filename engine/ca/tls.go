package ca

import (
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Protocols that share the TLS port, told apart by ALPN.
const (
	ProtoHTTP = "h2"
	ProtoRaft = "orch-raft"
)

// Credentials are what a node or an operator shows, and whom it trusts. All
// certificates are DER.
type Credentials struct {
	Key         *ecdsa.PrivateKey
	Certificate []byte // nil: none yet
	Roots       [][]byte
	Bridges     [][]byte
}

// Wallet holds the credentials that connections use from now on; they can be
// replaced at any time. All methods are safe for concurrent use.
type Wallet struct {
	mu    sync.RWMutex
	creds Credentials
	pair  *tls.Certificate // never changed, only replaced; empty where there is none
	leaf  *x509.Certificate
	roots *x509.CertPool
}

// NewWallet makes a wallet with credentials.
func NewWallet(c Credentials) (*Wallet, error) {
	w := &Wallet{}
	return w, w.Set(c)
}

// Set replaces the credentials. On an error the old ones stay.
func (w *Wallet) Set(c Credentials) error {
	roots := x509.NewCertPool()
	for _, der := range c.Roots {
		root, err := x509.ParseCertificate(der)
		if err != nil {
			return fmt.Errorf("the CA's certificate can't be read: %w", err)
		}
		roots.AddCert(root)
	}
	pair := &tls.Certificate{}
	var leaf *x509.Certificate
	if c.Certificate != nil {
		var err error
		if leaf, err = x509.ParseCertificate(c.Certificate); err != nil {
			return fmt.Errorf("the certificate can't be read: %w", err)
		}
		if c.Key == nil || !c.Key.PublicKey.Equal(leaf.PublicKey) {
			return errors.New("the certificate is not that of the key")
		}
		pair = &tls.Certificate{PrivateKey: c.Key, Leaf: leaf, Certificate: [][]byte{c.Certificate}}
		// Peers that trust another root of this cluster find the way.
		pair.Certificate = append(append(pair.Certificate, c.Bridges...), c.Roots...)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.creds, w.pair, w.leaf, w.roots = c, pair, leaf, roots
	return nil
}

// Credentials are those in use.
func (w *Wallet) Credentials() Credentials {
	w.mu.RLock()
	defer w.mu.RUnlock()
	return w.creds
}

// Leaf is the certificate in use; nil where there is none.
func (w *Wallet) Leaf() *x509.Certificate {
	w.mu.RLock()
	defer w.mu.RUnlock()
	return w.leaf
}

// Server is the configuration of an engine's port. It lets everybody in:
// Identify says who it is.
func (w *Wallet) Server() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, ClientAuth: tls.RequestClientCert, SessionTicketsDisabled: true,
		NextProtos: []string{ProtoHTTP, ProtoRaft},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			w.mu.RLock()
			defer w.mu.RUnlock()
			return w.pair, nil
		},
	}
}

// Client is the configuration for reaching an engine of the cluster with one
// of the protocols, whatever its address.
func (w *Wallet) Client(proto string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, ServerName: ServerName, NextProtos: []string{proto},
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			w.mu.RLock()
			defer w.mu.RUnlock()
			return w.pair, nil
		},
		InsecureSkipVerify: true, // VerifyConnection does it, with the roots of now
		VerifyConnection: func(s tls.ConnectionState) error {
			w.mu.RLock()
			defer w.mu.RUnlock()
			return verifyServer(s.PeerCertificates, w.roots)
		},
	}
}

func verifyServer(chain []*x509.Certificate, roots *x509.CertPool) error {
	if len(chain) == 0 {
		return errors.New("the engine shows no certificate")
	}
	_, err := chain[0].Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: between(chain), DNSName: ServerName, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	var unknown x509.UnknownAuthorityError
	if errors.As(err, &unknown) {
		return errors.New("its certificate is of another cluster")
	}
	return err
}

func between(chain []*x509.Certificate) *x509.CertPool {
	pool := x509.NewCertPool()
	for _, c := range chain[1:] {
		pool.AddCert(c)
	}
	return pool
}

// JoinClient is the configuration for reaching an engine of the cluster whose
// CA has the digest, before one has any credentials.
func JoinClient(digest string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, ServerName: ServerName, NextProtos: []string{ProtoHTTP},
		InsecureSkipVerify: true, // VerifyConnection does it, with the pinned root
		VerifyConnection: func(s tls.ConnectionState) error {
			roots := x509.NewCertPool()
			for _, c := range s.PeerCertificates {
				if c.IsCA && Digest(c.Raw) == digest {
					roots.AddCert(c)
				}
			}
			return verifyServer(s.PeerCertificates, roots)
		},
	}
}

// Identity is who is at the other end of a connection.
type Identity struct {
	Role   Role   // of the certificate
	ID     string // node id, or operator's name
	Level  string // operators: admin | deploy | view
	Key    string // digest of the public key, which it has proven to have
	Issued time.Time
	// Verified says that the certificate is of a trusted CA and valid now. One
	// that isn't proves no more than the key.
	Verified bool
	// Local says that it came over the socket of this host.
	Local bool
}

// Identify reads who is at the other end; the zero Identity where nobody
// showed a certificate.
func (w *Wallet) Identify(s *tls.ConnectionState) Identity {
	if s == nil || len(s.PeerCertificates) == 0 {
		return Identity{}
	}
	leaf := s.PeerCertificates[0]
	id := Identity{ID: leaf.Subject.CommonName, Issued: leaf.NotBefore.Add(Backdated)}
	if len(leaf.Subject.Organization) == 1 {
		id.Role = Role(leaf.Subject.Organization[0])
	}
	if len(leaf.Subject.OrganizationalUnit) == 1 {
		id.Level = leaf.Subject.OrganizationalUnit[0]
	}
	id.Key, _ = KeyDigest(leaf.PublicKey)
	w.mu.RLock()
	roots := w.roots
	w.mu.RUnlock()
	_, err := leaf.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: x509.NewCertPool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	id.Verified = err == nil
	return id
}

// Issuer is the digest of the root that signed a certificate; empty where
// it was none of the roots.
func Issuer(certificate []byte, roots [][]byte) string {
	cert, err := x509.ParseCertificate(certificate)
	if err != nil {
		return ""
	}
	for _, der := range roots {
		if root, err := x509.ParseCertificate(der); err == nil && cert.CheckSignatureFrom(root) == nil {
			return Digest(der)
		}
	}
	return ""
}
