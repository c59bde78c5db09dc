// Package network is a node's view of who serves what: the endpoint table, as
// the engine gave it, joined with what the node itself knows of its own tasks.
// Plane puts it into effect and says how far that is.
package network

import (
	"cmp"
	"maps"
	"net"
	"slices"
	"strconv"

	"orch/engine/api"
)

// Local is what a node knows of one of its own tasks before the engine does.
type Local struct {
	Address   string
	Ready     bool   // new connections may go there
	Namespace string // path of its network namespace, if it has one of its own
}

// table is the endpoint table. It is not safe for concurrent use.
type table struct {
	epoch     uint64
	services  map[string]*api.EndpointService
	endpoints map[string]*api.Endpoint
	nodes     map[string]*api.EndpointNode
	networks  map[string]*api.EndpointNetwork
}

// follow takes the table, or what changed of it.
func (t *table) follow(m *api.Endpoints) {
	if m.Full || t.services == nil {
		t.services, t.endpoints = map[string]*api.EndpointService{}, map[string]*api.Endpoint{}
		t.networks = map[string]*api.EndpointNetwork{}
	}
	t.epoch = m.Epoch
	for _, s := range m.Services {
		t.services[s.Id] = s
	}
	for _, n := range m.Networks {
		t.networks[n.Id] = n
	}
	for _, id := range m.RemovedNetworks {
		delete(t.networks, id)
	}
	for _, id := range m.RemovedServices {
		delete(t.services, id)
	}
	for _, e := range m.Endpoints {
		t.endpoints[e.TaskId] = e
	}
	for _, id := range m.RemovedEndpoints {
		delete(t.endpoints, id)
	}
	if m.NodesChanged {
		t.nodes = map[string]*api.EndpointNode{}
		for _, n := range m.Nodes {
			t.nodes[n.Id] = n
		}
	}
}

// draining are the tasks that serve only what they have.
func (t *table) draining() map[string]bool {
	all := map[string]bool{}
	for id, e := range t.endpoints {
		if e.Draining {
			all[id] = true
		}
	}
	return all
}

// routes are the published ports, in order, as they are to be on a node.
// Where a task there occupies the port itself, there is no route.
func (t *table) routes(node string, local map[string]Local) []*api.Route {
	byService := t.reached(node)
	var all []*api.Route
	for _, id := range slices.Sorted(maps.Keys(t.services)) {
		for _, p := range t.services[id].Ports {
			if p.Publish == 0 || p.Mode == "host" || occupied(p, node, byService[id]) {
				continue
			}
			all = append(all, &api.Route{
				Service: id, HostIp: p.HostIp, Port: p.Publish, Protocol: p.Protocol, ProxyProtocol: p.ProxyProtocol,
				Steered: t.services[id].Steered, NewPercent: t.services[id].NewPercent, Targets: t.targets(byService[id], p, node, local),
			})
		}
	}
	slices.SortFunc(all, func(a, b *api.Route) int {
		return cmp.Or(cmp.Compare(a.Port, b.Port), cmp.Compare(a.HostIp, b.HostIp), cmp.Compare(a.Protocol, b.Protocol))
	})
	return slices.CompactFunc(all, func(a, b *api.Route) bool {
		return a.Port == b.Port && a.HostIp == b.HostIp && a.Protocol == b.Protocol
	})
}

// byService are the endpoints of each service, in the order of their tasks' ids.
func (t *table) byService() map[string][]*api.Endpoint {
	all := map[string][]*api.Endpoint{}
	for _, id := range slices.Sorted(maps.Keys(t.endpoints)) {
		e := t.endpoints[id]
		all[e.ServiceId] = append(all[e.ServiceId], e)
	}
	return all
}

// reached are those of byService whose tasks a node reaches by its own ingress.
func (t *table) reached(node string) map[string][]*api.Endpoint {
	relays, all := t.relays(node), t.byService()
	for service, endpoints := range all {
		all[service] = slices.DeleteFunc(endpoints, func(e *api.Endpoint) bool { return e.NodeId != node && relays[e.NodeId] == "" })
	}
	return all
}

// targets are where a port leads by the endpoints of its service.
func (t *table) targets(endpoints []*api.Endpoint, p *api.PortSpec, node string, local map[string]Local) (all []*api.Target) {
	for _, e := range endpoints {
		if target := t.target(e, p, node, local); target != nil {
			all = append(all, target)
		}
	}
	return all
}

// target is where a port leads by an endpoint; nil if nothing new goes
// there.
func (t *table) target(e *api.Endpoint, p *api.PortSpec, node string, local map[string]Local) *api.Target {
	target := &api.Target{TaskId: e.TaskId, Version: e.Version, Fresh: t.services[e.ServiceId].GetSteered() && e.Version == t.services[e.ServiceId].GetNewVersion(), Port: p.Target, Udp: p.Protocol == "udp", Suspect: t.nodes[e.NodeId].GetSuspect()}
	switch {
	case e.Draining, e.Starting:
		return nil
	case e.NodeId == node:
		target.Address = t.address(e, p.Target, local)
		if l, known := local[e.TaskId]; known && !l.Ready || target.Address == "" {
			return nil
		}
	default:
		target.Node = e.NodeId
	}
	return target
}

// address is where a task of this node listens; "" if that isn't known.
func (t *table) address(e *api.Endpoint, port uint32, local map[string]Local) string {
	host := e.Address
	if l, known := local[e.TaskId]; known {
		host = l.Address
	}
	if host == "" {
		return ""
	}
	return net.JoinHostPort(host, itoa(port))
}

// published is all that leads to tasks from a node, and from others to those
// there.
func (t *table) published(node string, local map[string]Local) *api.Published {
	all := &api.Published{Routes: t.routes(node, local), Forwarded: t.forwarded(t.nodes[node])}
	relays := t.relays(node)
	for _, id := range slices.Sorted(maps.Keys(relays)) {
		all.Nodes = append(all.Nodes, &api.RelayNode{Id: id, Relay: relays[id]})
	}
	for _, id := range slices.Sorted(maps.Keys(t.endpoints)) {
		e := t.endpoints[id]
		if e.NodeId != node {
			continue
		}
		for _, p := range t.services[e.ServiceId].GetPorts() {
			if address := t.address(e, p.Target, local); address != "" {
				all.Reachable = append(all.Reachable, &api.RelayTask{TaskId: id, Port: p.Target, Address: address})
			}
		}
	}
	return all
}

// occupied says that a task on the node listens on the published port itself.
func occupied(p *api.PortSpec, node string, endpoints []*api.Endpoint) bool {
	return slices.ContainsFunc(endpoints, func(e *api.Endpoint) bool {
		return e.NodeId == node && slices.ContainsFunc(e.HostPorts, func(h *api.HostPort) bool { return h.Port == p.Publish })
	})
}

func itoa(n uint32) string { return strconv.FormatUint(uint64(n), 10) }
