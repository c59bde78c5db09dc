package network

import (
	"fmt"
	"slices"

	"orch/engine/api"
)

// Way is how another node is reached from a node.
type Way struct {
	Relay    string // host:port of its relay; empty: not at all
	Blocked  string // why it isn't reached, and what can be done
	MeshHint string // what must be let through for the mesh
	// Plain are the networks with tasks on both that don't lead there: they aren't
	// encrypted, and there is a NAT between.
	Plain []string
}

// Way says how another node is reached.
func (p *Plane) Way(id string) Way {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.table.way(p.table.nodes[p.Node], p.table.nodes[id])
}

func (t *table) way(self, other *api.EndpointNode) Way {
	w := Way{Relay: t.relay(self, other), Plain: t.plain(self, other)}
	endpoint, ok := t.endpoint(self, other)
	switch {
	case !ok:
		w.Blocked = fmt.Sprintf("both are behind NAT (%s and %s): label a node that both reach with `orch node label NODE relay=yes`", self.GetBehind(), other.GetBehind())
	case w.Relay == "" && other.GetRelay() != "":
		w.Blocked = fmt.Sprintf("it is behind NAT (%s) and would be reached through the mesh, of which one of the two is no part: orch has to run as root on both", other.GetBehind())
	case endpoint == "":
		w.MeshHint = fmt.Sprintf("it is behind NAT (%s): let UDP to %s through the firewalls between", other.GetBehind(), self.GetMeshEndpoint())
	case endpoint != other.GetMeshEndpoint():
		w.MeshHint = fmt.Sprintf("both are behind NAT: let UDP to %s, which relays between them, through the firewalls", endpoint)
	default:
		w.MeshHint = fmt.Sprintf("let UDP to %s through the firewalls between", endpoint)
	}
	return w
}

func (t *table) plain(self, other *api.EndpointNode) (all []string) {
	if !apart(self, other) {
		return nil
	}
	there := t.here(other.GetId())
	for _, id := range t.here(self.GetId()) {
		if !t.networks[id].GetEncrypted() && slices.Contains(there, id) {
			all = append(all, id)
		}
	}
	return all
}
