package meshrelay

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun/tuntest"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// node is a real WireGuard device without a network of its own.
type node struct {
	key     wgtypes.Key
	address netip.Addr
	tun     *tuntest.ChannelTUN
	device  *device.Device
}

func newNode(t *testing.T, number byte) *node {
	t.Helper()
	key, err := wgtypes.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	n := &node{key: key, address: netip.AddrFrom4([4]byte{10, 0, 0, number}), tun: tuntest.NewChannelTUN()}
	n.device = device.NewDevice(n.tun.TUN(), conn.NewDefaultBind(), device.NewLogger(device.LogLevelSilent, ""))
	t.Cleanup(n.device.Close)
	n.set(t, "private_key=%s\nlisten_port=0\n", hex.EncodeToString(key[:]))
	if err := n.device.Up(); err != nil {
		t.Fatal(err)
	}
	return n
}

func (n *node) set(t *testing.T, format string, args ...any) {
	t.Helper()
	if err := n.device.IpcSet(fmt.Sprintf(format, args...)); err != nil {
		t.Fatal(err)
	}
}

func (n *node) public() Key { return Key(n.key.PublicKey()) }

// meet makes a peer of the other, at the relay.
func (n *node) meet(t *testing.T, other *node, relay net.Addr) {
	t.Helper()
	key := other.public()
	n.set(t, "public_key=%s\nendpoint=%s\nallowed_ip=%s/32\npersistent_keepalive_interval=1\n", hex.EncodeToString(key[:]), relay, other.address)
}

// reaches sends pings until one comes through.
func (n *node) reaches(ctx context.Context, t *testing.T, other *node) {
	t.Helper()
	ping := tuntest.Ping(other.address, n.address)
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		select {
		case n.tun.Outbound <- ping:
		case <-ctx.Done():
			t.Fatal("no packet comes through")
		}
		for waiting := true; waiting; {
			select {
			case got := <-other.tun.Inbound:
				if bytes.Equal(got, ping) {
					return
				}
			case <-again.C:
				waiting = false
			case <-ctx.Done():
				t.Fatal("no packet comes through")
			}
		}
	}
}

func listen(t *testing.T) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// Three nodes find each other through a relay, and go on through the one that
// takes its place.
func TestNodesMeet(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var nodes []*node
	var keys []Key
	for i := range byte(3) {
		n := newNode(t, i+1)
		nodes, keys = append(nodes, n), append(keys, n.public())
	}
	c, r := listen(t), New()
	r.Serve(keys)
	go func() { _ = r.Run(c) }() // ends with c
	for _, a := range nodes {
		for _, b := range nodes {
			if a != b {
				a.meet(t, b, c.LocalAddr())
			}
		}
	}
	all := func() {
		t.Helper()
		for _, a := range nodes {
			for _, b := range nodes {
				if a != b {
					a.reaches(ctx, t, b)
				}
			}
		}
	}
	all()
	text, err := r.Known()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := c.File()
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	c.Close()
	taken, err := net.FilePacketConn(raw)
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	r.mu.Lock()
	before := len(r.table.flows)
	r.mu.Unlock()
	next := New()
	if err := next.Learn(text); err != nil {
		t.Fatal(err)
	}
	next.Serve(keys)
	go func() { _ = next.Run(taken.(*net.UDPConn)) }() // ends with taken
	all()
	next.mu.Lock()
	defer next.mu.Unlock()
	if now := len(next.table.flows); now > before {
		t.Errorf("%d flows, %d before: they had to shake hands again", now, before)
	}
}
