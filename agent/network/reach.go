package network

import (
	"hash/fnv"
	"net"
	"slices"

	"orch/engine/api"
)

// A node behind NAT reaches those with an address of their own, and they can only
// answer it. So it is in the mesh with all of them, keeps the way open, and is
// reached through the mesh alone. Nodes behind the same NAT reach each other at
// their own addresses; between those behind different ones a node with an address
// of its own relays, if one is labelled for that.

// apart says that there is a NAT between two nodes.
func apart(a, b *api.EndpointNode) bool { return a.GetBehind() != b.GetBehind() }

// meshed says that a node can take part in the mesh.
func meshed(n *api.EndpointNode) bool { return n.GetMeshKey() != "" && n.GetMeshAddress() != "" }

// endpoint is where a node sends what is for the mesh of another; "": the other one
// speaks first. ok is false if neither can.
func (t *table) endpoint(self, other *api.EndpointNode) (address string, ok bool) {
	switch {
	case other.GetBehind() == "" || !apart(self, other):
		return other.GetMeshEndpoint(), true
	case self.GetBehind() == "":
		return "", true
	}
	r := t.between(self, other)
	return r.GetRelay(), r != nil
}

// between is the node that relays for two others, both of which find the same one;
// nil: there is none.
func (t *table) between(a, b *api.EndpointNode) (best *api.EndpointNode) {
	pair := min(a.Id, b.Id) + " " + max(a.Id, b.Id) + " "
	weight := func(n *api.EndpointNode) uint64 { // the highest one has it (rendezvous hashing)
		h := fnv.New64a()
		h.Write([]byte(pair + n.Id))
		return h.Sum64()
	}
	for _, n := range t.nodes {
		if !forwards(n) {
			continue
		}
		if best == nil || best.Suspect && !n.Suspect || best.Suspect == n.Suspect && weight(n) > weight(best) {
			best = n
		}
	}
	return best
}

// forwards says that a node can relay between others: they all reach it.
func forwards(n *api.EndpointNode) bool {
	return n.GetRelays() && n.GetBehind() == "" && n.GetRelay() != ""
}

// forwarded are the keys of the nodes that a node relays between, in order.
func (t *table) forwarded(self *api.EndpointNode) (keys []string) {
	if !forwards(self) {
		return nil
	}
	for _, n := range t.nodes {
		if n.Behind != "" && meshed(n) {
			keys = append(keys, n.MeshKey)
		}
	}
	slices.Sort(keys)
	return keys
}

// relays are where a node reaches those of all nodes, by their ids; "": not at all.
func (t *table) relays(node string) map[string]string {
	all := make(map[string]string, len(t.nodes))
	for id, n := range t.nodes {
		all[id] = t.relay(t.nodes[node], n)
	}
	return all
}

// relay is where a node reaches the relay of another; "": it can't.
func (t *table) relay(self, other *api.EndpointNode) string {
	if other.GetRelay() == "" || other.GetBehind() == "" || !apart(self, other) {
		return other.GetRelay()
	}
	_, ok := t.endpoint(self, other)
	_, port, err := net.SplitHostPort(other.Relay)
	if !ok || err != nil || !meshed(self) || !meshed(other) {
		return ""
	}
	return net.JoinHostPort(other.MeshAddress, port)
}
