package spec

import (
	"strings"

	"google.golang.org/protobuf/proto"

	"orch/engine/api"
)

// Changes says what going from old (nil: nothing runs) to new would change,
// objects in the order: stack, services and jobs, networks, volumes,
// secrets, configs; within a kind by name. effect is "rollout" where tasks
// are replaced, "start" and "stop" where they come and go, "in-place" where
// nothing restarts.
func Changes(old, new *api.StackSpec) []*api.Change {
	if old == nil {
		old = &api.StackSpec{}
	}
	var all []*api.Change
	if fields := Diff(stackOnly(old), stackOnly(new)); len(fields) > 0 && old.Name != "" {
		all = append(all, &api.Change{Action: "update", Kind: "stack", Name: new.Name, Effect: "in-place", Origin: new.Origin, Fields: fields})
	}
	all = append(all, compare(old.Services, new.Services, kindOf, serviceEffect)...)
	all = append(all, compare(old.Networks, new.Networks, kind[*api.NetworkSpec]("network"), nil)...)
	all = append(all, compare(old.Volumes, new.Volumes, kind[*api.VolumeSpec]("volume"), nil)...)
	all = append(all, compare(old.Secrets, new.Secrets, kind[*api.SecretSpec]("secret"), nil)...)
	all = append(all, compare(old.Configs, new.Configs, kind[*api.ConfigSpec]("config"), nil)...)
	return all
}

type object interface {
	proto.Message
	GetName() string
	GetOrigin() string
}

func compare[T object](old, new []T, kind func(T) string, effect func(old, new T) string) []*api.Change {
	was := map[string]T{}
	for _, o := range old {
		was[o.GetName()] = o
	}
	is := map[string]bool{}
	var all []*api.Change
	for _, n := range new {
		is[n.GetName()] = true
		c := &api.Change{Action: "create", Kind: kind(n), Name: n.GetName(), Origin: n.GetOrigin(), Effect: "none"}
		o, ok := was[n.GetName()]
		if ok {
			c.Action = "update"
			if c.Fields = Diff(o, n); len(c.Fields) == 0 {
				continue
			}
		}
		if effect != nil {
			c.Effect = effect(o, n)
		}
		all = append(all, c)
	}
	for _, o := range old {
		if !is[o.GetName()] {
			c := &api.Change{Action: "delete", Kind: kind(o), Name: o.GetName(), Origin: o.GetOrigin(), Effect: "none"}
			if effect != nil {
				c.Effect = "stop"
			}
			all = append(all, c)
		}
	}
	return all
}

func kind[T any](name string) func(T) string { return func(T) string { return name } }

func kindOf(s *api.ServiceSpec) string {
	if s.Mode == "job" {
		return "job"
	}
	return "service"
}

func serviceEffect(old, new *api.ServiceSpec) string {
	switch {
	case old == nil:
		return "start"
	case Version(old.Task) != Version(new.Task) || old.Mode != new.Mode:
		return "rollout"
	case new.Mode == "replicated" && new.Replicas > old.Replicas:
		return "start"
	case new.Mode == "replicated" && new.Replicas < old.Replicas:
		return "stop"
	}
	return "in-place"
}

func stackOnly(s *api.StackSpec) *api.StackSpec {
	return &api.StackSpec{Name: s.Name, OnFailure: s.OnFailure, MaxParallel: s.MaxParallel, Labels: s.Labels}
}

// ServiceID is the cluster-wide name of a service.
func ServiceID(stack, service string) string { return stack + "/" + service }

// SplitServiceID is the inverse of ServiceID.
func SplitServiceID(id string) (stack, service string) {
	stack, service, _ = strings.Cut(id, "/")
	return stack, service
}
