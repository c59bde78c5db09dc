package network

import (
	"fmt"
	"strings"
	"testing"

	"orch/engine/api"
)

// wide is a table with a service on an encrypted and a plain network, on two
// nodes, and one whose tasks are processes.
func wide() *table {
	task := func(id, node string, more func(*api.Endpoint)) *api.Endpoint {
		e := &api.Endpoint{TaskId: id, ServiceId: "s/web", NodeId: node, Slot: id, Addresses: map[string]string{"s/a": "10.1.0.1" + id, "s/b": "10.2.0.1" + id}}
		if more != nil {
			more(e)
		}
		return e
	}
	var t table
	t.follow(&api.Endpoints{Full: true, Epoch: 1,
		Networks: []*api.EndpointNetwork{{Id: "s/a", Vni: 1, Subnet: "10.1.0.0/24", Encrypted: true}, {Id: "s/b", Vni: 2, Subnet: "10.2.0.0/24", Internal: true}, {Id: "s/idle", Vni: 3, Subnet: "10.3.0.0/24"}},
		Services: []*api.EndpointService{
			{Id: "s/web", Addresses: map[string]string{"s/a": "10.1.0.2", "s/b": "10.2.0.2"}, Ports: []*api.PortSpec{{Target: 80}}},
			{Id: "s/db", Process: true, Addresses: map[string]string{"s/a": "10.1.0.3", "s/b": "10.2.0.3"}, Ports: []*api.PortSpec{{Target: 5432}}}},
		Endpoints: []*api.Endpoint{task("1", "n", nil), task("2", "n", func(e *api.Endpoint) { e.Starting = true }), task("3", "m", nil),
			task("4", "m", func(e *api.Endpoint) { e.Draining = true }), {TaskId: "9", ServiceId: "s/db", NodeId: "m"}},
		NodesChanged: true, Nodes: []*api.EndpointNode{{Id: "n", Address: "192.168.0.1", MeshAddress: "10.192.0.1", MeshKey: "N"}, {Id: "m", Address: "192.168.0.2", MeshAddress: "10.192.0.2", MeshKey: "M", MeshEndpoint: "192.168.0.2:4749", Relay: "192.168.0.2:4748"}, {Id: "bare", Address: "192.168.0.3"}},
	})
	return &t
}

func TestOverlay(t *testing.T) {
	tab := wide()
	o := tab.overlay("n")
	got := o.MeshAddress + " " + o.HostAddress
	for _, p := range o.Peers {
		got += fmt.Sprintf("; %s at %s is %s", p.Key, p.Endpoint, p.Address)
	}
	for _, n := range o.Networks {
		got += fmt.Sprintf("; %d:", n.Vni)
		for _, x := range n.Neighbours {
			got += " " + x.Address + "@" + x.Host
		}
	}
	// One that drains is still there, and so is one that starts.
	want := "10.192.0.1 192.168.0.1; M at 192.168.0.2:4749 is 10.192.0.2; 1: 10.1.0.13@10.192.0.2 10.1.0.14@10.192.0.2; 2: 10.2.0.13@192.168.0.2 10.2.0.14@192.168.0.2; 3:"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	alone := wide()
	alone.follow(&api.Endpoints{Epoch: 2, RemovedEndpoints: []string{"1", "2"}})
	if o := alone.overlay("n"); len(o.Peers) != 0 || len(o.Networks[0].Neighbours) != 2 {
		t.Errorf("no task here is on an encrypted network: %v", o)
	}
	tab.follow(&api.Endpoints{Epoch: 2, RemovedNetworks: []string{"s/a"}})
	if o := tab.overlay("n"); len(o.Networks) != 2 || len(o.Peers) != 0 {
		t.Errorf("nothing is encrypted any more: %v", o)
	}
}

func TestNamespaces(t *testing.T) {
	tab := wide()
	ports := &insides{ports: map[string]uint32{"s/db 5432/tcp": 20001}, seen: map[string]bool{}}
	local := map[string]Local{"1": {Ready: true, Namespace: "/proc/1/ns/net"}, "2": {Ready: true}, "gone": {Namespace: "/proc/2/ns/net"}}
	describe := func() string {
		var all []string
		for _, n := range tab.namespaces("n", local, ports) {
			for _, v := range n.Virtuals {
				line := fmt.Sprintf("%s in %s: %s -> %s", n.Task, n.Path, v.Address, strings.Join(v.Targets, " "))
				for _, p := range v.Ports {
					line += fmt.Sprintf("%d to %s:%d", p.Port, p.Host, p.To)
				}
				all = append(all, line)
			}
		}
		return strings.Join(all, "\n")
	}
	// One that starts or drains is no target; a task that isn't in the table has
	// no rules.
	want := `1 in /proc/1/ns/net: 10.1.0.2 -> 10.1.0.11 10.1.0.13
1 in /proc/1/ns/net: 10.1.0.3 -> 5432 to 10.1.0.1:20001
1 in /proc/1/ns/net: 10.2.0.2 -> 10.2.0.11 10.2.0.13
1 in /proc/1/ns/net: 10.2.0.3 -> 5432 to 10.2.0.1:20001`
	if got := describe(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	// The node knows more than the engine of its own.
	local["1"] = Local{Namespace: "/proc/1/ns/net"}
	if got := describe(); strings.Contains(got, "10.1.0.11") {
		t.Errorf("it isn't ready here:\n%s", got)
	}
}

func TestNames(t *testing.T) {
	tab := wide()
	names := tab.names("n", nil, map[string]bool{"1": true})
	got := ""
	for _, z := range names.Zones {
		got += fmt.Sprintf("%s at %s internal=%t:", z.Network, z.Gateway, z.Internal)
		for _, s := range z.Services {
			got += fmt.Sprintf(" %s.%s=%s", s.Name, s.Stack, s.Virtual)
			for _, x := range s.Tasks {
				got += fmt.Sprintf(" %s:%s:%t", x.Slot, x.Address, x.Ready)
			}
		}
		got += "\n"
	}
	for _, c := range names.Clients {
		got += fmt.Sprintf("%s on %v held=%t\n", c.Address, c.Networks, c.Held)
	}
	want := `s/a at 10.1.0.1 internal=false: db.s=10.1.0.3 web.s=10.1.0.2 1:10.1.0.11:true 2:10.1.0.12:false 3:10.1.0.13:true 4:10.1.0.14:false
s/b at 10.2.0.1 internal=true: db.s=10.2.0.3 web.s=10.2.0.2 1:10.2.0.11:true 2:10.2.0.12:false 3:10.2.0.13:true 4:10.2.0.14:false
10.1.0.11 on [s/a s/b] held=false
10.2.0.11 on [s/a s/b] held=false
10.1.0.12 on [s/a s/b] held=true
10.2.0.12 on [s/a s/b] held=true
`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if names := tab.names("bare", nil, nil); len(names.Zones) != 0 {
		t.Errorf("a node without tasks needs no names: %v", names)
	}
}

// Ports inside a host stay what they were, whoever asks first and whatever the
// table knows, until their service is gone.
func TestInside(t *testing.T) {
	file := t.TempDir() + "/inside.json"
	p := &Plane{Node: "n", PortsFile: file}
	early, ok := p.Inside("s/db", 5432)
	if !ok {
		t.Fatal("a service that isn't known yet")
	}
	p.table = *wide()
	p.ports().keep(p.table.services)
	if again, _ := p.Inside("s/db", 5432); again != early {
		t.Errorf("%s, then %s", early, again)
	}
	if a, ok := p.Inside("s/db", 1); ok {
		t.Errorf("no port of it: %s", a)
	}
	later := &Plane{Node: "n", PortsFile: file, table: *wide()}
	if again, _ := later.Inside("s/db", 5432); again != early {
		t.Errorf("%s, after a restart %s", early, again)
	}
	var at []string
	for _, r := range later.table.inside("n", nil, later.ports()) {
		at = append(at, fmt.Sprintf("%s:%d -> %d", r.HostIp, r.Port, len(r.Targets)))
	}
	port := strings.TrimPrefix(early, "127.0.0.1:")
	if got, want := strings.Join(at, ", "), "10.1.0.1:"+port+" -> 1, 10.2.0.1:"+port+" -> 1, 127.0.0.1:"+port+" -> 1"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	delete(later.table.services, "s/db")
	later.ports().keep(p.table.services)
	later.ports().keep(map[string]*api.EndpointService{})
	if len(later.ports().ports) != 0 {
		t.Errorf("left: %v", later.ports().ports)
	}
}
