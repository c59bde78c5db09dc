package builtins

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"go.starlark.net/starlark"
	"go.starlark.net/syntax"
	"google.golang.org/protobuf/proto"

	"orch/engine/api"
	"orch/engine/spec"
)

func servicesKind(kind string) Kind {
	return list(Kind{Name: kind, Stub: kind + "_", read: func(v starlark.Value) (any, error) {
		if s, ok := v.(*Service); ok && s.Type() == kind {
			return s, nil
		} else if ok {
			return nil, wrongHint("a "+kind, v, "put it into "+s.Type()+"s")
		}
		return nil, wrong("a "+kind, v)
	}})
}

var stackFunc = &Func{
	Name:    "stack",
	Doc:     "Declares what the playbook is for: a playbook calls it exactly once. Networks, volumes, secrets and configs come along with the services that use them.",
	Returns: "stack",
	Params: []Param{
		{Name: "name", Kind: textKind, Position: true, Doc: "Name in the cluster: a-z, 0-9 and -, at most 63."},
		{Name: "services", Kind: servicesKind("service"), Default: "[]", Doc: "From service()."},
		{Name: "jobs", Kind: servicesKind("job"), Default: "[]", Doc: "From job()."},
		{Name: "on_failure", Kind: choice("rollback", "pause", "continue"), Default: `"rollback"`, Doc: "What becomes of the release when the rollout of one service fails. rollback: all that the release changed is taken back, in reverse order. pause: what hasn't begun doesn't, and waits for an operator. continue: the rest goes on."},
		{Name: "max_parallel", Kind: countKind, Default: "0", Doc: "Services rolled out at once; 0 means no limit."},
		{Name: "labels", Kind: dict(scalarKind), Default: "{}", Doc: "Labels of the stack."},
	},
	Elsewhere: map[string]string{"networks": "networks come along with the services on them", "volumes": "volumes come along with the services that mount them",
		"secrets": "secrets come along with the services that use them", "configs": "configs come along with the services that use them"},
	Example: `stack("tick", services = [influxdb, telegraf, chronograf])`,
	build: func(c *call) (starlark.Value, error) {
		name := c.str("name")
		if c.run.Replays {
			c.errorf("", "a strategy can't declare a stack: that is the playbook's")
			return c.made("stack", name, nil, nil), nil
		}
		if c.run.Spec != nil {
			c.errorf("", "a playbook has exactly one stack; the first is at %s", c.run.stackAt)
			return c.made("stack", name, nil, nil), nil
		}
		if c.has("name") && !validServiceName(name) {
			c.errorf("name", "name %q: use 1 to 63 of a-z, 0-9 and -, with a letter or digit at both ends", name)
		}
		c.run.stackAt = c.at
		b := &stackBuilder{call: c, from: map[string]*Value{}, spec: &api.StackSpec{Name: name, OnFailure: c.str("on_failure"),
			MaxParallel: int32(c.int("max_parallel")), Labels: c.dict("labels"), Origin: c.origin()}}
		b.build()
		c.run.Spec = b.spec
		return c.made("stack", name, b.spec, nil), nil
	},
}

// stackBuilder collects what a stack reaches.
type stackBuilder struct {
	*call
	spec     *api.StackSpec
	services map[string]*Service
	from     map[string]*Value // "kind name" -> the value it came from
	bad      bool              // a service is, so that what follows might not be its own fault
}

func (b *stackBuilder) build() {
	all := append(append([]any(nil), get[[]any](b.call, "services")...), get[[]any](b.call, "jobs")...)
	b.services = make(map[string]*Service, len(all))
	for _, x := range all {
		s := x.(*Service)
		b.run.reach(s)
		b.bad = b.bad || s.bad
		if other := b.services[s.spec.Name]; other == s {
			b.errorf("", "%s %q is listed twice", s.Type(), s.spec.Name)
			continue
		} else if other != nil {
			b.report(s.call.at, "%s %q: that name is taken by the one at %s", s.Type(), s.spec.Name, other.call.at)
			continue
		}
		b.services[s.spec.Name] = s
		b.spec.Services = append(b.spec.Services, s.spec)
	}
	for _, sp := range b.spec.Services {
		b.service(b.services[sp.Name])
	}
	b.onDemand()
	spec.Normalize(b.spec)
	if b.bad || b.call.bad {
		return
	}
	var joined interface{ Unwrap() []error }
	if err := spec.Validate(b.spec); errors.As(err, &joined) {
		for _, err := range joined.Unwrap() {
			var p spec.Problem
			if errors.As(err, &p) {
				b.report(positionOf(p.Origin, b.at), "%s", p.Text)
			}
		}
	}
}

// onDemand makes the jobs that rollouts run first or last run at no other time.
func (b *stackBuilder) onDemand() {
	for _, s := range b.spec.Services {
		for _, name := range slices.Concat(s.GetUpdate().GetBefore(), s.GetUpdate().GetAfter()) {
			if j := b.services[name]; j != nil && j.isJob() {
				j.spec.Job.OnDemand = true
			}
		}
	}
}

// service collects what s uses and checks its urls.
func (b *stackBuilder) service(s *Service) {
	c := s.call
	for _, v := range c.keptValues("networks") {
		if s.spec.Task.Runtime == "process" {
			b.run.reach(v) // a process has its host's network
			continue
		}
		b.collect(v, v.spec.(*api.NetworkSpec))
	}
	if n := s.spec.Task.Networks; len(n) == 1 && n[0] == "default" && c.keptValues("networks") == nil && b.from["network default"] == nil {
		b.from["network default"] = &Value{kind: "network", name: "default", at: b.at}
		b.spec.Networks = append(b.spec.Networks, &api.NetworkSpec{Name: "default", Encrypted: true, Origin: b.origin()})
	}
	for _, v := range c.keptValues("mounts") {
		if vol, ok := v.of.(*Value); ok {
			b.collect(vol, vol.spec.(*api.VolumeSpec))
		}
	}
	for _, v := range c.keptValues("secrets") {
		b.collect(v, v.spec.(*content).spec.(*api.SecretSpec))
	}
	for _, v := range c.keptValues("configs") {
		cfg := v.spec.(*content).spec.(*api.ConfigSpec)
		b.collect(v, cfg)
		b.urls(s, v.at, fmt.Sprintf("config %q", cfg.Name), string(cfg.Content))
	}
	for k, text := range s.spec.Task.Env {
		if strings.Contains(text, "${orch:") {
			b.urls(s, c.at, fmt.Sprintf("env[%q]", k), text)
		}
	}
}

// collect takes an object into the stack, once.
func (b *stackBuilder) collect(v *Value, m proto.Message) {
	b.run.reach(v)
	key := v.kind + " " + v.name
	if other := b.from[key]; other == v {
		return
	} else if other != nil {
		if !sameSpec(other.message(), m) {
			b.report(v.at, "%s %q is declared differently at %s", v.kind, v.name, other.at)
		}
		return
	}
	b.from[key] = v
	switch m := m.(type) {
	case *api.NetworkSpec:
		b.spec.Networks = append(b.spec.Networks, m)
	case *api.VolumeSpec:
		b.spec.Volumes = append(b.spec.Volumes, m)
	case *api.SecretSpec:
		b.spec.Secrets = append(b.spec.Secrets, m)
	case *api.ConfigSpec:
		b.spec.Configs = append(b.spec.Configs, m)
	}
}

func (v *Value) message() proto.Message {
	if c, ok := v.spec.(*content); ok {
		return c.spec.(proto.Message)
	}
	m, _ := v.spec.(proto.Message)
	return m
}

func sameSpec(a, b proto.Message) bool { return a != nil && b != nil && len(spec.Diff(a, b)) == 0 }

// urls checks that what s reads the address of is there and reachable.
func (b *stackBuilder) urls(s *Service, at syntax.Position, where, text string) {
	for _, u := range api.Urls(text) {
		target := b.services[u.Service]
		switch {
		case b.bad:
		case target == nil:
			b.report(at, "service %q: %s uses the address of %q, which is not in the stack", s.spec.Name, where, u.Service)
		case target.spec.Task.Runtime != s.spec.Task.Runtime && !slices.ContainsFunc(target.spec.Ports, func(p *api.PortSpec) bool { return int(p.Target) == u.Port }):
			b.report(at, "service %q runs with runtime %q and reaches %q, which runs with %q, only by ports that it declares (%s): give %q ports = [%d]",
				s.spec.Name, s.spec.Task.Runtime, u.Service, target.spec.Task.Runtime, where, u.Service, u.Port)
		}
	}
}

// report tells of an error that lies elsewhere than in the call.
func (b *stackBuilder) report(at syntax.Position, format string, args ...any) {
	b.call.bad = true
	b.run.report(Problem{Pos: at, Message: fmt.Sprintf(format, args...)})
}

// positionOf reads an origin, "file:line:col".
func positionOf(origin string, otherwise syntax.Position) syntax.Position {
	rest, col, ok := cutLast(origin)
	file, line, ok2 := cutLast(rest)
	l, err := strconv.Atoi(line)
	c, err2 := strconv.Atoi(col)
	if !ok || !ok2 || err != nil || err2 != nil {
		return otherwise
	}
	return syntax.MakePosition(&file, int32(l), int32(c))
}

func cutLast(s string) (before, after string, ok bool) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+1:], true
}
