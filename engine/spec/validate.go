package spec

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"sort"
	"strings"

	"orch/engine/api"
)

// Problem is one thing wrong with a specification, and where it was written.
type Problem struct{ Origin, Text string }

func (p Problem) Error() string {
	if p.Origin == "" {
		return p.Text
	}
	return p.Origin + ": " + p.Text
}

var validName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// Normalize sorts what has a name by it, and the sets within tasks, so that
// order in the playbook doesn't matter to hashes and diffs.
func Normalize(s *api.StackSpec) {
	slices.SortFunc(s.Services, byName[*api.ServiceSpec])
	slices.SortFunc(s.Networks, byName[*api.NetworkSpec])
	slices.SortFunc(s.Volumes, byName[*api.VolumeSpec])
	slices.SortFunc(s.Secrets, byName[*api.SecretSpec])
	slices.SortFunc(s.Configs, byName[*api.ConfigSpec])
	for _, svc := range s.Services {
		t := svc.Task
		if t == nil {
			continue
		}
		slices.SortStableFunc(t.Mounts, func(a, b *api.Mount) int { return strings.Compare(a.Target, b.Target) })
		for _, refs := range [][]*api.FileRef{t.Secrets, t.Configs} {
			slices.SortStableFunc(refs, func(a, b *api.FileRef) int {
				return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Path, b.Path))
			})
		}
		slices.SortStableFunc(t.HostPorts, func(a, b *api.HostPort) int {
			return cmp.Or(cmp.Compare(a.Port, b.Port), strings.Compare(a.Protocol, b.Protocol), strings.Compare(a.HostIp, b.HostIp))
		})
	}
}

func byName[T object](a, b T) int { return strings.Compare(a.GetName(), b.GetName()) }

// Validate reports all that makes s impossible to run, joined; nil if
// nothing does. The errors are Problems.
func Validate(s *api.StackSpec) error {
	v := validator{spec: s, services: map[string]*api.ServiceSpec{}}
	v.name("stack", s.Name, s.Origin)
	v.oneOf(s.Origin, "stack", s.Name, "on_failure", s.OnFailure, "", "rollback", "pause", "continue")
	for _, svc := range s.Services {
		if _, twice := v.services[svc.Name]; twice {
			v.problem(svc.Origin, "service %q is declared twice", svc.Name)
		}
		v.services[svc.Name] = svc
	}
	for _, svc := range s.Services {
		v.service(svc)
	}
	v.ports()
	v.cycles()
	return errors.Join(v.problems...)
}

type validator struct {
	spec     *api.StackSpec
	services map[string]*api.ServiceSpec
	problems []error
}

func (v *validator) problem(origin, format string, args ...any) {
	v.problems = append(v.problems, Problem{origin, fmt.Sprintf(format, args...)})
}

func (v *validator) name(kind, name, origin string) {
	if !validName.MatchString(name) {
		v.problem(origin, "%s name %q: use 1 to 63 of a-z, 0-9 and -, with a letter or digit at both ends", kind, name)
	}
}

func (v *validator) oneOf(origin, kind, name, field, value string, allowed ...string) {
	if !slices.Contains(allowed, value) {
		v.problem(origin, "%s %q: %s is %q, not one of %s", kind, name, field, value, strings.Join(slices.DeleteFunc(slices.Clone(allowed), func(s string) bool { return s == "" }), ", "))
	}
}

func (v *validator) service(s *api.ServiceSpec) {
	v.name("service", s.Name, s.Origin)
	v.oneOf(s.Origin, "service", s.Name, "mode", s.Mode, "replicated", "global", "job")
	if s.Replicas < 0 {
		v.problem(s.Origin, "service %q: replicas is %d, less than 0", s.Name, s.Replicas)
	}
	if (s.Mode == "job") != (s.Job != nil) {
		v.problem(s.Origin, "service %q: a job policy goes with mode \"job\" and only with it", s.Name)
	}
	if d := s.RescheduleAfter.AsDuration(); d < 0 {
		v.problem(s.Origin, "service %q: reschedule_after is %s, less than 0", s.Name, d)
	}
	t := s.Task
	if t == nil {
		v.problem(s.Origin, "service %q: has no task", s.Name)
		return
	}
	v.oneOf(s.Origin, "service", s.Name, "runtime", t.Runtime, "docker", "process")
	if t.Runtime == "docker" && t.Image == "" {
		v.problem(s.Origin, "service %q: runtime \"docker\" needs an image", s.Name)
	}
	if t.Runtime == "process" && len(t.Command)+len(t.Entrypoint) == 0 {
		v.problem(s.Origin, "service %q: runtime \"process\" needs a command", s.Name)
	}
	for _, n := range t.Networks {
		if !named(v.spec.Networks, n) {
			v.problem(s.Origin, "service %q: network %q is not in the stack", s.Name, n)
		}
	}
	for _, m := range t.Mounts {
		if m.Type == "volume" && !named(v.spec.Volumes, m.Source) {
			v.problem(firstOf(m.Origin, s.Origin), "service %q: volume %q is not in the stack", s.Name, m.Source)
		}
	}
	for _, r := range t.Secrets {
		if !named(v.spec.Secrets, r.Name) {
			v.problem(s.Origin, "service %q: secret %q is not in the stack", s.Name, r.Name)
		}
	}
	for _, r := range t.Configs {
		if !named(v.spec.Configs, r.Name) {
			v.problem(s.Origin, "service %q: config %q is not in the stack", s.Name, r.Name)
		}
	}
	if s.Placement != nil {
		for _, c := range s.Placement.Constraints {
			if _, err := ParseConstraint(c); err != nil {
				v.problem(s.Origin, "service %q: %v", s.Name, err)
			}
		}
		for _, c := range s.Placement.Spread {
			if !validKey(c) {
				v.problem(s.Origin, "service %q: spread %q is not a node key such as node.labels.zone", s.Name, c)
			}
		}
	}
	for _, d := range s.DependsOn {
		on, ok := v.services[d.Service]
		switch {
		case !ok:
			v.problem(firstOf(d.Origin, s.Origin), "service %q depends on %q, which is not in the stack", s.Name, d.Service)
		case d.Condition == "done" && on.Mode != "job":
			v.problem(firstOf(d.Origin, s.Origin), "service %q waits until %q is done, but that is no job", s.Name, d.Service)
		}
		if on.GetJob().GetOnDemand() {
			v.problem(firstOf(d.Origin, s.Origin), "service %q waits for job %q, which runs only when a rollout runs it: a rollout's own jobs need no depends_on", s.Name, d.Service)
		}
		v.oneOf(firstOf(d.Origin, s.Origin), "service", s.Name, "condition", d.Condition, "started", "ready", "done")
	}
	v.jobs(s, "before", s.GetUpdate().GetBefore())
	v.jobs(s, "after", s.GetUpdate().GetAfter())
	if s.GetJob().GetOnDemand() && s.Job.Schedule != "" {
		v.problem(s.Origin, "job %q has a schedule, but a rollout runs it: make two jobs of it", s.Name)
	}
}

// jobs checks those that a rollout of s runs.
func (v *validator) jobs(s *api.ServiceSpec, when string, names []string) {
	for _, name := range names {
		switch j, ok := v.services[name]; {
		case !ok:
			v.problem(firstOf(s.Update.Origin, s.Origin), "service %q: its rollout runs job %q (%s), which is not in the stack: put it into jobs", s.Name, name, when)
		case j.Mode != "job":
			v.problem(firstOf(s.Update.Origin, s.Origin), "service %q: its rollout runs %q (%s), which is no job", s.Name, name, when)
		}
	}
}

func named[T object](list []T, name string) bool {
	return slices.ContainsFunc(list, func(o T) bool { return o.GetName() == name })
}

// ports finds two services that publish one port.
func (v *validator) ports() {
	type address struct {
		port     uint32
		protocol string
	}
	type owner struct{ service, ip string }
	taken := map[address][]owner{}
	for _, s := range v.spec.Services {
		for _, p := range s.Ports {
			if p.Publish == 0 {
				continue
			}
			a := address{p.Publish, "tcp"}
			if p.Protocol == "udp" {
				a.protocol = "udp"
			}
			for _, o := range taken[a] {
				if p.HostIp == "" || o.ip == "" || p.HostIp == o.ip {
					v.problem(firstOf(p.Origin, s.Origin), "service %q publishes port %d/%s, which service %q publishes already", s.Name, a.port, a.protocol, o.service)
					break
				}
			}
			taken[a] = append(taken[a], owner{s.Name, p.HostIp})
		}
	}
}

// cycles finds dependencies that wait for one another.
func (v *validator) cycles() {
	const (
		visiting = 1
		done     = 2
	)
	mark := map[string]int{}
	var path []string
	var visit func(name string)
	visit = func(name string) {
		s := v.services[name]
		if s == nil || mark[name] == done {
			return
		}
		if mark[name] == visiting {
			i := slices.Index(path, name)
			v.problem(s.Origin, "services wait for one another: %s", strings.Join(append(slices.Clone(path[i:]), name), " -> "))
			return
		}
		mark[name] = visiting
		path = append(path, name)
		for _, d := range s.DependsOn {
			visit(d.Service)
		}
		path = path[:len(path)-1]
		mark[name] = done
	}
	names := make([]string, 0, len(v.services))
	for n := range v.services {
		names = append(names, n)
	}
	sort.Strings(names)
	for _, n := range names {
		visit(n)
	}
}
