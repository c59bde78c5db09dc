package network

import (
	"net"

	"orch/engine/api"
)

// A node behind NAT reaches those with an address of their own, and they can only
// answer it. So it is in the mesh with all of them, keeps the way open, and is
// reached through the mesh alone. Nodes behind the same NAT reach each other at
// their own addresses.

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
	return "", false
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
