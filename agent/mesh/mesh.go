// Package mesh is a node's WireGuard device: what networks across hosts travel
// through, encrypted. Where the kernel has no WireGuard, a process of its own
// does the same on a tun device; it outlives the agent, so that an agent's
// restart drops nothing. Both are set up alike, through wgctrl.
package mesh

import (
	"bytes"
	"errors"
	"fmt"
	"hash/fnv"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/wgctrl"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"orch/engine/api"
)

const (
	// MTU of the device, in bytes: 1500 less what WireGuard adds over IPv6.
	MTU = 1420
	// keepalive keeps the way open through NAT.
	keepalive = 25 * time.Second
)

// Mesh is a node's device. It comes up with the first Set, and is safe for
// concurrent use.
type Mesh struct {
	name string
	port int
	kind string

	mu        sync.Mutex
	keys      keys
	endpoints map[wgtypes.Key]string // as they were asked for
}

// Open reads the node's key, or makes it, and finds out what kind of device
// this host can have. The device's name goes by unique. A port that is taken is
// replaced by a free one.
func Open(dir, unique string, port int) (*Mesh, error) {
	m := &Mesh{name: Name(unique), endpoints: map[wgtypes.Key]string{}}
	var err error
	if m.keys, err = readKeys(filepath.Join(dir, "mesh.key")); err != nil {
		return nil, err
	}
	if m.kind, err = kindOf(m.name); err != nil {
		return nil, err
	}
	m.port, err = m.choosePort(port)
	return m, err
}

// Name is that of the device for a node: 13 characters.
func Name(unique string) string {
	h := fnv.New32a()
	h.Write([]byte(unique))
	return fmt.Sprintf("orchw%08x", h.Sum32())
}

// kindOf is "kernel" or "userspace".
func kindOf(name string) (string, error) {
	if link, err := netlink.LinkByName(name); err == nil {
		if link.Type() == "wireguard" {
			return "kernel", nil
		}
		return "userspace", nil
	}
	err := netlink.LinkAdd(&netlink.Wireguard{LinkAttrs: netlink.LinkAttrs{Name: name}})
	switch {
	case err == nil:
		return "kernel", netlink.LinkDel(&netlink.Wireguard{LinkAttrs: netlink.LinkAttrs{Name: name}})
	case errors.Is(err, unix.EPERM):
		return "", errors.New("making network devices takes root")
	}
	tun, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
	if err != nil {
		return "", fmt.Errorf("the kernel has no WireGuard, and there is no tun device either: %w", err)
	}
	return "userspace", tun.Close()
}

// choosePort keeps the port of a device that is there already.
func (m *Mesh) choosePort(port int) (int, error) {
	if d, err := m.device(); err == nil && d.ListenPort > 0 {
		return d.ListenPort, nil
	}
	for _, p := range []int{port, 0} {
		c, err := net.ListenUDP("udp", &net.UDPAddr{Port: p})
		if err == nil {
			defer c.Close()
			return c.LocalAddr().(*net.UDPAddr).Port, nil
		}
	}
	return 0, errors.New("there is no free UDP port")
}

// Key is the public one that others should know, in base64.
func (m *Mesh) Key() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.keys.offered().PublicKey().String()
}

// Renew replaces the key if it is older than keyFor: another one is offered, and
// used once the others know it. It says whether Key changed.
func (m *Mesh) Renew(now time.Time) (changed bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.keys.renew(now)
}

// Port is the UDP port that the device listens on.
func (m *Mesh) Port() int { return m.port }

// Kind is "kernel" or "userspace".
func (m *Mesh) Kind() string { return m.kind }

// Device is the name of the network device.
func (m *Mesh) Device() string { return m.name }

// Set brings the device up with this address, for these peers. known is the
// public key of this node that they know.
func (m *Mesh) Set(address, known string, peers []*api.MeshPeer) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.keys.known(known); err != nil {
		return err
	}
	ip := net.ParseIP(address)
	if ip == nil {
		return fmt.Errorf("%q is no address", address)
	}
	if err := m.create(); err != nil {
		return err
	}
	if err := m.configure(peers); err != nil {
		return fmt.Errorf("cannot set up the mesh's device %s: %w", m.name, err)
	}
	link, err := netlink.LinkByName(m.name)
	if err != nil {
		return err
	}
	if err := netlink.LinkSetMTU(link, MTU); err != nil {
		return err
	}
	one := net.CIDRMask(32, 32)
	if err := netlink.AddrReplace(link, &netlink.Addr{IPNet: &net.IPNet{IP: ip, Mask: one}}); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return err
	}
	return m.route(link, ip, peers)
}

// route leads the peers' addresses to the device, and no others.
func (m *Mesh) route(link netlink.Link, self net.IP, peers []*api.MeshPeer) error {
	wanted := map[string]bool{}
	for _, p := range peers {
		dst := &net.IPNet{IP: net.ParseIP(p.Address).To4(), Mask: net.CIDRMask(32, 32)}
		if dst.IP == nil {
			continue
		}
		wanted[dst.String()] = true
		if err := netlink.RouteReplace(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: dst, Src: self, Scope: netlink.SCOPE_LINK}); err != nil {
			return fmt.Errorf("cannot route to %s: %w", p.Address, err)
		}
	}
	there, err := netlink.RouteList(link, netlink.FAMILY_V4)
	if err != nil {
		return err
	}
	for _, r := range there {
		if r.Dst != nil && !wanted[r.Dst.String()] {
			_ = netlink.RouteDel(&r)
		}
	}
	return nil
}

// create makes the device, if it isn't there.
func (m *Mesh) create() error {
	if _, err := m.device(); err == nil {
		return nil
	}
	clear(m.endpoints)
	if m.kind == "kernel" {
		return netlink.LinkAdd(&netlink.Wireguard{LinkAttrs: netlink.LinkAttrs{Name: m.name}})
	}
	return spawn(m.name)
}

func (m *Mesh) device() (*wgtypes.Device, error) {
	c, err := wgctrl.New()
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.Device(m.name)
}

// configure changes what differs: sessions with peers that stay go on.
func (m *Mesh) configure(peers []*api.MeshPeer) error {
	c, err := wgctrl.New()
	if err != nil {
		return err
	}
	defer c.Close()
	now, err := c.Device(m.name)
	if err != nil {
		return err
	}
	var cfg wgtypes.Config
	if now.PrivateKey != m.keys.used {
		cfg.PrivateKey = &m.keys.used
	}
	if now.ListenPort != m.port {
		cfg.ListenPort = &m.port
	}
	known, wanted := map[wgtypes.Key]wgtypes.Peer{}, map[wgtypes.Key]bool{}
	for _, p := range now.Peers {
		known[p.PublicKey] = p
	}
	var unresolved []error
	for _, p := range peers {
		key, err := wgtypes.ParseKey(p.Key)
		ip := net.ParseIP(p.Address).To4()
		if err != nil || ip == nil {
			continue // a node that tells nonsense is not reached
		}
		wanted[key] = true
		peer := peerOf(key, []net.IPNet{{IP: ip, Mask: net.CIDRMask(32, 32)}})
		old, there := known[key]
		if at := m.endpoints[key]; there && at != "" && p.Endpoint != "" && at != p.Endpoint {
			// What was agreed on isn't known at a relay that comes in between: both sides begin anew.
			cfg.Peers = append(cfg.Peers, without(key))
			there = false
		}
		if p.Endpoint != "" && (!there || m.endpoints[key] != p.Endpoint) { // else it may have moved, and WireGuard knows better
			if peer.Endpoint, err = net.ResolveUDPAddr("udp", p.Endpoint); err != nil {
				unresolved = append(unresolved, err)
			} else {
				m.endpoints[key] = p.Endpoint
			}
		} else if there && len(old.AllowedIPs) == 1 && old.AllowedIPs[0].IP.Equal(ip) {
			continue
		}
		cfg.Peers = append(cfg.Peers, peer)
	}
	for key := range known {
		if !wanted[key] {
			cfg.Peers = append(cfg.Peers, without(key))
			delete(m.endpoints, key)
		}
	}
	if cfg.PrivateKey == nil && cfg.ListenPort == nil && len(cfg.Peers) == 0 {
		return errors.Join(unresolved...)
	}
	return errors.Join(append(unresolved, c.ConfigureDevice(m.name, cfg))...)
}

// Again has the device agree with a peer anew: one that began anew, or a relay
// between that did, knows nothing of what was agreed on before.
func (m *Mesh) Again(public string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	key, err := wgtypes.ParseKey(public)
	if err != nil {
		return err
	}
	d, err := m.device()
	if err != nil {
		return err
	}
	i := slices.IndexFunc(d.Peers, func(p wgtypes.Peer) bool { return p.PublicKey == key })
	if i < 0 || m.endpoints[key] == "" {
		return nil // it speaks first
	}
	peer := peerOf(key, d.Peers[i].AllowedIPs)
	if peer.Endpoint, err = net.ResolveUDPAddr("udp", m.endpoints[key]); err != nil {
		return err
	}
	c, err := wgctrl.New()
	if err != nil {
		return err
	}
	defer c.Close()
	return c.ConfigureDevice(m.name, wgtypes.Config{Peers: []wgtypes.PeerConfig{without(key), peer}})
}

// peerOf is a peer that these addresses lead to.
func peerOf(key wgtypes.Key, addresses []net.IPNet) wgtypes.PeerConfig {
	every := keepalive
	return wgtypes.PeerConfig{PublicKey: key, PersistentKeepaliveInterval: &every, ReplaceAllowedIPs: true, AllowedIPs: addresses}
}

// without takes a peer away.
func without(key wgtypes.Key) wgtypes.PeerConfig {
	return wgtypes.PeerConfig{PublicKey: key, Remove: true}
}

// PeerState is how a peer was last heard of.
type PeerState struct {
	Key       string
	Handshake time.Time // zero: never
}

// Peers says how the peers are.
func (m *Mesh) Peers() ([]PeerState, error) {
	d, err := m.device()
	if err != nil {
		return nil, err
	}
	var all []PeerState
	for _, p := range d.Peers {
		all = append(all, PeerState{Key: p.PublicKey.String(), Handshake: p.LastHandshakeTime})
	}
	return all, nil
}

// Remove takes the device away.
func (m *Mesh) Remove() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	link, err := netlink.LinkByName(m.name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := netlink.LinkDel(link); err != nil {
		return err
	}
	if m.kind == "userspace" {
		return gone(m.name)
	}
	return nil
}

// ours says that a process is the one which has a device.
func ours(pid int, name string) bool {
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	args := bytes.Split(line, []byte{0})
	return err == nil && len(args) > 2 && string(args[1]) == arg && string(args[2]) == name
}
