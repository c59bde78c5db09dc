package state_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	"orch/engine/api"
	"orch/engine/state"
)

// log applies commands to a state, one after the other.
type log struct {
	*state.State
	index uint64
}

func (l *log) do(c *api.Command) error {
	l.index++
	c.Time = timestamppb.New(timestamppb.Now().AsTime())
	return l.Apply(l.index, c).Err
}

// release puts one with services of a replica each on all networks given.
func (l *log) release(stack string, networks []*api.NetworkSpec, services ...string) error {
	p := &api.PutRelease{BaseRelease: l.View().Stack(stack).GetRelease(), Versions: map[string]string{},
		Release: &api.Release{Stack: stack, Spec: &api.StackSpec{Name: stack, Networks: networks}}}
	for _, s := range services {
		task := &api.TaskSpec{}
		for _, n := range networks {
			task.Networks = append(task.Networks, n.Name)
		}
		p.Versions[s] = "v1"
		p.Release.Spec.Services = append(p.Release.Spec.Services, &api.ServiceSpec{Name: s, Mode: "replicated", Replicas: 1, Task: task})
	}
	return l.do(&api.Command{Kind: &api.Command_PutRelease{PutRelease: p}})
}

func (l *log) changes(c *api.Changes) error {
	return l.do(&api.Command{Kind: &api.Command_Changes{Changes: c}})
}

func (l *log) ended(task string) {
	l.changes(&api.Changes{Change: []*api.TaskChange{{Id: task, NodeId: "n"}}})
	l.do(&api.Command{Kind: &api.Command_Reports{Reports: &api.Reports{Reports: []*api.ReportStatus{{NodeId: "n", Statuses: []*api.TaskStatus{{TaskId: task, State: api.TaskState_TASK_STATE_STOPPED}}}}}}})
}

func TestNetworksAreGivenSubnets(t *testing.T) {
	l := &log{State: state.New()}
	l.do(&api.Command{Kind: &api.Command_PutNode{PutNode: &api.Node{Id: "n", Name: "one", Facts: &api.NodeFacts{Plane: &api.PlaneFacts{Routes: []string{"10.200.0.0/13", "172.17.0.0/16", "nonsense"}}}}}})
	for i := range 300 {
		if err := l.release(fmt.Sprint("s", i), []*api.NetworkSpec{{Name: "a"}, {Name: "b"}, {Name: "host", External: true}}); err != nil {
			t.Fatal(err)
		}
	}
	all := l.View().Networks()
	if len(all) != 600 {
		t.Fatalf("%d networks", len(all))
	}
	numbers := map[uint32]bool{}
	taken := []netip.Prefix{netip.MustParsePrefix("10.200.0.0/13"), netip.MustParsePrefix("10.192.0.0/16")}
	for _, n := range all {
		p := netip.MustParsePrefix(n.Subnet)
		for _, o := range taken {
			if o.Overlaps(p) {
				t.Fatalf("%s overlaps %s", p, o)
			}
		}
		taken = append(taken, p)
		if n.Vni == 0 || n.Vni >= 1<<24 || numbers[n.Vni] {
			t.Fatalf("VNI %d", n.Vni)
		}
		numbers[n.Vni] = true
	}
}

func TestSubnetsAskedFor(t *testing.T) {
	l := &log{State: state.New()}
	l.do(&api.Command{Kind: &api.Command_PutNode{PutNode: &api.Node{Id: "n", Name: "one", Facts: &api.NodeFacts{Plane: &api.PlaneFacts{Routes: []string{"192.168.7.0/24"}}}}}})
	net := func(subnet string) []*api.NetworkSpec { return []*api.NetworkSpec{{Name: "a", Subnet: subnet}} }
	if err := l.release("first", net("10.1.0.0/24")); err != nil {
		t.Fatal(err)
	}
	for subnet, want := range map[string]string{
		"10.1.0.128/25":  `subnet 10.1.0.128/25 overlaps 10.1.0.0/24 of network first/a`,
		"192.168.0.0/16": `subnet 192.168.0.0/16 overlaps 192.168.7.0/24 of a route of node one`,
		"10.2.0.0/30":    "from /8 to /29",
		"fd00::/64":      "IPv4",
		"10.3.0.0/24":    "",
	} {
		if err := l.release("s"+strings.NewReplacer(".", "-", "/", "-", ":", "-").Replace(subnet), net(subnet)); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", subnet, err)
		}
	}
	if err := l.release("first", net("10.9.0.0/24")); err == nil || !strings.Contains(err.Error(), "give the changed one another name") {
		t.Errorf("changed: %v", err)
	}
	if err := l.release("first", net("10.1.0.0/24"), "web"); err != nil {
		t.Errorf("as it is: %v", err)
	}
}

// A network that has no address left says so on the task, and goes on once
// there is one.
func TestAddressesRunOut(t *testing.T) {
	l := &log{State: state.New()}
	if err := l.release("s", []*api.NetworkSpec{{Name: "a", Subnet: "10.1.0.0/29"}}, "web"); err != nil {
		t.Fatal(err)
	}
	if got := l.View().Service("s/web").Addresses["a"]; got != "10.1.0.2" {
		t.Fatalf("the service has %q", got)
	}
	task := func(i int) string { return state.TaskID(state.SlotID("s/web", fmt.Sprint(i)), 1) }
	create := func(i int) *api.Task {
		slot := state.SlotID("s/web", fmt.Sprint(i))
		l.changes(&api.Changes{PutSlots: []*api.Slot{{Id: slot, ServiceId: "s/web", Key: fmt.Sprint(i), Version: "v1"}},
			Create: []*api.Task{{Id: task(i), ServiceId: "s/web", SlotId: slot, Attempt: 1, Version: "v1", Status: &api.TaskStatus{TaskId: task(i), State: api.TaskState_TASK_STATE_PENDING}}}})
		return l.View().Task(task(i))
	}
	for i, want := range []string{"10.1.0.3", "10.1.0.4", "10.1.0.5", "10.1.0.6"} {
		if got := create(i).Addresses["a"]; got != want {
			t.Errorf("task %d has %q", i, got)
		}
	}
	if got := create(4).Status; got.State != api.TaskState_TASK_STATE_FAILED || got.Message != `network "a" has no free address left in 10.1.0.0/29` {
		t.Errorf("too many: %v", got)
	}
	l.ended(task(1))
	if got := create(5); got.Addresses["a"] != "10.1.0.4" {
		t.Errorf("after one ended: %v", got)
	}
}

// No two things that live ever have one address.
func TestAddressesAreUnique(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := &log{State: state.New()}
		nets := []*api.NetworkSpec{{Name: "a", Subnet: "10.1.0.0/27"}, {Name: "b", Subnet: "10.2.0.0/28"}}
		if err := l.release("s", nets, "web", "db"); err != nil {
			t.Fatal(err)
		}
		next := 0
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			live := 0
			for _, task := range l.View().Tasks() {
				if !state.Ended(task.Status.GetState()) {
					live++
				}
			}
			if live > 0 && rapid.Bool().Draw(t, "end one") {
				all := l.View().Tasks()
				l.ended(all[rapid.IntRange(0, len(all)-1).Draw(t, "which")].Id)
			} else {
				next++
				slot := state.SlotID("s/web", fmt.Sprint(next))
				l.changes(&api.Changes{PutSlots: []*api.Slot{{Id: slot, ServiceId: "s/web", Key: fmt.Sprint(next), Version: "v1"}},
					Create: []*api.Task{{Id: state.TaskID(slot, 1), ServiceId: "s/web", SlotId: slot, Attempt: 1, Version: "v1", Status: &api.TaskStatus{}}}})
			}
			seen := map[string]string{}
			see := func(who, network, address string) {
				p := netip.MustParsePrefix(l.View().Network("s/" + network).Subnet)
				a := netip.MustParseAddr(address)
				if !p.Contains(a) || a.String() == api.Gateway(p.String()) || a == p.Addr() || !p.Contains(a.Next()) {
					t.Fatalf("%s has %s in %s", who, a, p)
				}
				if other := seen[network+address]; other != "" {
					t.Fatalf("%s and %s have %s", who, other, address)
				}
				seen[network+address] = who
			}
			for _, s := range l.View().Services() {
				for n, a := range s.Addresses {
					see(s.Id, n, a)
				}
			}
			for _, task := range l.View().Tasks() {
				if !state.Ended(task.Status.GetState()) {
					for n, a := range task.Addresses {
						see(task.Id, n, a)
					}
				}
			}
		}
	})
}

func TestMeshAddresses(t *testing.T) {
	l := &log{State: state.New()}
	seen := map[string]bool{}
	for i := range 500 {
		id := fmt.Sprint("n", i)
		l.do(&api.Command{Kind: &api.Command_PutNode{PutNode: &api.Node{Id: id, Name: id}}})
		if l.View().Node(id).MeshAddress != "" {
			t.Fatal("it has no key yet")
		}
		facts := &api.NodeFacts{Plane: &api.PlaneFacts{MeshKey: "k"}}
		l.do(&api.Command{Kind: &api.Command_SetNode{SetNode: &api.SetNode{Id: id, Facts: facts}}})
		a := l.View().Node(id).MeshAddress
		if seen[a] || a == "" {
			t.Fatalf("node %d has %q", i, a)
		}
		seen[a] = true
		l.do(&api.Command{Kind: &api.Command_PutNode{PutNode: &api.Node{Id: id, Name: id}}})
		if l.View().Node(id).MeshAddress != a {
			t.Fatal("it has another one now")
		}
	}
}

// What nothing names any more goes: a network with the release, all of them
// with the stack.
func TestNetworksGo(t *testing.T) {
	l := &log{State: state.New()}
	l.release("s", []*api.NetworkSpec{{Name: "a"}, {Name: "b"}})
	l.release("s", []*api.NetworkSpec{{Name: "b"}})
	if all := l.View().Networks(); len(all) != 1 || all[0].Id != "s/b" {
		t.Errorf("left: %v", all)
	}
	l.do(&api.Command{Kind: &api.Command_SetStack{SetStack: &api.SetStack{Name: "s", Action: "remove"}}})
	l.changes(&api.Changes{DeleteStacks: []string{"s"}})
	if all := l.View().Networks(); len(all) != 0 {
		t.Errorf("left: %v", all)
	}
}
