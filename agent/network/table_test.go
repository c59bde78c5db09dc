package network

import (
	"fmt"
	"strings"
	"testing"

	"orch/engine/api"
)

func web(task, node string, draining bool) *api.Endpoint {
	return &api.Endpoint{TaskId: task, ServiceId: "s/web", NodeId: node, Address: "10.0.0." + task, Draining: draining}
}

func text(routes []*api.Route) string {
	s := ""
	for _, r := range routes {
		s += fmt.Sprintf("%s:%d", r.HostIp, r.Port)
		for _, t := range r.Targets {
			s += fmt.Sprintf(" %s=%s", t.TaskId, t.Address)
			if t.Node != "" {
				s += fmt.Sprintf("%s/%d", t.Node, t.Port)
			}
			if t.Suspect {
				s += "?"
			}
		}
		s += "\n"
	}
	return s
}

// Other nodes reach the tasks here, also those that drain, and no others.
func TestReachable(t *testing.T) {
	svc := &api.EndpointService{Id: "s/web", Ports: []*api.PortSpec{{Target: 80}, {Target: 81}}}
	var tab table
	tab.follow(&api.Endpoints{Full: true, Services: []*api.EndpointService{svc}, Endpoints: []*api.Endpoint{web("1", "n", true), web("2", "m", false), web("3", "n", false)},
		NodesChanged: true, Nodes: []*api.EndpointNode{{Id: "n"}, {Id: "m", Relay: "m:1"}}})
	p := tab.published("n", map[string]Local{"3": {}})
	var got []string
	for _, r := range p.Reachable {
		got = append(got, fmt.Sprintf("%s %d %s", r.TaskId, r.Port, r.Address))
	}
	if want := "1 80 10.0.0.1:80; 1 81 10.0.0.1:81"; strings.Join(got, "; ") != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if len(p.Nodes) != 2 || p.Nodes[0].Relay != "m:1" || p.Nodes[1].Id != "n" {
		t.Errorf("nodes %v", p.Nodes)
	}
}

func TestSteeredRoutes(t *testing.T) {
	svc := &api.EndpointService{Id: "s/web", Ports: []*api.PortSpec{{Target: 80, Publish: 8080}}, Steered: true, NewVersion: "v2", NewPercent: 10}
	one, two := web("1", "n", false), web("2", "n", false)
	one.Version, two.Version = "v1", "v2"
	var tab table
	tab.follow(&api.Endpoints{Full: true, Services: []*api.EndpointService{svc}, Endpoints: []*api.Endpoint{one, two}})
	r := tab.routes("n", nil)[0]
	if !r.Steered || r.NewPercent != 10 || r.Targets[0].Fresh || !r.Targets[1].Fresh {
		t.Errorf("got %v", r)
	}
}

func TestRoutes(t *testing.T) {
	svc := &api.EndpointService{Id: "s/web", Ports: []*api.PortSpec{{Target: 80, Publish: 8080}, {Target: 9, Publish: 99, Mode: "host"}, {Target: 7}}}
	full := func(es ...*api.Endpoint) *api.Endpoints {
		return &api.Endpoints{Full: true, Epoch: 1, Services: []*api.EndpointService{svc}, Endpoints: es}
	}
	itself := web("1", "n", false)
	itself.HostPorts = []*api.HostPort{{Port: 8080, Target: 80}}
	for name, c := range map[string]struct {
		messages []*api.Endpoints
		local    map[string]Local
		want     string
	}{
		"nothing":                        {},
		"no task":                        {messages: []*api.Endpoints{full()}, want: ":8080\n"},
		"two":                            {messages: []*api.Endpoints{full(web("2", "n", false), web("1", "n", false))}, want: ":8080 1=10.0.0.1:80 2=10.0.0.2:80\n"},
		"one drains":                     {messages: []*api.Endpoints{full(web("2", "n", true), web("1", "n", false))}, want: ":8080 1=10.0.0.1:80\n"},
		"the node knows more":            {messages: []*api.Endpoints{full(web("1", "n", false), web("2", "n", false))}, local: map[string]Local{"1": {Address: "10.0.0.1"}, "2": {Address: "10.9.9.9", Ready: true}}, want: ":8080 2=10.9.9.9:80\n"},
		"the node knows one that drains": {messages: []*api.Endpoints{full(web("1", "n", true))}, local: map[string]Local{"1": {Address: "10.0.0.1", Ready: true}}, want: ":8080\n"},
		"it listens itself":              {messages: []*api.Endpoints{full(itself)}},
		"changes": {messages: []*api.Endpoints{full(web("1", "n", false)), {Epoch: 2, Endpoints: []*api.Endpoint{web("3", "n", false)}, RemovedEndpoints: []string{"1"}, NodesChanged: true, Nodes: []*api.EndpointNode{{Id: "n", Suspect: true}}}},
			want: ":8080 3=10.0.0.3:80?\n"},
		"on other nodes": {messages: []*api.Endpoints{full(web("1", "m", false), web("2", "o", false), web("3", "p", false)),
			{Epoch: 2, NodesChanged: true, Nodes: []*api.EndpointNode{{Id: "m", Relay: "m:1"}, {Id: "o", Relay: "o:1", Suspect: true}, {Id: "p"}}}},
			want: ":8080 1=m/80 2=o/80?\n"},
		"the service goes": {messages: []*api.Endpoints{full(web("1", "n", false)), {Epoch: 2, RemovedServices: []string{"s/web"}}}},
		"another engine":   {messages: []*api.Endpoints{full(web("1", "n", false)), full(web("2", "n", false))}, want: ":8080 2=10.0.0.2:80\n"},
	} {
		var tab table
		for _, m := range c.messages {
			tab.follow(m)
		}
		if got := text(tab.routes("n", c.local)); got != c.want {
			t.Errorf("%s: got\n%swant\n%s", name, got, c.want)
		}
	}
}
