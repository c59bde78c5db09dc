package carrier

import (
	"fmt"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"orch/engine/api"
)

// anything is some state of what is published.
func anything(t *rapid.T, name string) *api.Published {
	p := &api.Published{Nodes: []*api.RelayNode{{Id: "self"}}}
	for port := range uint32(4) {
		for _, protocol := range []string{"tcp", "udp"} {
			if n := rapid.IntRange(0, 3).Draw(t, fmt.Sprint(name, port, protocol)); n > 0 {
				r := &api.Route{Port: port, Protocol: protocol}
				for i := range n - 1 {
					r.Targets = append(r.Targets, &api.Target{TaskId: fmt.Sprint(i)})
				}
				p.Routes = append(p.Routes, r)
			}
		}
	}
	for i := range rapid.IntRange(0, 2).Draw(t, name+" nodes") {
		p.Nodes = append(p.Nodes, &api.RelayNode{Id: fmt.Sprint(i)})
	}
	for i := range rapid.IntRange(0, 2).Draw(t, name+" tasks") {
		p.Reachable = append(p.Reachable, &api.RelayTask{TaskId: fmt.Sprint(i)})
	}
	return p
}

// Whoever follows the changes knows the whole.
func TestChanges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var told, knows *api.Published
		for i := range rapid.IntRange(1, 5).Draw(t, "steps") {
			next := anything(t, fmt.Sprint(i))
			q := changes(told, next)
			if told != nil && proto.Equal(told, next) && proto.Size(q) > 0 {
				t.Fatalf("nothing changed, but %v", q)
			}
			told, knows = next, follow(knows, q)
			slices.SortFunc(knows.Routes, func(a, b *api.Route) int {
				return slices.Index(keys(next), keyOf(a)) - slices.Index(keys(next), keyOf(b))
			})
			if !proto.Equal(knows, next) {
				t.Fatalf("knows %v, not %v", knows, next)
			}
		}
	})
}

func keys(p *api.Published) (all []routeKey) {
	for _, r := range p.Routes {
		all = append(all, keyOf(r))
	}
	return all
}

// One task of 10,000, in 500 services, comes into rotation.
func BenchmarkPublish10000Targets(b *testing.B) {
	a := begin(b, b.TempDir())
	state := func(spare int) *api.Published {
		p := &api.Published{Nodes: []*api.RelayNode{{Id: "n"}}}
		for s := range 500 {
			r := &api.Route{HostIp: "127.0.0.1", Port: uint32(10000 + s), Protocol: "tcp", Service: fmt.Sprint("s/", s)}
			for i := range 20 {
				if s*20+i != spare {
					r.Targets = append(r.Targets, &api.Target{TaskId: fmt.Sprintf("s/%d.%d#1", s, i), Address: "127.0.0.1:9", Version: "0123456789ab"})
				}
			}
			p.Routes = append(p.Routes, r)
		}
		return p
	}
	a.tell(b, state(-1).Routes...)
	n := 0
	for b.Loop() {
		n++
		if err := a.Publish(state(n % 10000)); err != nil {
			b.Fatal(err)
		}
	}
}
