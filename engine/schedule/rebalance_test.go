package schedule_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	"pgregory.net/rapid"

	"orch/engine/api"
	"orch/engine/schedule"
	"orch/engine/script"
	"orch/engine/state"
)

// cluster is what a view for Rebalance is made of.
type cluster struct {
	nodes    []*api.Node
	services []*api.ServiceSpec
	at       map[string]string // node id by task id
}

func taskID(service string, i int) string { return fmt.Sprintf("app/%s.%d#1", service, i+1) }

// view makes a state in which every task serves where it is said to be.
func (c cluster) view(t testing.TB) state.View {
	s := state.New()
	index := uint64(0)
	apply := func(x *api.Command) {
		index++
		if err := s.Apply(index, x).Err; err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range c.nodes {
		apply(&api.Command{Kind: &api.Command_PutNode{PutNode: n}})
	}
	versions := map[string]string{}
	for _, svc := range c.services {
		versions[svc.Name] = "v"
	}
	apply(&api.Command{Kind: &api.Command_PutRelease{PutRelease: &api.PutRelease{
		Release: &api.Release{Stack: "app", Spec: &api.StackSpec{Name: "app", Services: c.services}}, Versions: versions}}})
	changes := &api.Changes{}
	for _, svc := range c.services {
		for i := range int(svc.Replicas) {
			id, slot := taskID(svc.Name, i), fmt.Sprintf("app/%s.%d", svc.Name, i+1)
			if c.at[id] == "" {
				continue
			}
			changes.PutSlots = append(changes.PutSlots, &api.Slot{Id: slot, ServiceId: "app/" + svc.Name, Key: fmt.Sprint(i + 1), Version: "v"})
			changes.Create = append(changes.Create, &api.Task{Id: id, ServiceId: "app/" + svc.Name, SlotId: slot, Attempt: 1, Version: "v", NodeId: c.at[id],
				Desired: api.TaskDesired_TASK_DESIRED_RUN, Status: &api.TaskStatus{TaskId: id, State: api.TaskState_TASK_STATE_RUNNING, Ready: true}})
		}
	}
	apply(&api.Command{Kind: &api.Command_Changes{Changes: changes}})
	return s.View()
}

// moved is the cluster with the moves carried out.
func (c cluster) moved(moves []*api.Move) cluster {
	ids := map[string]string{}
	for _, n := range c.nodes {
		ids[n.Name] = n.Id
	}
	c.at = maps.Clone(c.at)
	for _, m := range moves {
		c.at[m.TaskId] = ids[m.To]
	}
	return c
}

// scatter puts tasks on nodes that fit, in no good order.
func (c cluster) scatter(t *rapid.T) {
	var placed []*api.Task
	specs := map[string]*api.TaskSpec{}
	for _, spec := range c.services {
		svc := &api.Service{Id: "app/" + spec.Name, Spec: spec}
		specs[svc.Id] = spec.Task
		for i := range int(spec.Replicas) {
			x := &api.Task{Id: taskID(spec.Name, i), ServiceId: svc.Id, Status: &api.TaskStatus{State: api.TaskState_TASK_STATE_RUNNING}}
			r := schedule.Request{Task: x, Service: svc, Spec: spec.Task, Pin: rapid.SampledFrom(c.nodes).Draw(t, "node").Id}
			if d := schedule.Place(c.nodes, placed, func(x *api.Task) *api.TaskSpec { return specs[x.ServiceId] }, []schedule.Request{r}); d[0].Node != "" {
				x.NodeId = d[0].Node
				c.at[x.Id] = d[0].Node
				placed = append(placed, x)
			}
		}
	}
}

func drawCluster(t *rapid.T) cluster {
	c := cluster{at: map[string]string{}}
	for i := range rapid.IntRange(1, 6).Draw(t, "nodes") {
		n := node(fmt.Sprintf("n%d", i), rapid.Int64Range(2, 9).Draw(t, "cpus"), 9, rapid.SampledFrom([]string{"zone=a", "zone=b", "zone=c"}).Draw(t, "zone"),
			rapid.SampledFrom([]string{"disk=ssd", "disk=hdd"}).Draw(t, "disk"))
		c.nodes = append(c.nodes, n)
	}
	for i := range rapid.IntRange(1, 4).Draw(t, "services") {
		s := &api.ServiceSpec{Name: fmt.Sprintf("s%d", i), Mode: "replicated", Replicas: rapid.Int32Range(1, 8).Draw(t, "replicas"),
			Task:      &api.TaskSpec{Runtime: "docker", Image: "v", Resources: &api.Resources{CpusMilli: rapid.Int64Range(0, 2).Draw(t, "need")}},
			Placement: &api.Placement{MaxPerNode: rapid.SampledFrom([]int32{0, 0, 2}).Draw(t, "most")}}
		switch rapid.IntRange(0, 5).Draw(t, "special") {
		case 0:
			s.Placement.Spread = []string{"node.labels.zone", "node.labels.disk"}
		case 1:
			s.Placement.Spread = []string{"node.labels.zone"}
		case 2:
			s.Placement.Constraints = []string{"node.labels.disk == ssd"}
		case 3:
			s.Task.HostPorts = []*api.HostPort{{Port: 80, Target: 80}}
		case 4:
			s.Task.Mounts = []*api.Mount{{Type: "volume", Source: "data"}}
		}
		c.services = append(c.services, s)
	}
	c.scatter(t)
	for _, n := range c.nodes { // since then, something may have happened
		n.Availability = rapid.SampledFrom([]string{"active", "active", "active", "active", "pause", "drain"}).Draw(t, "availability")
	}
	return c
}

// TestRebalance: what it asks for is allowed, and carried out leaves nothing
// to ask for.
func TestRebalance(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := drawCluster(t)
		tb := fataler{TB: nil, t: t}
		moves := schedule.Rebalance(c.view(tb), "app")
		if diff := cmp.Diff(moves, schedule.Rebalance(c.view(tb), ""), protocmp.Transform()); diff != "" {
			t.Fatalf("not deterministic: %s", diff)
		}
		after := c.moved(moves)
		if again := schedule.Rebalance(after.view(tb), ""); len(again) > 0 {
			t.Fatalf("moved %v, and then %v", moves, again)
		}
		byName := map[string]*api.Node{}
		for _, n := range c.nodes {
			byName[n.Name] = n
		}
		for _, m := range moves {
			from, to := byName[m.From], byName[m.To]
			if from == to || from.Id != c.at[m.TaskId] || m.Reason == "" {
				t.Fatalf("%v, and it is on %s", m, c.at[m.TaskId])
			}
			if to.Availability != "active" || from.Availability != "active" {
				t.Fatalf("%v, and %s is %s, %s is %s", m, m.From, from.Availability, m.To, to.Availability)
			}
		}
		after.check(t)
	})
}

// fataler lets rapid's T stand in for testing's.
type fataler struct {
	testing.TB
	t *rapid.T
}

func (f fataler) Fatal(args ...any) { f.t.Fatal(args...) }

// check counts by hand what no placement may break, and, where nothing but
// balance matters, that nodes are alike.
func (c cluster) check(t *rapid.T) {
	cpus := map[string]int64{}
	active := 0
	for _, n := range c.nodes {
		if n.Availability == "active" {
			active++
		}
	}
	for _, s := range c.services {
		mine, zones := map[string]int{}, map[string]int{}
		for _, n := range c.nodes {
			if n.Availability == "active" {
				mine[n.Id], zones[n.Labels["zone"]] = 0, 0
			}
		}
		plain := s.Task.Resources.CpusMilli == 0 && s.Placement.MaxPerNode == 0 && len(s.Placement.Constraints)+len(s.Task.HostPorts)+len(s.Task.Mounts) == 0 && active == len(c.nodes)
		for i := range int(s.Replicas) {
			at := c.at[taskID(s.Name, i)]
			if at == "" {
				continue
			}
			n := c.nodes[slices.IndexFunc(c.nodes, func(n *api.Node) bool { return n.Id == at })]
			mine[at]++
			zones[n.Labels["zone"]]++
			cpus[at] += s.Task.Resources.CpusMilli
			if len(s.Placement.Constraints) > 0 && n.Labels["disk"] != "ssd" {
				t.Fatalf("%s is on %s, which is no ssd", s.Name, at)
			}
			if len(s.Task.HostPorts) > 0 && mine[at] > 1 {
				t.Fatalf("%s has two with one port on %s", s.Name, at)
			}
			if most := int(s.Placement.MaxPerNode); most > 0 && mine[at] > most {
				t.Fatalf("%s has %d on %s", s.Name, mine[at], at)
			}
		}
		apart := func(counts map[string]int) int {
			all := slices.Sorted(maps.Values(counts))
			return all[len(all)-1] - all[0]
		}
		switch {
		case plain && len(s.Placement.Spread) > 0:
			if apart(zones) > 1 {
				t.Fatalf("%s isn't spread over zones: %v", s.Name, zones)
			}
		case plain && apart(mine) > 1:
			t.Fatalf("%s isn't spread: %v", s.Name, mine)
		}
	}
	for _, n := range c.nodes {
		if cpus[n.Id] > n.Facts.CpusMilli {
			t.Fatalf("%s has %d of %d", n.Id, cpus[n.Id], n.Facts.CpusMilli)
		}
	}
}

// TestRebalanceCarriedOut: a cluster comes to rest after the wishes of
// Rebalance, which then has no more.
func TestRebalanceCarriedOut(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := script.New()
		step := func(err error) {
			if err != nil {
				t.Fatal(err)
			}
		}
		up := func(ids ...string) {
			for i, id := range ids {
				step(w.NodeUp(&api.Node{Id: id, Labels: map[string]string{"zone": fmt.Sprint(i % 2)}}))
			}
		}
		up("a", "b")
		s := &api.StackSpec{Name: "app"}
		for i := range rapid.IntRange(1, 4).Draw(t, "services") {
			svc := &api.ServiceSpec{Name: fmt.Sprintf("s%d", i), Mode: "replicated", Replicas: rapid.Int32Range(1, 6).Draw(t, "replicas"),
				Task:   &api.TaskSpec{Runtime: "docker", Image: "v"},
				Update: &api.RolloutPolicy{Order: rapid.SampledFrom([]string{"start-first", "stop-first"}).Draw(t, "order")}}
			if rapid.Bool().Draw(t, "spread") {
				svc.Placement = &api.Placement{Spread: []string{"node.labels.zone"}}
			}
			s.Services = append(s.Services, svc)
		}
		_, err := w.Apply(s, "run")
		step(err)
		step(w.Advance(time.Second))
		up("c", "d", "e")
		step(w.Advance(time.Second))
		for round := 1; ; round++ {
			moves, err := w.Rebalance()
			step(err)
			if len(moves) == 0 {
				return
			}
			if round > 5 {
				t.Fatalf("after %d rounds: %v\n%s", round, moves, w.Show())
			}
			step(w.Advance(time.Minute))
		}
	})
}

func BenchmarkRebalance10000TasksOn1000Nodes(b *testing.B) {
	for name, spread := range map[string][]string{"plain": nil, "by zone": {"node.labels.zone"}, "by host": {"node.hostname"}} {
		for _, services := range []int{10, 1000} {
			c := cluster{at: map[string]string{}}
			for i := range 1000 {
				c.nodes = append(c.nodes, node(fmt.Sprintf("n%03d", i), 64000, 1<<38, fmt.Sprintf("zone=z%d", i%10)))
			}
			for i := range services {
				s := &api.ServiceSpec{Name: fmt.Sprintf("s%03d", i), Mode: "replicated", Replicas: int32(10_000 / services), Placement: &api.Placement{Spread: spread},
					Task: &api.TaskSpec{Runtime: "docker", Image: "v", Resources: &api.Resources{CpusMilli: 100, Memory: 1 << 20}}}
				c.services = append(c.services, s)
				for j := range int(s.Replicas) {
					c.at[taskID(s.Name, j)] = c.nodes[(i*7+j)%500].Id // half of the nodes have just come
				}
			}
			before := c.view(b)
			after := c.moved(schedule.Rebalance(before, "")).view(b)
			b.Run(fmt.Sprintf("%s, %d services", name, services), func(b *testing.B) {
				for b.Loop() {
					schedule.Rebalance(before, "")
				}
			})
			b.Run(fmt.Sprintf("%s, %d services, at rest", name, services), func(b *testing.B) {
				for b.Loop() {
					schedule.Rebalance(after, "")
				}
			})
		}
	}
}

// TestMovesReadWell: what Rebalance returns is for people, too.
func TestMovesReadWell(t *testing.T) {
	c := cluster{nodes: []*api.Node{node("a", 9, 9), node("b", 9, 9)}, at: map[string]string{}}
	s := &api.ServiceSpec{Name: "web", Mode: "replicated", Replicas: 3, Task: &api.TaskSpec{Runtime: "docker", Image: "v"}}
	c.services = []*api.ServiceSpec{s}
	for i := range 3 {
		c.at[taskID("web", i)] = "a"
	}
	want := []*api.Move{{TaskId: "app/web.3#1", From: "a", To: "b", Reason: `node "b" has 0 of "app/web", its own 3`}}
	if diff := cmp.Diff(want, schedule.Rebalance(c.view(t), ""), protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	if moves := schedule.Rebalance(c.view(t), "other"); len(moves) > 0 {
		t.Errorf("of another stack: %v", moves)
	}
}
