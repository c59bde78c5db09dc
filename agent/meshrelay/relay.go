// Package meshrelay forwards the mesh's datagrams between nodes of which neither
// can begin to speak to the other, as each is behind a NAT. Both send what is for
// the other to the relay's one UDP port. It finds out who is where by the
// handshakes, of which it can tell whom they are for; it can read nothing, and
// serves nobody who doesn't know the public key of a node that it serves.
package meshrelay

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"
)

// Relay forwards. It is safe for concurrent use.
type Relay struct {
	mu    sync.Mutex
	table *table
}

// New makes a relay that serves nobody yet.
func New() *Relay { return &Relay{table: newTable()} }

// Serve replaces the nodes that are served, by their public keys.
func (r *Relay) Serve(keys []Key) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.table.serve(keys)
}

// readBuffer of the socket, in bytes: a burst isn't dropped while others are sent.
const readBuffer = 4 << 20

// Run forwards what comes to a socket until reading from that fails, as when it is
// closed.
func (r *Relay) Run(c *net.UDPConn) error {
	_ = c.SetReadBuffer(readBuffer) // as large as the host lets it be
	b := make([]byte, 1<<16)
	for {
		n, from, err := c.ReadFromUDPAddrPort(b)
		if err != nil {
			return err
		}
		r.mu.Lock()
		to := r.table.forward(b[:n], from, time.Now())
		r.mu.Unlock()
		for _, at := range to {
			_, _ = c.WriteToUDPAddrPort(b[:n], at) // lost, as any datagram may be
		}
	}
}

// known is what another relay needs to go on, in JSON.
type known struct {
	Flows map[uint32]knownFlow
	At    []knownNode
}

type knownFlow struct {
	At   netip.AddrPort
	With Key
	Used time.Time
}

type knownNode struct {
	Key Key
	At  netip.AddrPort
}

// Known is what a relay that goes on in this one's place should Learn.
func (r *Relay) Known() ([]byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	k := known{Flows: map[uint32]knownFlow{}}
	for i, f := range r.table.flows {
		if f.confirmed {
			k.Flows[i] = knownFlow{f.at, f.with, f.used}
		}
	}
	for key, at := range r.table.at {
		k.At = append(k.At, knownNode{key, at})
	}
	return json.Marshal(k)
}

// Learn takes what another relay has Known; to be called before Serve.
func (r *Relay) Learn(text []byte) error {
	var k known
	if err := json.Unmarshal(text, &k); err != nil {
		return fmt.Errorf("what the relay before has known can't be read: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, f := range k.Flows {
		r.table.flows[i] = &flow{at: f.At, with: f.With, confirmed: true, used: f.Used}
	}
	for _, n := range k.At {
		r.table.know(n.Key, n.At)
	}
	return nil
}
