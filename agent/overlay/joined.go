package overlay

import (
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"orch/engine/api"
)

// joined is a vxlan device, and what was entered for it.
type joined struct {
	bridge, vxlan int               // indexes of links
	entries       map[string]string // address to host
}

func resolve(host string) (net.IP, error) {
	if ip := net.ParseIP(host); ip != nil {
		return ip, nil
	}
	a, err := net.ResolveIPAddr("ip4", host)
	if err != nil {
		return nil, err
	}
	return a.IP, nil
}

// ensure makes a network's vxlan device, or makes one anew that is otherwise.
func ensure(n *api.OverlayNetwork, bridge netlink.Link, source net.IP) (netlink.Link, error) {
	port := plainPort
	if n.Encrypted {
		port = encryptedPort
	}
	name := device(n.Vni)
	link, err := netlink.LinkByName(name)
	if v, ok := link.(*netlink.Vxlan); err == nil && (!ok || v.VxlanId != int(n.Vni) || v.Port != port || !v.SrcAddr.Equal(source)) {
		if err := netlink.LinkDel(link); err != nil {
			return nil, err
		}
		link = nil
	}
	if link == nil || err != nil {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MTU = name, int(n.Mtu)
		if err := netlink.LinkAdd(&netlink.Vxlan{LinkAttrs: attrs, VxlanId: int(n.Vni), SrcAddr: source, Port: port, Learning: false, UDPCSum: true}); err != nil {
			return nil, err
		}
		if link, err = netlink.LinkByName(name); err != nil {
			return nil, err
		}
	}
	if link.Attrs().MasterIndex != bridge.Attrs().Index {
		if err := netlink.LinkSetMaster(link, bridge); err != nil {
			return nil, err
		}
	}
	return link, errors.Join(netlink.LinkSetLearning(link, false), netlink.LinkSetFlood(link, false), netlink.LinkSetBrNeighSuppress(link, true), netlink.LinkSetUp(link))
}

// seen is what the kernel has of a device: an agent before this one may have
// entered it.
func seen(bridge, vxlan netlink.Link) (*joined, error) {
	j := &joined{bridge: bridge.Attrs().Index, vxlan: vxlan.Attrs().Index, entries: map[string]string{}}
	arp, err := netlink.NeighList(j.bridge, netlink.FAMILY_V4)
	if err != nil {
		return nil, err
	}
	for _, n := range arp {
		if n.State&unix.NUD_PERMANENT != 0 && n.IP.To4() != nil {
			j.entries[n.IP.String()] = "" // entered anew, or taken away
		}
	}
	return j, nil
}

// enter makes the kernel know exactly these neighbours.
func (j *joined) enter(neighbours []*api.Neighbour) error {
	wanted := make(map[string]bool, len(neighbours))
	var all []error
	for _, n := range neighbours {
		wanted[n.Address] = true
		if old, there := j.entries[n.Address]; there && old == n.Host {
			continue
		}
		if err := j.put(n); err != nil {
			all = append(all, fmt.Errorf("cannot enter %s: %w", n.Address, err))
			continue
		}
		j.entries[n.Address] = n.Host
	}
	for address := range j.entries {
		if !wanted[address] {
			j.drop(address)
			delete(j.entries, address)
		}
	}
	return errors.Join(all...)
}

func (j *joined) put(n *api.Neighbour) error {
	ip := net.ParseIP(n.Address).To4()
	if ip == nil {
		return errors.New("it is no address")
	}
	host, err := resolve(n.Host)
	if err != nil {
		return err
	}
	mac := api.HardwareAddress(ip)
	return errors.Join(
		// Where frames for it go: out of the bridge by the vxlan, and from there to its host.
		netlink.NeighSet(&netlink.Neigh{LinkIndex: j.vxlan, Family: unix.AF_BRIDGE, State: unix.NUD_NOARP, Flags: unix.NTF_MASTER, HardwareAddr: mac}),
		netlink.NeighSet(&netlink.Neigh{LinkIndex: j.vxlan, Family: unix.AF_BRIDGE, State: unix.NUD_PERMANENT, Flags: unix.NTF_SELF, HardwareAddr: mac, IP: host}),
		// What is answered to those here who ask for it.
		netlink.NeighSet(&netlink.Neigh{LinkIndex: j.bridge, Family: netlink.FAMILY_V4, State: unix.NUD_PERMANENT, IP: ip, HardwareAddr: mac}),
	)
}

// drop forgets a neighbour; what isn't there needs no forgetting.
func (j *joined) drop(address string) {
	ip := net.ParseIP(address).To4()
	mac := api.HardwareAddress(ip)
	_ = netlink.NeighDel(&netlink.Neigh{LinkIndex: j.bridge, Family: netlink.FAMILY_V4, State: unix.NUD_PERMANENT, IP: ip, HardwareAddr: mac})
	_ = netlink.NeighDel(&netlink.Neigh{LinkIndex: j.vxlan, Family: unix.AF_BRIDGE, State: unix.NUD_PERMANENT, Flags: unix.NTF_SELF, HardwareAddr: mac})
	_ = netlink.NeighDel(&netlink.Neigh{LinkIndex: j.vxlan, Family: unix.AF_BRIDGE, State: unix.NUD_NOARP, Flags: unix.NTF_MASTER, HardwareAddr: mac})
}

func remove(name string) error {
	link, err := netlink.LinkByName(name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil
	}
	if err != nil {
		return err
	}
	return netlink.LinkDel(link)
}
