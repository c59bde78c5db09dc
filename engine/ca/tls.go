package ca

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
)

// Protocols that share the TLS port, told apart by ALPN.
const (
	ProtoHTTP = "h2"
	ProtoRaft = "orch-raft"
)

// ServerTLS is for an engine's port: it demands a certificate of this CA.
func (c Credentials) ServerTLS() (*tls.Config, error) {
	pair, pool, err := c.parse()
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{pair},
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool, NextProtos: []string{ProtoHTTP, ProtoRaft},
	}, nil
}

// ClientTLS is for reaching an engine with one of the protocols.
func (c Credentials) ClientTLS(proto string) (*tls.Config, error) {
	pair, pool, err := c.parse()
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{pair},
		RootCAs: pool, ServerName: ServerName, NextProtos: []string{proto},
	}, nil
}

func (c Credentials) parse() (tls.Certificate, *x509.CertPool, error) {
	pair, err := tls.X509KeyPair(c.Cert, c.Key)
	if err != nil {
		return pair, nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(c.CA) {
		return pair, nil, errors.New("the CA's certificate can't be read")
	}
	return pair, pool, nil
}

// Identity is who is at the other end of a connection.
type Identity struct {
	Role Role
	ID   string
}

// Identify reads it from a connection that was verified.
func Identify(s *tls.ConnectionState) Identity {
	if s == nil || len(s.VerifiedChains) == 0 {
		return Identity{}
	}
	subject := s.PeerCertificates[0].Subject
	id := Identity{ID: subject.CommonName}
	if len(subject.Organization) == 1 {
		id.Role = Role(subject.Organization[0])
	}
	return id
}

type identityKey struct{}

// Middleware lets handlers ask From who calls.
func Middleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), identityKey{}, Identify(r.TLS))))
	})
}

// From is who calls; the zero Identity if nobody is known.
func From(ctx context.Context) Identity {
	id, _ := ctx.Value(identityKey{}).(Identity)
	return id
}
