package schedule_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"orch/engine/api"
	"orch/engine/schedule"
)

func node(id string, cpus, memory int64, labels ...string) *api.Node {
	n := &api.Node{Id: id, Name: id, Status: "up", Availability: "active", Labels: map[string]string{},
		Facts: &api.NodeFacts{CpusMilli: cpus, Memory: memory, Runtimes: []*api.RuntimeFacts{{Name: "docker"}}}}
	for _, l := range labels {
		k, v, _ := strings.Cut(l, "=")
		n.Labels[k] = v
	}
	return n
}

func service(id string) *api.Service {
	return &api.Service{Id: id, Spec: &api.ServiceSpec{Task: &api.TaskSpec{Runtime: "docker"}, Placement: &api.Placement{}}}
}

func requests(s *api.Service, n int) []schedule.Request {
	var all []schedule.Request
	for i := range n {
		id := fmt.Sprintf("%s.%d#1", s.Id, i+1)
		all = append(all, schedule.Request{Task: &api.Task{Id: id, ServiceId: s.Id, Version: "v"}, Service: s, Spec: s.Spec.Task})
	}
	return all
}

// TestPlaceNeverOversubscribes checks against a dumb count, for nodes that
// have tasks already and several services at once.
func TestPlaceNeverOversubscribes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var nodes []*api.Node
		for i := range rapid.IntRange(0, 6).Draw(t, "nodes") {
			n := node(fmt.Sprintf("n%d", i), rapid.Int64Range(0, 4).Draw(t, "cpus"), rapid.Int64Range(0, 4).Draw(t, "memory"),
				rapid.SampledFrom([]string{"zone=a", "zone=b"}).Draw(t, "zone"))
			n.Availability = rapid.SampledFrom([]string{"active", "active", "active", "pause", "drain"}).Draw(t, "availability")
			n.Status = rapid.SampledFrom([]string{"up", "up", "up", "down"}).Draw(t, "status")
			nodes = append(nodes, n)
		}
		specs := map[string]*api.TaskSpec{}
		var tasks []*api.Task
		var all []schedule.Request
		services := map[string]*api.Service{}
		for i := range rapid.IntRange(1, 3).Draw(t, "services") {
			s := service(fmt.Sprintf("app/s%d", i))
			s.Spec.Task.Resources = &api.Resources{CpusMilli: rapid.Int64Range(0, 2).Draw(t, "cpus"), Memory: rapid.Int64Range(0, 2).Draw(t, "memory")}
			s.Spec.Placement.MaxPerNode = rapid.Int32Range(0, 2).Draw(t, "most")
			if rapid.Bool().Draw(t, "spread") {
				s.Spec.Placement.Spread = []string{"node.labels.zone"}
			}
			if rapid.Bool().Draw(t, "constraint") {
				s.Spec.Placement.Constraints = []string{"node.labels.zone == a"}
			}
			if rapid.Bool().Draw(t, "port") {
				s.Spec.Task.HostPorts = []*api.HostPort{{Port: 80, HostIp: rapid.SampledFrom([]string{"", "10.0.0.1", "10.0.0.2"}).Draw(t, "ip")}}
			}
			services[s.Id], specs[s.Id] = s, s.Spec.Task
			all = append(all, requests(s, rapid.IntRange(0, 6).Draw(t, "tasks"))...)
			// Some that ran before, as the scheduler would have put them.
			old := schedule.Place(nodes, tasks, func(x *api.Task) *api.TaskSpec { return specs[x.ServiceId] }, requests(s, rapid.IntRange(0, 2).Draw(t, "older")))
			for j, d := range old {
				if d.Node != "" {
					tasks = append(tasks, &api.Task{Id: fmt.Sprintf("%s.old%d", s.Id, j), ServiceId: s.Id, NodeId: d.Node, Status: &api.TaskStatus{State: api.TaskState_TASK_STATE_RUNNING}})
				}
			}
		}
		specOf := func(x *api.Task) *api.TaskSpec { return specs[x.ServiceId] }
		got := schedule.Place(nodes, tasks, specOf, all)
		if diff := cmp.Diff(got, schedule.Place(nodes, tasks, specOf, all)); diff != "" {
			t.Fatalf("not deterministic: %s", diff)
		}
		byID := map[string]*api.Node{}
		for _, n := range nodes {
			byID[n.Id] = n
		}
		placed := tasks
		for i, d := range got {
			if (d.Node == "") == (d.Reason == "") {
				t.Fatalf("neither or both of node and reason: %+v", d)
			}
			if d.Node == "" {
				continue
			}
			n := byID[d.Node]
			if n.Status != "up" || n.Availability != "active" {
				t.Fatalf("placed on %s, which is %s and %s", n.Id, n.Status, n.Availability)
			}
			if s := all[i].Service; len(s.Spec.Placement.Constraints) > 0 && n.Labels["zone"] != "a" {
				t.Fatalf("placed against a constraint")
			}
			placed = append(placed, &api.Task{Id: all[i].Task.Id, ServiceId: all[i].Service.Id, NodeId: d.Node})
		}
		for _, n := range nodes {
			var cpus, memory int64
			per := map[string]int32{}
			var ips []string
			for _, x := range placed {
				if x.NodeId != n.Id {
					continue
				}
				s := specs[x.ServiceId]
				cpus, memory = cpus+s.Resources.CpusMilli, memory+s.Resources.Memory
				per[x.ServiceId]++
				for _, p := range s.HostPorts {
					for _, ip := range ips {
						if ip == "" || p.HostIp == "" || ip == p.HostIp {
							t.Fatalf("%s has port 80 twice", n.Id)
						}
					}
					ips = append(ips, p.HostIp)
				}
			}
			if cpus > n.Facts.CpusMilli || memory > n.Facts.Memory {
				t.Fatalf("%s is oversubscribed: %d cpus, %d memory", n.Id, cpus, memory)
			}
			for id, k := range per {
				if most := services[id].Spec.Placement.MaxPerNode; most > 0 && k > most {
					t.Fatalf("%s has %d of %s, at most %d", n.Id, k, id, most)
				}
			}
		}
		// Whoever was refused really fits nowhere.
		for i, d := range got {
			if d.Node != "" {
				continue
			}
			if again := schedule.Place(nodes, placed, specOf, all[i:i+1]); again[0].Node != "" {
				t.Fatalf("%s was refused (%s), and fits on %s", all[i].Task.Id, d.Reason, again[0].Node)
			}
		}
	})
}

func TestRefusals(t *testing.T) {
	down, paused, drained := node("d", 1, 1), node("p", 1, 1), node("r", 1, 1)
	down.Status, paused.Availability, drained.Availability = "down", "pause", "drain"
	bare := node("b", 1, 1)
	bare.Facts.Runtimes = nil
	s := service("app/web")
	s.Spec.Task.Resources = &api.Resources{CpusMilli: 1500, Memory: 1536 << 20}
	for _, c := range []struct {
		nodes []*api.Node
		pin   string
		why   string
		want  string
	}{
		{nil, "", "", "the cluster has no nodes yet"},
		{[]*api.Node{down}, "", "", "no node fits: 1 node is down"},
		{[]*api.Node{down, paused, drained, bare}, "", "", `no node fits: 1 node has no runtime "docker", 1 node is down, 1 node is drained, 1 node is paused`},
		{[]*api.Node{node("a", 1000, 1<<40), node("b", 1000, 1<<40), node("c", 2000, 1<<20)}, "", "", "no node fits: 2 nodes lack cpus (need 1.5), 1 node lacks memory (need 1.5 GiB)"},
		{[]*api.Node{down, node("a", 1<<20, 1<<40)}, "d", "", `node "d" is down`},
		{[]*api.Node{drained}, "r", `its volume "data"`, `node "r", where its volume "data" is, is drained`},
		{[]*api.Node{drained}, "gone", "", "its node is gone"},
	} {
		r := requests(s, 1)
		r[0].Pin, r[0].PinWhy = c.pin, c.why
		if got := schedule.Place(c.nodes, nil, nil, r)[0]; got.Reason != c.want {
			t.Errorf("got %q, want %q", got.Reason, c.want)
		}
	}
}

// TestSpread: two levels, evenly, whatever the numbers of nodes.
func TestSpread(t *testing.T) {
	var nodes []*api.Node
	for i, at := range []string{"a/1", "a/1", "a/2", "b/1"} {
		zone, rack, _ := strings.Cut(at, "/")
		nodes = append(nodes, node(fmt.Sprintf("n%d", i), 1, 1, "zone="+zone, "rack="+rack))
	}
	s := service("app/web")
	s.Spec.Placement.Spread = []string{"node.labels.zone", "node.labels.rack"}
	var got []string
	for _, d := range schedule.Place(nodes, nil, nil, requests(s, 8)) {
		got = append(got, d.Node)
	}
	if want := "n0 n3 n2 n3 n1 n3 n2 n3"; strings.Join(got, " ") != want {
		t.Errorf("got %s, want %s", strings.Join(got, " "), want)
	}
}

func BenchmarkPlace(b *testing.B) {
	for _, spread := range []bool{false, true} {
		b.Run(fmt.Sprintf("10000 tasks on 1000 nodes, spread %v", spread), func(b *testing.B) {
			var nodes []*api.Node
			for i := range 1000 {
				nodes = append(nodes, node(fmt.Sprintf("n%04d", i), 64000, 1<<38, fmt.Sprintf("zone=z%d", i%10)))
			}
			var all []schedule.Request
			for i := range 10 {
				s := service(fmt.Sprintf("app/s%d", i))
				s.Spec.Task.Resources = &api.Resources{CpusMilli: 100, Memory: 1 << 20}
				if spread {
					s.Spec.Placement.Spread = []string{"node.labels.zone"}
				}
				all = append(all, requests(s, 1000)...)
			}
			for b.Loop() {
				schedule.Place(nodes, nil, nil, all)
			}
			b.ReportMetric(10000*float64(b.N)/b.Elapsed().Seconds(), "tasks/s")
		})
	}
}

// A task on a network of the cluster needs a node that such networks reach.
func TestNetworksNeedADataPlane(t *testing.T) {
	s := service("app/web")
	deaf, other := node("a", 4, 4), node("b", 4, 4)
	deaf.Facts.Plane = &api.PlaneFacts{Error: "orch doesn't run as root there"}
	nobody := func(*api.Task) *api.TaskSpec { return nil }
	attached := requests(s, 1)
	attached[0].Task.Addresses = map[string]string{"default": "10.200.0.3"}
	if got := schedule.Place([]*api.Node{deaf, other}, nil, nobody, attached)[0]; got.Node != "b" {
		t.Errorf("beside another: %v", got)
	}
	if got := schedule.Place([]*api.Node{deaf}, nil, nobody, attached)[0]; got.Node != "a" {
		t.Errorf("alone: %v", got)
	}
	if got := schedule.Place([]*api.Node{deaf, other}, nil, nobody, requests(s, 2)); got[0].Node != "a" && got[1].Node != "a" {
		t.Errorf("without networks: %v", got)
	}
	other.Availability = "drain"
	want := "no node fits: 1 node is drained, 1 node isn't reached by networks across hosts (orch doesn't run as root there)"
	if got := schedule.Place([]*api.Node{deaf, other}, nil, nobody, attached)[0]; got.Reason != want {
		t.Errorf("nowhere: %q", got.Reason)
	}
}
