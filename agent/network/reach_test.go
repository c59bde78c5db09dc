package network

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"orch/engine/api"
)

// sites are two nodes with addresses of their own, two behind one NAT, one behind
// another.
func sites() *table {
	var t table
	node := func(id, behind string) *api.EndpointNode {
		return &api.EndpointNode{Id: id, Name: id, Behind: behind, Address: id, Relay: id + ":4748", MeshKey: strings.ToUpper(id), MeshAddress: "mesh-" + id, MeshEndpoint: id + ":4749"}
	}
	t.follow(&api.Endpoints{Full: true, Epoch: 1, NodesChanged: true, Nodes: []*api.EndpointNode{node("a", ""), node("b", ""), node("c", "nat1"), node("d", "nat1"), node("e", "nat2")}})
	return &t
}

// ways tells where a node sends what is for the others.
func (t *table) ways(node string) (mesh, relays string) {
	var peers []string
	for _, p := range t.overlay(node).Peers {
		peers = append(peers, fmt.Sprintf("%s=%s", p.Key, p.Endpoint))
	}
	var nodes []string
	for _, n := range t.published(node, nil).Nodes {
		nodes = append(nodes, fmt.Sprintf("%s=%s", n.Id, n.Relay))
	}
	slices.Sort(peers)
	return strings.Join(peers, " "), strings.Join(nodes, " ")
}

func TestBehindNAT(t *testing.T) {
	tab := sites()
	check := func(node, mesh, relays string) {
		t.Helper()
		if m, r := tab.ways(node); m != mesh || r != relays {
			t.Errorf("%s\n got %q, %q\nwant %q, %q", node, m, r, mesh, relays)
		}
	}
	check("a", "C= D= E=", "a=a:4748 b=b:4748 c=mesh-c:4748 d=mesh-d:4748 e=mesh-e:4748")
	check("c", "A=a:4749 B=b:4749", "a=a:4748 b=b:4748 c=c:4748 d=d:4748 e=")
	check("e", "A=a:4749 B=b:4749", "a=a:4748 b=b:4748 c= d= e=e:4748")
	// One that has no mesh isn't reached from elsewhere, and reaches those that are.
	tab.nodes["e"].MeshKey = ""
	check("a", "C= D=", "a=a:4748 b=b:4748 c=mesh-c:4748 d=mesh-d:4748 e=")
	check("e", "A=a:4749 B=b:4749", "a=a:4748 b=b:4748 c= d= e=e:4748")
}

// Of several that relay, the two sides choose the same, as long as it is heard of.
func TestRelayedBetween(t *testing.T) {
	tab := sites()
	if w := tab.way(tab.nodes["c"], tab.nodes["e"]); !strings.Contains(w.Blocked, "orch node label NODE relay=yes") {
		t.Errorf("without a relay: %+v", w)
	}
	tab.nodes["a"].Relays, tab.nodes["b"].Relays, tab.nodes["c"].Relays = true, true, true
	seen := map[string]bool{}
	for _, silent := range []string{"", "a", "b"} {
		for _, id := range []string{"a", "b"} {
			tab.nodes[id].Suspect = id == silent
		}
		there, back := tab.way(tab.nodes["c"], tab.nodes["e"]), tab.way(tab.nodes["e"], tab.nodes["c"])
		x, _ := tab.endpoint(tab.nodes["c"], tab.nodes["e"])
		y, _ := tab.endpoint(tab.nodes["e"], tab.nodes["c"])
		if x != y || x == silent+":4748" || x != "a:4748" && x != "b:4748" {
			t.Errorf("%q is silent: at %q and at %q", silent, x, y)
		}
		if there.Relay != "mesh-e:4748" || back.Relay != "mesh-c:4748" || there.Blocked+back.Blocked != "" || !strings.Contains(there.MeshHint, x) {
			t.Errorf("%q is silent: %+v, %+v", silent, there, back)
		}
		seen[x] = true
	}
	if len(seen) != 2 {
		t.Errorf("it is always the same: %v", seen)
	}
	if got := strings.Join(tab.forwarded(tab.nodes["a"]), " "); got != "C D E" {
		t.Errorf("it forwards between %s", got)
	}
	if got := tab.forwarded(tab.nodes["c"]); got != nil {
		t.Errorf("one behind NAT forwards between %v", got)
	}
}

// Networks that aren't encrypted don't lead through NAT, which is told.
func TestPlainThroughNAT(t *testing.T) {
	tab := wide()
	if w := tab.way(tab.nodes["n"], tab.nodes["m"]); len(w.Plain) > 0 {
		t.Errorf("without NAT: %+v", w)
	}
	tab.nodes["m"].Behind = "nat"
	if w := tab.way(tab.nodes["n"], tab.nodes["m"]); !slices.Equal(w.Plain, []string{"s/b"}) {
		t.Errorf("with one: %+v", w)
	}
}
