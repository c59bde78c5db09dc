package script_test

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"orch/engine/api"
	"orch/engine/simulate"
)

// apply reads the whole stack, one service a line:
//
//	NAME xN|global|job key=value ...
//
// update reads the same, and leaves the services not named as they are.
func (s *session) apply(t *testing.T, d *datadriven.TestData) error {
	next := &api.StackSpec{Name: stack}
	if d.Cmd == "update" {
		next = proto.CloneOf(s.spec)
	}
	lines := strings.Split(strings.TrimSpace(d.Input), "\n")
	if d.Input == "" && len(d.CmdArgs) > 0 {
		words := strings.Fields(d.FullCmd())
		lines = []string{strings.Join(words[1:], " ")}
	}
	for _, line := range lines {
		if strings.TrimSpace(line) == "" {
			continue
		}
		name, args, err := datadriven.ParseLine(line)
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(next.Services, func(x *api.ServiceSpec) bool { return x.Name == name })
		var svc *api.ServiceSpec
		if i < 0 {
			svc = &api.ServiceSpec{Name: name, Mode: "replicated", Replicas: 1, Task: &api.TaskSpec{Runtime: "docker", Image: "v1"}}
			next.Services = append(next.Services, svc)
		} else {
			svc = proto.CloneOf(next.Services[i])
			next.Services[i] = svc
		}
		for _, a := range args {
			if a.Key == "gone" {
				next.Services = slices.DeleteFunc(next.Services, func(x *api.ServiceSpec) bool { return x.Name == name })
			}
			s.field(t, next, svc, a)
		}
		if svc.Update == nil {
			svc.Update = &api.RolloutPolicy{}
		}
		if svc.Update.Monitor == nil {
			svc.Update.Monitor = durationpb.New(0)
		}
	}
	r, err := s.ApplySource(simulate.Source{Spec: next, Bundle: s.bundle}, "run")
	if err != nil {
		return err
	}
	_ = r
	s.spec = next
	return nil
}

func (s *session) field(t *testing.T, stack *api.StackSpec, svc *api.ServiceSpec, a datadriven.CmdArg) {
	v := strings.Join(a.Vals, ", ")
	if n, ok := strings.CutPrefix(a.Key, "x"); ok && a.Vals == nil {
		replicas, err := strconv.Atoi(n)
		if err != nil {
			t.Fatal(err)
		}
		svc.Mode, svc.Replicas, svc.Job = "replicated", int32(replicas), nil
		return
	}
	update := func() *api.RolloutPolicy {
		if svc.Update == nil {
			svc.Update = &api.RolloutPolicy{}
		}
		return svc.Update
	}
	rollback := func() *api.RolloutPolicy {
		if svc.Rollback == nil {
			svc.Rollback = &api.RolloutPolicy{}
		}
		return svc.Rollback
	}
	restart := func() *api.RestartPolicy {
		if svc.Restart == nil {
			svc.Restart = &api.RestartPolicy{}
		}
		return svc.Restart
	}
	place := func() *api.Placement {
		if svc.Placement == nil {
			svc.Placement = &api.Placement{}
		}
		return svc.Placement
	}
	resources := func() *api.Resources {
		if svc.Task.Resources == nil {
			svc.Task.Resources = &api.Resources{}
		}
		return svc.Task.Resources
	}
	whole := func() int32 { return int32(number(t, v)) }
	d := func() *durationpb.Duration { return durationpb.New(duration(t, v)) }
	switch a.Key {
	case "gone":
	case "global":
		svc.Mode, svc.Job = "global", nil
	case "job":
		svc.Mode, svc.Job = "job", &api.JobPolicy{Completions: 1, Parallelism: 1}
	case "completions":
		svc.Job.Completions = whole()
	case "at-once":
		svc.Job.Parallelism = whole()
	case "retries":
		svc.Job.Retries = whole()
	case "timeout":
		svc.Job.Timeout = d()
	case "schedule":
		svc.Job.Schedule = strings.Join(a.Vals, " ")
	case "image":
		svc.Task.Image = v
	case "runtime":
		svc.Task.Runtime = v
		svc.Task.Command = []string{"run"}
	case "start_period":
		svc.Task.Health = &api.HealthCheck{Type: "tcp", StartPeriod: d()}
	case "cpus":
		resources().CpusMilli = int64(number(t, v) * 1000)
	case "memory":
		resources().Memory = int64(number(t, v)) << 20
	case "port":
		svc.Task.HostPorts = []*api.HostPort{{Port: uint32(number(t, v)), Target: 80, Protocol: "tcp"}}
	case "publish":
		svc.Ports = []*api.PortSpec{{Target: 80, Publish: uint32(number(t, v)), Protocol: "tcp", Mode: "ingress"}}
	case "drain":
		svc.Task.Drain = d()
	case "volume":
		svc.Task.Mounts = []*api.Mount{{Type: "volume", Source: v, Target: "/data"}}
		if !slices.ContainsFunc(stack.Volumes, func(x *api.VolumeSpec) bool { return x.Name == v }) {
			stack.Volumes = append(stack.Volumes, &api.VolumeSpec{Name: v})
		}
	case "depends":
		svc.DependsOn = nil
		for _, dep := range a.Vals {
			parts := strings.Split(dep, ":")
			on := &api.Dependency{Service: parts[0], Condition: parts[1]}
			if len(parts) > 2 {
				on.Timeout = durationpb.New(duration(t, parts[2]))
			}
			svc.DependsOn = append(svc.DependsOn, on)
		}
	case "parallelism":
		update().Parallelism = v
	case "order":
		update().Order = v
	case "delay":
		update().Delay = d()
	case "monitor":
		update().Monitor = d()
	case "ratio":
		update().MaxFailureRatio = number(t, v)
	case "on_failure":
		update().OnFailure = v
	case "min_available":
		update().MinAvailable = v
	case "max_surge":
		update().MaxSurge = v
	case "deadline":
		update().Deadline = d()
	case "supersede":
		update().Supersede = v
	case "before":
		update().Before = a.Vals
	case "after":
		update().After = a.Vals
	case "strategy":
		if !strings.Contains(v, ":") {
			v = "@orch//rollout.star:" + v
		}
		update().Strategy, update().ParamsJson = v, "{}"
	case "on-demand":
		svc.Job.OnDemand = true
	case "label":
		svc.Labels = map[string]string{"label": v}
	case "config":
		svc.Task.Configs = []*api.FileRef{{Name: "settings", Path: "/settings", Digest: v}}
		stack.Configs = []*api.ConfigSpec{{Name: "settings", Content: []byte(v), Digest: v}}
	case "stack.on_failure":
		stack.OnFailure = v
	case "max_parallel":
		stack.MaxParallel = whole()
	case "rollback.parallelism":
		rollback().Parallelism = v
	case "rollback.order":
		rollback().Order = v
	case "rollback.delay":
		rollback().Delay = d()
	case "rollback.monitor":
		rollback().Monitor = d()
	case "rollback.on_failure":
		rollback().OnFailure = v
	case "restart":
		restart().Condition = v
	case "restart.delay":
		restart().Delay = d()
	case "restart.max_delay":
		restart().MaxDelay = d()
	case "max_attempts":
		restart().MaxAttempts = whole()
	case "window":
		restart().Window = d()
	case "constraint":
		place().Constraints = a.Vals
	case "spread":
		place().Spread = a.Vals
	case "reschedule_after":
		svc.RescheduleAfter = d()
	case "max_per_node":
		place().MaxPerNode = whole()
	default:
		if name, ok := strings.CutPrefix(a.Key, "p."); ok {
			update().ParamsJson = param(update().ParamsJson, name, a.Vals)
			return
		}
		t.Fatalf("unknown field %q", a.Key)
	}
}

// param adds a strategy's parameter: numbers and booleans are read as such,
// several values are a list.
func param(params, name string, vals []string) string {
	all := map[string]any{}
	_ = json.Unmarshal([]byte(params), &all) // of our own making
	read := func(text string) any {
		var x any
		if json.Unmarshal([]byte(text), &x) == nil {
			return x
		}
		return text
	}
	if all[name] = read(vals[0]); len(vals) > 1 {
		list := make([]any, len(vals))
		for i, v := range vals {
			list[i] = read(v)
		}
		all[name] = list
	}
	out, _ := json.Marshal(all)
	return string(out)
}
