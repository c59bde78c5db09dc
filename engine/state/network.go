package state

import (
	"encoding/binary"
	"hash/fnv"
	"maps"
	"math/bits"
	"net/netip"
	"slices"

	"orch/engine/api"
	"orch/engine/spec"
)

// Networks across hosts get their addresses here, in Apply: so they are given
// once, and every engine knows them. Where a network begins to look for a free
// place goes by a hash, so that several clusters on one host rarely meet.

var (
	// pool is what networks without a subnet of their own are cut from; its
	// first /16 is the nodes' own, in the mesh.
	pool     = netip.MustParsePrefix("10.192.0.0/10")
	meshPool = netip.MustParsePrefix("10.192.0.0/16")
)

const (
	// subnetBits is the length of a network's prefix, if that is enough.
	subnetBits = 20
	vnis       = 1 << 24
	// fewest and largest networks that may be asked for.
	fewestBits, largestBits = 8, 29
)

// Networks lists those of all stacks.
func (v View) Networks() []*api.Network {
	return list[*api.Network](v, networkTable, idIndex+"_prefix", "")
}

// Network finds one by its id, see NetworkID.
func (v View) Network(id string) *api.Network { return get[*api.Network](v, networkTable, id) }

// NetworksOf lists a stack's.
func (v View) NetworksOf(stack string) []*api.Network {
	return list[*api.Network](v, networkTable, idIndex+"_prefix", NetworkID(stack, ""))
}

// NetworkID names a network: "tick/default".
func NetworkID(stack, name string) string { return stack + "/" + name }

// putNetworks makes the networks that a release declares and that aren't
// there yet.
func (w *writer) putNetworks(r *api.Release) error {
	for _, n := range r.Spec.Networks {
		if n.External {
			continue
		}
		id := NetworkID(r.Stack, n.Name)
		if old := w.Network(id); old != nil {
			if !alike(old.Spec, n) {
				return refuse(InUse, "network %q can't be changed while it is there (subnet %q, encrypted %t, internal %t): give the changed one another name", n.Name, old.Spec.Subnet, old.Spec.Encrypted, old.Spec.Internal)
			}
			continue
		}
		made := &api.Network{Id: id, Stack: r.Stack, Spec: n, CreatedAt: w.now, Mtu: w.mtu()}
		if err := w.number(made, w.wanted(r, n.Name)); err != nil {
			return err
		}
		w.put(networkTable, made)
	}
	return nil
}

// What carries a packet takes room of it: 80 bytes WireGuard over IPv6 at the
// worst, 50 VXLAN.
const (
	carriers    = 80 + 50
	ethernetMTU = 1500
	leastMTU    = 576
)

// mtu is what fits through every node's link.
func (w *writer) mtu() int32 {
	least := int32(ethernetMTU)
	for _, n := range w.Nodes() {
		if m := n.GetFacts().GetPlane().GetMtu(); m > 0 {
			least = min(least, m)
		}
	}
	return max(least-carriers, leastMTU)
}

// alike says that a network needn't be made anew.
func alike(a, b *api.NetworkSpec) bool {
	return a.Encrypted == b.Encrypted && a.Internal == b.Internal && (a.Subnet == b.Subnet || b.Subnet == "")
}

// wanted is how many addresses a network needs for what a release declares,
// twice over: an update has old and new tasks side by side.
func (w *writer) wanted(r *api.Release, name string) int {
	n := 0
	for _, s := range r.Spec.Services {
		if slices.Contains(s.Task.GetNetworks(), name) {
			n += 2*int(s.Replicas) + 1
		}
	}
	return n
}

// number chooses a network's VNI and its subnet.
func (w *writer) number(n *api.Network, addresses int) error {
	taken, vnisTaken := w.takenSubnets(), map[uint32]bool{}
	for _, o := range w.Networks() {
		vnisTaken[o.Vni] = true
	}
	start := w.hashOf(n.Id)
	for n.Vni = uint32(start % vnis); n.Vni == 0 || vnisTaken[n.Vni]; {
		n.Vni = (n.Vni + 1) % vnis
	}
	if n.Spec.Subnet != "" {
		p, err := netip.ParsePrefix(n.Spec.Subnet)
		if err != nil || !p.Addr().Is4() || p.Bits() < fewestBits || p.Bits() > largestBits {
			return refuse(Invalid, "network %q: subnet must be an IPv4 network from /%d to /%d, not %q", n.Spec.Name, fewestBits, largestBits, n.Spec.Subnet)
		}
		for _, t := range taken {
			if t.prefix.Overlaps(p) {
				return refuse(InUse, "network %q: subnet %s overlaps %s of %s", n.Spec.Name, p, t.prefix, t.whose)
			}
		}
		n.Subnet = p.Masked().String()
		return nil
	}
	length := min(subnetBits, 32-bits.Len(uint(addresses+4)))
	if length < fewestBits+2 {
		return refuse(Invalid, "network %q: %d addresses are more than a network can have", n.Spec.Name, addresses)
	}
	places := 1 << (length - pool.Bits())
	for i := range places {
		p := nth(pool, length, (int(start%uint64(places))+i)%places)
		if !p.Overlaps(meshPool) && !slices.ContainsFunc(taken, func(t takenSubnet) bool { return t.prefix.Overlaps(p) }) {
			n.Subnet = p.String()
			return nil
		}
	}
	return refuse(InUse, "network %q: no subnet of %s is free: remove a stack, or give the network a subnet", n.Spec.Name, pool)
}

type takenSubnet struct {
	prefix netip.Prefix
	whose  string
}

// takenSubnets are those of networks and of hosts' own routes.
func (w *writer) takenSubnets() []takenSubnet {
	var all []takenSubnet
	for _, n := range w.Networks() {
		all = append(all, takenSubnet{netip.MustParsePrefix(n.Subnet), "network " + n.Id})
	}
	for _, n := range w.Nodes() {
		for _, text := range n.GetFacts().GetPlane().GetRoutes() {
			if p, err := netip.ParsePrefix(text); err == nil && p.Addr().Is4() {
				all = append(all, takenSubnet{p, "a route of node " + n.Name})
			}
		}
	}
	return all
}

// hashOf scatters what this cluster calls something.
func (w *writer) hashOf(id string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(w.Cluster().GetId() + " " + id))
	sum := h.Sum64()
	return sum ^ sum>>32
}

// nth is the n-th network of a length in a pool.
func nth(pool netip.Prefix, length, n int) netip.Prefix {
	return netip.PrefixFrom(at(pool, n<<(32-length)), length)
}

// at is the n-th address of a network.
func at(p netip.Prefix, n int) netip.Addr {
	b := p.Masked().Addr().As4()
	binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(b[:])+uint32(n))
	return netip.AddrFrom4(b)
}

// address gives one of a network; "" if there is none left.
func (w *writer) address(id string) string {
	n := w.Network(id)
	if n == nil {
		return ""
	}
	p := netip.MustParsePrefix(n.Subnet)
	size := 1 << (32 - p.Bits())
	place := int(n.Last)
	for range size {
		if place++; place >= size-1 {
			place = 0
		}
		if place < 2 { // the network, and every host's own
			continue
		}
		a := at(p, place).String()
		if w.addressTaken(id, a) {
			continue
		}
		w.put(networkTable, &api.Network{Id: n.Id, Stack: n.Stack, Spec: n.Spec, Vni: n.Vni, Subnet: n.Subnet, Last: uint32(place), CreatedAt: n.CreatedAt, Mtu: n.Mtu})
		return a
	}
	return ""
}

func (w *writer) addressTaken(network, address string) bool {
	for _, table := range []string{taskTable, serviceTable} {
		row, err := w.txn.First(table, byAddress, addressKey(network, address))
		if err != nil {
			panic(err)
		}
		if row != nil {
			return true
		}
	}
	return false
}

func addressKey(network, address string) string { return network + " " + address }

// attach gives a new task its addresses, in the networks of its version; it
// says which network has none left.
func (w *writer) attach(t *api.Task) (full string) {
	stack := w.Service(t.ServiceId).GetStack()
	for _, name := range w.Version(t.ServiceId, t.Version).GetTask().GetNetworks() {
		id := NetworkID(stack, name)
		if w.Network(id) == nil {
			continue // an external one
		}
		a := w.address(id)
		if a == "" {
			return name
		}
		if t.Addresses == nil {
			t.Addresses = map[string]string{}
		}
		t.Addresses[name] = a
	}
	return ""
}

// putServiceRow writes a service's row, and gives it a virtual address in each
// network of its versions.
func (w *writer) putServiceRow(svc *api.Service) {
	if svc.Spec.GetMode() != "job" {
		for _, v := range w.versionsOf(svc.Id) {
			names := v.Task.GetNetworks()
			if v.Task.GetRuntime() == "process" { // it is reached from all of them
				for _, n := range w.NetworksOf(svc.Stack) {
					names = append(slices.Clip(names), n.Spec.Name)
				}
			}
			for _, name := range names {
				if svc.Addresses[name] != "" {
					continue
				}
				if a := w.address(NetworkID(svc.Stack, name)); a != "" {
					all := maps.Clone(svc.Addresses)
					if all == nil {
						all = map[string]string{}
					}
					all[name] = a
					svc.Addresses = all
				}
			}
		}
	}
	w.put(serviceTable, svc)
}

// forgetNetworks drops what neither the release nor a version that may run
// names any more.
func (w *writer) forgetNetworks(r *api.Release) {
	used := map[string]bool{}
	for _, n := range r.Spec.Networks {
		used[n.Name] = !n.External
	}
	for _, other := range w.Releases(r.Stack) {
		for _, n := range other.Spec.Networks {
			used[n.Name] = used[n.Name] || other.Outcome == "" // it may be queued
		}
	}
	for _, s := range w.ServicesOf(r.Stack) {
		for _, v := range w.versionsOf(s.Id) {
			for _, name := range v.Task.GetNetworks() {
				used[name] = true
			}
		}
	}
	for _, n := range w.NetworksOf(r.Stack) {
		if !used[n.Spec.Name] {
			w.delete(networkTable, n)
		}
	}
}

// meshAddress gives a node its place in the mesh.
func (w *writer) meshAddress(node string) string {
	taken := map[string]bool{}
	for _, n := range w.Nodes() {
		taken[n.MeshAddress] = true
	}
	const places = 1<<16 - 2
	start := w.hashOf("mesh "+node) % places
	for i := range uint64(places) {
		if a := at(meshPool, 1+int((start+i)%places)).String(); !taken[a] {
			return a
		}
	}
	return ""
}

// addressesOf indexes what holds an address: no task that has ended does.
func addressesOf(row any) (all []string) {
	switch r := row.(type) {
	case *api.Task:
		if Ended(r.Status.GetState()) {
			return nil
		}
		stack, _ := spec.SplitServiceID(r.ServiceId)
		for name, a := range r.Addresses {
			all = append(all, addressKey(NetworkID(stack, name), a))
		}
	case *api.Service:
		for name, a := range r.Addresses {
			all = append(all, addressKey(NetworkID(r.Stack, name), a))
		}
	}
	return all
}
