package network

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"net"
	"os"
	"slices"
	"strings"

	"orch/engine/api"
)

// Tasks that are processes share their host's addresses. So what a task of the
// other kind, or on another host, would reach by name is led through each host:
// its ingress listens inside, on a port of its own for each port of a service,
// which stays the same for as long as the node has it written down.

const (
	firstInside = 20000
	manyInside  = 10000
	loopback    = "127.0.0.1"
)

// insides are the ports that a node has for services, by key. They are not
// safe for concurrent use.
type insides struct {
	file  string // "": they are forgotten
	ports map[string]uint32
	seen  map[string]bool // keys of services that have been in the table
}

func insideKey(service string, p *api.PortSpec) string {
	return service + " " + itoa(p.Target) + "/" + transport(p)
}

func transport(p *api.PortSpec) string {
	if p.Protocol == "udp" {
		return "udp"
	}
	return "tcp"
}

func openInsides(file string) (*insides, error) {
	all := &insides{file: file, ports: map[string]uint32{}, seen: map[string]bool{}}
	text, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(text, &all.ports)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("cannot read which ports services have inside this host; without %s they get others: %w", file, err)
	}
	return all, nil
}

// port is that of a key, given now if it has none yet.
func (i *insides) port(key string) uint32 {
	if p := i.ports[key]; p > 0 {
		return p
	}
	taken := map[uint32]bool{}
	for _, p := range i.ports {
		taken[p] = true
	}
	h := fnv.New32a()
	h.Write([]byte(key))
	start := h.Sum32()
	for n := range uint32(manyInside) {
		p := firstInside + (start+n)%manyInside
		if !taken[p] && free(p) {
			i.ports[key] = p
			i.save()
			return p
		}
	}
	return 0
}

// free says that nothing on this host has a port.
func free(port uint32) bool {
	l, err := net.Listen("tcp", ":"+itoa(port))
	if err != nil {
		return false
	}
	l.Close()
	u, err := net.ListenPacket("udp", ":"+itoa(port))
	if err != nil {
		return false
	}
	u.Close()
	return true
}

func (i *insides) save() {
	if i.file == "" {
		return
	}
	text, err := json.Marshal(i.ports)
	if err == nil {
		err = os.WriteFile(i.file+".new", text, 0o600)
	}
	if err == nil {
		_ = os.Rename(i.file+".new", i.file) // else the next agent gives others
	}
}

// keep forgets the ports of services that are gone; one that was asked for
// before the table had it isn't.
func (i *insides) keep(services map[string]*api.EndpointService) {
	n := len(i.ports)
	maps.DeleteFunc(i.ports, func(key string, _ uint32) bool {
		service, _, _ := strings.Cut(key, " ")
		was := i.seen[service]
		i.seen[service] = services[service] != nil
		return was && !i.seen[service]
	})
	if len(i.ports) != n {
		i.save()
	}
}

// inside is what the ports lead to: for processes on the loopback address, for
// containers on the host's address in each network that one here is on.
func (t *table) inside(node string, local map[string]Local, ports *insides) []*api.Route {
	subnets := map[string]string{} // by the host's address there
	var hosts []string
	for _, n := range t.here(node) {
		host := api.Gateway(t.networks[n].Subnet)
		hosts, subnets[host] = append(hosts, host), t.networks[n].Subnet
	}
	byService := t.reached(node)
	var all []*api.Route
	for _, id := range slices.Sorted(maps.Keys(t.services)) {
		s := t.services[id]
		for _, p := range s.Ports {
			key := insideKey(id, p)
			if ports.ports[key] == 0 && !(s.Process && len(hosts) > 0) {
				continue
			}
			to := ports.port(key)
			if to == 0 {
				continue
			}
			on := []string{loopback}
			if s.Process {
				for network := range s.Addresses {
					if h := api.Gateway(t.networks[network].GetSubnet()); slices.Contains(hosts, h) {
						on = append(on, h)
					}
				}
			}
			slices.Sort(on)
			targets := t.targets(byService[id], p, node, local)
			for _, host := range on {
				all = append(all, &api.Route{
					Service: id, HostIp: host, Port: to, Protocol: p.Protocol, Inside: true, Only: subnets[host],
					Steered: s.Steered, NewPercent: s.NewPercent, Targets: targets,
				})
			}
		}
	}
	return all
}

// here are the networks that a task of this node is on, in order.
func (t *table) here(node string) []string {
	all := map[string]bool{}
	for _, e := range t.endpoints {
		if e.NodeId == node {
			for n := range e.Addresses {
				if t.networks[n] != nil {
					all[n] = true
				}
			}
		}
	}
	return slices.Sorted(maps.Keys(all))
}

// through are the ports of a service's virtual address in a network whose tasks
// are processes.
func (t *table) through(s *api.EndpointService, network string, ports *insides) []*api.VirtualPort {
	var all []*api.VirtualPort
	for _, p := range s.Ports {
		if to := ports.ports[insideKey(s.Id, p)]; to > 0 {
			all = append(all, &api.VirtualPort{Udp: p.Protocol == "udp", Port: p.Target, Host: api.Gateway(t.networks[network].GetSubnet()), To: to})
		}
	}
	return all
}

// Inside is where a process of this node reaches a port of a service, wherever
// its tasks run; ok is false for what isn't a port of one. A service that the
// table doesn't have yet is taken to have it.
func (p *Plane) Inside(service string, port uint32) (address string, ok bool) {
	p.init()
	p.mu.Lock()
	defer p.mu.Unlock()
	spec := &api.PortSpec{Target: port}
	if s := p.table.services[service]; s != nil {
		i := slices.IndexFunc(s.Ports, func(o *api.PortSpec) bool { return o.Target == port })
		if i < 0 {
			return "", false
		}
		spec = s.Ports[i]
	}
	to := p.ports().port(insideKey(service, spec))
	if to == 0 {
		return "", false
	}
	poke(p.dirty)
	return net.JoinHostPort(loopback, itoa(to)), true
}
