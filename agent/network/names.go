package network

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"orch/engine/api"
)

// names are those that the tasks of a node may ask for: of every network that
// one of them is on. A task whose namespace isn't among the settled ones has
// to wait for its answers.
func (t *table) names(node string, local map[string]Local, settled map[string]bool) *api.Names {
	all := &api.Names{}
	wanted := map[string]bool{}
	for _, id := range slices.Sorted(maps.Keys(t.endpoints)) {
		e := t.endpoints[id]
		if e.NodeId != node {
			continue
		}
		networks := slices.Sorted(maps.Keys(e.Addresses))
		for _, n := range networks {
			wanted[n] = t.networks[n] != nil
			all.Clients = append(all.Clients, &api.NameClient{Address: e.Addresses[n], Networks: networks, Held: !settled[id]})
		}
	}
	tasks := t.byService()
	for _, id := range slices.Sorted(maps.Keys(wanted)) {
		if !wanted[id] {
			continue
		}
		z := &api.Zone{Network: id, Gateway: api.Gateway(t.networks[id].Subnet), Subnet: t.networks[id].Subnet, Internal: t.networks[id].Internal}
		for _, sid := range slices.Sorted(maps.Keys(t.services)) {
			s := t.services[sid]
			if s.Addresses[id] == "" {
				continue
			}
			stack, name, _ := strings.Cut(sid, "/")
			named := &api.NamedService{Name: name, Stack: stack, Virtual: s.Addresses[id], Ports: s.Ports}
			for _, e := range tasks[sid] {
				if a := e.Addresses[id]; a != "" {
					named.Tasks = append(named.Tasks, &api.NamedTask{Slot: e.Slot, Address: a, Ready: t.ready(e, node, local)})
				}
			}
			slices.SortFunc(named.Tasks, func(a, b *api.NamedTask) int {
				return cmp.Or(cmp.Compare(a.Slot, b.Slot), compareAddresses(a.Address, b.Address))
			})
			z.Services = append(z.Services, named)
		}
		all.Zones = append(all.Zones, z)
	}
	return all
}
