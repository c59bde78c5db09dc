package ca

import (
	"crypto/tls"
	"fmt"
)

// PeerServer is the configuration of a port for other nodes. It lets everybody
// in: Peer says who it is.
func (w *Wallet) PeerServer() *tls.Config {
	c := w.Server()
	c.NextProtos = []string{ProtoHTTP}
	c.ClientAuth = tls.RequireAnyClientCert
	return c
}

// Peer is the id of the node at the other end; "" where it is none of this
// cluster's, or an operator.
func (w *Wallet) Peer(s *tls.ConnectionState) string {
	if id := w.Identify(s); id.Verified && id.Role != Operator {
		return id.ID
	}
	return ""
}

// PeerClient is the configuration for reaching another node, which has to be
// the one that is meant, whatever its address.
func (w *Wallet) PeerClient(node string) *tls.Config {
	c := w.Client(ProtoHTTP)
	c.VerifyConnection = func(s tls.ConnectionState) error {
		if is := w.Peer(&s); is != node {
			return fmt.Errorf("node %q was to answer, not %q", node, is)
		}
		return nil
	}
	return c
}
