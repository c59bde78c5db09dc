package daemon

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"

	"orch/agent/carrier"
	"orch/engine/api"
	"orch/engine/ca"
)

// admission is what this host's carrier shows to other nodes.
func (d *Daemon) admission() *api.Admission {
	c := d.wallet.Credentials()
	a := &api.Admission{Certificate: c.Certificate, Roots: c.Roots, Bridges: c.Bridges}
	if c.Key != nil {
		key, err := x509.MarshalECPrivateKey(c.Key)
		if err != nil { // then it wouldn't be in the wallet
			d.log.Error("cannot show this host's key to its carrier", "error", err)
		}
		a.Key = key
	}
	return a
}

// CarrierMain is the whole life of a carrier, see agent/carrier.
func CarrierMain() {
	w, err := ca.NewWallet(ca.Credentials{})
	if err != nil {
		panic(err) // there is nothing in it that could be wrong
	}
	carrier.Main(wallet{w})
}

// wallet is a carrier's.
type wallet struct{ *ca.Wallet }

// Admit implements carrier.Wallet.
func (w wallet) Admit(a *api.Admission) error {
	c := ca.Credentials{Certificate: a.Certificate, Roots: a.Roots, Bridges: a.Bridges}
	if len(a.Key) > 0 {
		var err error
		if c.Key, err = x509.ParseECPrivateKey(a.Key); err != nil {
			return fmt.Errorf("the key can't be read: %w", err)
		}
	}
	return w.Set(c)
}

// Server, Client and Node implement carrier.Wallet.
func (w wallet) Server() *tls.Config                { return w.PeerServer() }
func (w wallet) Client(node string) *tls.Config     { return w.PeerClient(node) }
func (w wallet) Node(s *tls.ConnectionState) string { return w.Peer(s) }
