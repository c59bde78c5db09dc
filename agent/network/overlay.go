package network

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	"orch/engine/api"
)

// overlay is what leads from a node to the tasks of others. Every network is
// in it: which of them a task here needs shows by their bridges.
func (t *table) overlay(node string) *api.Overlay {
	self := t.nodes[node]
	o := &api.Overlay{MeshAddress: self.GetMeshAddress(), MeshKey: self.GetMeshKey(), HostAddress: self.GetAddress()}
	for _, id := range slices.Sorted(maps.Keys(t.networks)) {
		n := t.networks[id]
		o.Networks = append(o.Networks, &api.OverlayNetwork{Id: id, Vni: n.Vni, Encrypted: n.Encrypted, Mtu: n.Mtu})
	}
	byID := map[string]*api.OverlayNetwork{}
	for _, n := range o.Networks {
		byID[n.Id] = n
	}
	here, shared := map[string]bool{}, map[string]bool{} // networks with tasks here, nodes with tasks on one of those
	for _, n := range t.here(node) {
		here[n] = true
	}
	for _, e := range t.endpoints {
		there := t.nodes[e.NodeId]
		if e.NodeId == node || there == nil {
			continue
		}
		for id, address := range e.Addresses {
			n := byID[id]
			if n == nil {
				continue
			}
			host := there.Address
			if n.Encrypted {
				host = there.MeshAddress
				shared[e.NodeId] = shared[e.NodeId] || here[id]
			}
			if host != "" {
				n.Neighbours = append(n.Neighbours, &api.Neighbour{Address: address, Host: host})
			}
		}
	}
	for _, n := range o.Networks {
		slices.SortFunc(n.Neighbours, func(a, b *api.Neighbour) int { return compareAddresses(a.Address, b.Address) })
	}
	for _, id := range slices.Sorted(maps.Keys(t.nodes)) {
		n := t.nodes[id]
		if id == node || !meshed(n) || !shared[id] && !apart(self, n) {
			continue
		}
		if endpoint, ok := t.endpoint(self, n); ok {
			o.Peers = append(o.Peers, &api.MeshPeer{Key: n.MeshKey, Endpoint: endpoint, Address: n.MeshAddress})
		}
	}
	return o
}

func compareAddresses(a, b string) int {
	x, _ := netip.ParseAddr(a)
	y, _ := netip.ParseAddr(b)
	return cmp.Or(x.Compare(y), cmp.Compare(a, b))
}

// ready says that new connections go to a task, as far as this node knows.
func (t *table) ready(e *api.Endpoint, node string, local map[string]Local) bool {
	if e.Draining || e.Starting {
		return false
	}
	l, known := local[e.TaskId]
	return e.NodeId != node || !known || l.Ready
}

// namespaces are those of the node's own tasks, with the virtual addresses
// that they may use.
func (t *table) namespaces(node string, local map[string]Local, ports *insides) []*api.Namespace {
	targets := map[string]map[string][]string{} // network, service, addresses
	for _, e := range t.endpoints {
		if !t.ready(e, node, local) {
			continue
		}
		for network, address := range e.Addresses {
			if targets[network] == nil {
				targets[network] = map[string][]string{}
			}
			targets[network][e.ServiceId] = append(targets[network][e.ServiceId], address)
		}
	}
	virtuals := map[string][]*api.Virtual{} // by network
	for id, s := range t.services {
		for network, address := range s.Addresses {
			v := &api.Virtual{Address: address, Targets: targets[network][id]}
			if s.Process {
				v.Ports = t.through(s, network, ports)
			}
			slices.SortFunc(v.Targets, compareAddresses)
			virtuals[network] = append(virtuals[network], v)
		}
	}
	var all []*api.Namespace
	for _, id := range slices.Sorted(maps.Keys(local)) {
		e := t.endpoints[id]
		if local[id].Namespace == "" || e == nil {
			continue
		}
		n := &api.Namespace{Task: id, Path: local[id].Namespace}
		for network := range e.Addresses {
			n.Virtuals = append(n.Virtuals, virtuals[network]...)
		}
		slices.SortFunc(n.Virtuals, func(a, b *api.Virtual) int { return compareAddresses(a.Address, b.Address) })
		all = append(all, n)
	}
	return all
}
