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
