package spec_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"pgregory.net/rapid"

	"orch/engine/api"
	"orch/engine/script"
	"orch/engine/spec"
)

func TestConstraints(t *testing.T) {
	n := &api.Node{Id: "n1", Name: "alpha", Role: "agent", Labels: map[string]string{"zone": "eu-1", "disk": "SSD", "cores": "16"},
		Facts: &api.NodeFacts{Os: "linux", Arch: "arm64"}}
	for text, want := range map[string]bool{
		"node.id == n1":                              true,
		"node.hostname==ALPHA":                       true,
		"node.hostname != alpha":                     false,
		"node.role == engine":                        false,
		"node.os == linux":                           true,
		"node.arch in (amd64, arm64)":                true,
		"node.arch in (amd64)":                       false,
		"node.labels.disk == ssd":                    true,
		"node.labels.none == x":                      false,
		"node.labels.none != x":                      true,
		"node.labels.cores >= 16":                    true,
		"node.labels.cores >= 16.5":                  false,
		"node.labels.zone >= 1":                      false,
		"node.labels.zone == us or node.os == linux": true,
		"node.labels.zone == us or node.os == bsd":   false,
	} {
		c, err := spec.ParseConstraint(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
		} else if c.Holds(n) != want {
			t.Errorf("%s: %v", text, !want)
		}
	}
	for text, want := range map[string]string{
		"":                      "expected `key == value`",
		"node.os":               "expected `key == value`",
		"zone == a":             `"zone" is none of node.id`,
		"node.labels. == a":     `"node.labels." is none of`,
		"node.os ==":            "there is no value after ==",
		"node.labels.n >= many": "`>=` wants a number",
		"node.os in linux":      "`in` wants a list in parentheses",
		"node.os in ()":         "`in` wants values between its commas",
		"node.os == a or ":      "expected `key == value`",
	} {
		if _, err := spec.ParseConstraint(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

func web() *api.ServiceSpec {
	return &api.ServiceSpec{Name: "web", Mode: "replicated", Replicas: 1, Task: &api.TaskSpec{Runtime: "docker", Image: "web:1"}, Origin: "p.star:3:1"}
}

func TestValidate(t *testing.T) {
	with := func(change func(*api.StackSpec, *api.ServiceSpec)) *api.StackSpec {
		svc := web()
		s := &api.StackSpec{Name: "shop", Services: []*api.ServiceSpec{svc}}
		change(s, svc)
		return s
	}
	other := func(name string, depends ...string) *api.ServiceSpec {
		svc := web()
		svc.Name = name
		for _, d := range depends {
			svc.DependsOn = append(svc.DependsOn, &api.Dependency{Service: d, Condition: "ready"})
		}
		return svc
	}
	if err := spec.Validate(with(func(*api.StackSpec, *api.ServiceSpec) {})); err != nil {
		t.Fatal(err)
	}
	for want, s := range map[string]*api.StackSpec{
		`stack name "Shop"`: with(func(s *api.StackSpec, _ *api.ServiceSpec) { s.Name = "Shop" }),
		`service name "-"`:  with(func(_ *api.StackSpec, w *api.ServiceSpec) { w.Name = "-" }),
		"p.star:3:1: service \"web\" is declared twice":  with(func(s *api.StackSpec, w *api.ServiceSpec) { s.Services = append(s.Services, web()) }),
		`mode is "", not one of replicated, global, job`: with(func(_ *api.StackSpec, w *api.ServiceSpec) { w.Mode = "" }),
		`replicas is -1, less than 0`:                    with(func(_ *api.StackSpec, w *api.ServiceSpec) { w.Replicas = -1 }),
		`a job policy goes with mode "job"`:              with(func(_ *api.StackSpec, w *api.ServiceSpec) { w.Mode = "job" }),
		`has no task`:                                    with(func(_ *api.StackSpec, w *api.ServiceSpec) { w.Task = nil }),
		`needs an image`:                                 with(func(_ *api.StackSpec, w *api.ServiceSpec) { w.Task.Image = "" }),
		`needs a command`:                                with(func(_ *api.StackSpec, w *api.ServiceSpec) { w.Task.Runtime = "process" }),
		`runtime is "vm"`:                                with(func(_ *api.StackSpec, w *api.ServiceSpec) { w.Task.Runtime = "vm" }),
		`network "n" is not in the stack`:                with(func(_ *api.StackSpec, w *api.ServiceSpec) { w.Task.Networks = []string{"n"} }),
		`volume "v" is not in the stack`: with(func(_ *api.StackSpec, w *api.ServiceSpec) {
			w.Task.Mounts = []*api.Mount{{Type: "volume", Source: "v"}}
		}),
		`secret "s" is not in the stack`:       with(func(_ *api.StackSpec, w *api.ServiceSpec) { w.Task.Secrets = []*api.FileRef{{Name: "s"}} }),
		`config "c" is not in the stack`:       with(func(_ *api.StackSpec, w *api.ServiceSpec) { w.Task.Configs = []*api.FileRef{{Name: "c"}} }),
		`reschedule_after is -1s, less than 0`: with(func(_ *api.StackSpec, w *api.ServiceSpec) { w.RescheduleAfter = durationpb.New(-time.Second) }),
		`constraint "zone": expected`: with(func(_ *api.StackSpec, w *api.ServiceSpec) {
			w.Placement = &api.Placement{Constraints: []string{"zone"}}
		}),
		`spread "zone" is not a node key`:            with(func(_ *api.StackSpec, w *api.ServiceSpec) { w.Placement = &api.Placement{Spread: []string{"zone"}} }),
		`depends on "db", which is not in the stack`: with(func(_ *api.StackSpec, w *api.ServiceSpec) { w.DependsOn = other("x", "db").DependsOn }),
		`services wait for one another: web -> web`:  with(func(_ *api.StackSpec, w *api.ServiceSpec) { w.DependsOn = other("x", "web").DependsOn }),
		`services wait for one another: api -> db -> web -> api`: with(func(s *api.StackSpec, w *api.ServiceSpec) {
			w.DependsOn = other("x", "api").DependsOn
			s.Services = append(s.Services, other("api", "db"), other("db", "web"))
		}),
		`waits until "db" is done, but that is no job`: with(func(s *api.StackSpec, w *api.ServiceSpec) {
			s.Services = append(s.Services, other("db"))
			w.DependsOn = []*api.Dependency{{Service: "db", Condition: "done"}}
		}),
		`condition is "up"`: with(func(s *api.StackSpec, w *api.ServiceSpec) {
			s.Services = append(s.Services, other("db"))
			w.DependsOn = []*api.Dependency{{Service: "db", Condition: "up"}}
		}),
		`service "b" publishes port 80/tcp, which service "web" publishes already`: with(func(s *api.StackSpec, w *api.ServiceSpec) {
			b := other("b")
			w.Ports = []*api.PortSpec{{Target: 1, Publish: 80, HostIp: "127.0.0.1"}}
			b.Ports = []*api.PortSpec{{Target: 1, Publish: 80}}
			s.Services = append(s.Services, b)
		}),
		`service "c" publishes port 80/tcp, which service "b" publishes already`: with(func(s *api.StackSpec, w *api.ServiceSpec) {
			w.Ports = []*api.PortSpec{{Target: 1, Publish: 80, HostIp: "127.0.0.1"}}
			for name, ip := range map[string]string{"b": "10.0.0.1"} {
				b, c := other(name), other("c")
				b.Ports = []*api.PortSpec{{Target: 1, Publish: 80, HostIp: ip}}
				c.Ports = []*api.PortSpec{{Target: 1, Publish: 80, HostIp: ip}}
				s.Services = append(s.Services, b, c)
			}
		}),
	} {
		if err := spec.Validate(s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	for name, s := range map[string]*api.StackSpec{
		"two addresses": with(func(s *api.StackSpec, w *api.ServiceSpec) {
			w.Ports = []*api.PortSpec{{Target: 1, Publish: 80, HostIp: "127.0.0.1"}, {Target: 1, Publish: 80, HostIp: "127.0.0.2"}}
		}),
		"two protocols": with(func(s *api.StackSpec, w *api.ServiceSpec) {
			w.Ports = []*api.PortSpec{{Target: 1, Publish: 80, Protocol: "udp"}, {Target: 1, Publish: 80}}
		}),
	} {
		if err := spec.Validate(s); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestHash(t *testing.T) {
	base := web().Task
	same := func(why string, change func(*api.TaskSpec)) {
		t.Helper()
		c := proto.CloneOf(base)
		change(c)
		if spec.Hash(c) != spec.Hash(base) || len(spec.Diff(base, c)) > 0 {
			t.Errorf("%s changes the hash or the diff: %v", why, spec.Diff(base, c))
		}
	}
	same("an origin", func(s *api.TaskSpec) { s.Resources = &api.Resources{Origin: "x:1:1"} })
	same("an empty message", func(s *api.TaskSpec) { s.Log = &api.LogPolicy{} })
	same("an empty list and map", func(s *api.TaskSpec) { s.Command, s.Env = []string{}, map[string]string{} })
	for why, change := range map[string]func(*api.TaskSpec){
		"a duration of zero": func(s *api.TaskSpec) { s.StopGrace = durationpb.New(0) },
		"an empty value":     func(s *api.TaskSpec) { s.Env = map[string]string{"A": ""} },
		"an empty argument":  func(s *api.TaskSpec) { s.Command = []string{""} },
		"a generation":       func(s *api.TaskSpec) { s.Generation = 1 },
	} {
		c := proto.CloneOf(base)
		change(c)
		if spec.Hash(c) == spec.Hash(base) || len(spec.Diff(base, c)) != 1 {
			t.Errorf("%s: hash or diff doesn't see it: %v", why, spec.Diff(base, c))
		}
	}
	// Stored versions must not change: an upgrade of orch restarts nothing.
	if got := spec.Version(base); got != "d15a24ef7e74" {
		t.Errorf("version of the base is %s", got)
	}
}

func TestOrderOfSetsDoesNotMatter(t *testing.T) {
	a, b := &api.StackSpec{Name: "s", Services: []*api.ServiceSpec{web()}}, &api.StackSpec{Name: "s", Services: []*api.ServiceSpec{web()}}
	a.Services[0].Task.Mounts = []*api.Mount{{Target: "/a"}, {Target: "/b"}}
	b.Services[0].Task.Mounts = []*api.Mount{{Target: "/b"}, {Target: "/a"}}
	spec.Normalize(a)
	spec.Normalize(b)
	if spec.Version(a.Services[0].Task) != spec.Version(b.Services[0].Task) {
		t.Error("the order of mounts changes the version")
	}
}

// TestDiffAndHashAgree: nothing differs from itself, and for what isn't a
// reordered list a change shows in both or in neither.
func TestDiffAndHashAgree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := &api.ServiceSpec{}
		script.Random(t, a, 3)
		b := proto.CloneOf(a)
		if d := spec.Diff(a, b); len(d) > 0 {
			t.Fatalf("differs from itself: %v", d)
		}
		if spec.Hash(a) != spec.Hash(b) {
			t.Fatal("two hashes of one message")
		}
		fields := b.ProtoReflect().Descriptor().Fields()
		f := fields.Get(rapid.IntRange(0, fields.Len()-1).Draw(t, "field"))
		other := &api.ServiceSpec{}
		script.Random(t, other, 3)
		if other.ProtoReflect().Has(f) {
			b.ProtoReflect().Set(f, other.ProtoReflect().Get(f))
		} else {
			b.ProtoReflect().Clear(f)
		}
		d := spec.Diff(a, b)
		for _, c := range d {
			if c.Path != string(f.Name()) && !strings.HasPrefix(c.Path, string(f.Name())+".") && !strings.HasPrefix(c.Path, string(f.Name())+"[") {
				t.Fatalf("%s changed, reported is %s", f.Name(), c.Path)
			}
		}
		if len(d) > 0 && spec.Hash(a) == spec.Hash(b) {
			t.Fatalf("the hash doesn't see %v", d)
		}
		if len(d) == 0 && spec.Hash(a) != spec.Hash(b) && !keyed(f) {
			t.Fatalf("the diff doesn't see a change of %s: %v -> %v", f.Name(), a.ProtoReflect().Get(f), b.ProtoReflect().Get(f))
		}
	})
}

// keyed says that a list of messages is, or may be, below f.
func keyed(f protoreflect.FieldDescriptor) bool {
	return f.Kind() == protoreflect.MessageKind && (f.IsList() || f.Name() == "task")
}

func TestDiffNamesEachElement(t *testing.T) {
	a, b := web(), web()
	a.Ports = []*api.PortSpec{{Target: 80, Publish: 80}, {Target: 80, Publish: 8080}, {Target: 53, Protocol: "udp"}}
	b.Ports = []*api.PortSpec{{Target: 80, Publish: 80}, {Target: 80, Publish: 9090, Origin: "p.star:7:2"}}
	b.Task.Env = map[string]string{"A": "1"}
	b.Update = &api.RolloutPolicy{Order: "stop-first"}
	var got []string
	for _, c := range spec.Diff(a, b) {
		got = append(got, c.Path+": "+c.Old+" -> "+c.New+" at "+c.Origin)
	}
	want := `task.env[A]:  -> "1" at p.star:3:1
ports[80#2].publish: 8080 -> 9090 at p.star:7:2
ports[53/udp]: {"protocol":"udp","target":53} ->  at p.star:3:1
update:  -> {"order":"stop-first"} at p.star:3:1`
	if s := strings.Join(got, "\n"); s != want {
		t.Errorf("got\n%s\nwant\n%s", s, want)
	}
}

func TestChanges(t *testing.T) {
	stack := func(services ...*api.ServiceSpec) *api.StackSpec {
		return &api.StackSpec{Name: "s", Services: services}
	}
	more, newer := web(), web()
	more.Replicas = 3
	newer.Task.Image = "web:2"
	policy := web()
	policy.Update = &api.RolloutPolicy{Parallelism: "2"}
	later := web()
	later.RescheduleAfter = durationpb.New(time.Minute)
	for _, c := range []struct {
		old, new *api.StackSpec
		want     string
	}{
		{nil, stack(web()), "create service web start"},
		{stack(web()), stack(web()), ""},
		{stack(web()), stack(more), "update service web start"},
		{stack(more), stack(web()), "update service web stop"},
		{stack(web()), stack(newer), "update service web rollout"},
		{stack(web()), stack(policy), "update service web in-place"},
		{stack(web()), stack(later), "update service web in-place"},
		{stack(web()), stack(), "delete service web stop"},
	} {
		var got []string
		for _, x := range spec.Changes(c.old, c.new) {
			got = append(got, x.Action+" "+x.Kind+" "+x.Name+" "+x.Effect)
		}
		if s := strings.Join(got, ", "); s != c.want {
			t.Errorf("got %q, want %q", s, c.want)
		}
	}
}

func BenchmarkHash(b *testing.B) {
	s := bench()
	for b.Loop() {
		spec.Hash(s.Task)
	}
}

func BenchmarkDiff(b *testing.B) {
	x, y := bench(), bench()
	y.Task.Image = "other"
	for b.Loop() {
		spec.Diff(x, y)
	}
}

func bench() *api.ServiceSpec {
	s := web()
	s.Task.Env = map[string]string{"A": "1", "B": "2", "C": "3", "D": "4"}
	s.Task.Command = []string{"run", "--port", "80"}
	s.Task.Resources = &api.Resources{CpusMilli: 500, Memory: 1 << 28}
	s.Task.Health = &api.HealthCheck{Type: "http", HttpPath: "/", Port: 80}
	s.Ports = []*api.PortSpec{{Target: 80, Publish: 80}}
	return s
}
