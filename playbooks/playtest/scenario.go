package playtest

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.starlark.net/starlark"

	"orch/engine/api"
	"orch/engine/simulate"
	"orch/engine/spec"
)

// scenario reads what befalls tasks and nodes in a simulation.
type scenario struct {
	call  *call
	play  *simulate.Play
	fated []fated
}

// fated is one fate and whose it is.
type fated struct {
	service, slot string           // slot "": all of them
	version       simulate.Version // "": both
	always        bool             // also before the release
	apply         func(*simulate.Fate)
}

func (s *scenario) fates() error {
	start, err := s.call.named("start")
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(start)) {
		d, err := s.duration("start", name, start[name])
		if err != nil {
			return err
		}
		if d == nil {
			continue
		}
		if err := s.befall("start", name, true, func(f *simulate.Fate) { f.Start = *d }); err != nil {
			return err
		}
	}
	if err := s.each("unhealthy", func(name string, after *time.Duration) error {
		return s.befall("unhealthy", name, false, func(f *simulate.Fate) { f.Sick, f.Never = after, after == nil })
	}); err != nil {
		return err
	}
	if err := s.each("crash", func(name string, after *time.Duration) error {
		if node, ok := strings.CutPrefix(name, "node:"); ok {
			return s.nodeDown(node, after)
		}
		return s.befall("crash", name, false, func(f *simulate.Fate) {
			f.Crash, f.Early = after, after == nil
			if f.Early {
				f.Crash = new(time.Duration)
			}
		})
	}); err != nil {
		return err
	}
	if len(s.fated) > 0 {
		s.play.Fate = s.fate
	}
	return nil
}

// fate is that of a task.
func (s *scenario) fate(t *api.Task, is simulate.Version, fresh bool) (f simulate.Fate) {
	_, slot := spec.SplitServiceID(t.SlotId)
	_, service := spec.SplitServiceID(t.ServiceId)
	for _, x := range s.fated {
		if x.service == service && (x.slot == "" || x.slot == slot) && (x.version == "" || x.version == is) && (fresh || x.always) {
			x.apply(&f)
		}
	}
	return f
}

// each reads a list of names, or a dict of them with durations.
func (s *scenario) each(arg string, do func(name string, after *time.Duration) error) error {
	v, given := s.call.args[arg]
	if !given {
		return nil
	}
	if _, ok := v.(*starlark.Dict); ok {
		all, err := s.call.named(arg)
		if err != nil {
			return err
		}
		for _, name := range slices.Sorted(maps.Keys(all)) {
			after, err := s.duration(arg, name, all[name])
			if err != nil {
				return err
			}
			if err := do(name, after); err != nil {
				return err
			}
		}
		return nil
	}
	names, err := s.call.list(arg)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := do(name, nil); err != nil {
			return err
		}
	}
	return nil
}

func (s *scenario) duration(arg, name string, v starlark.Value) (*time.Duration, error) {
	if v == starlark.None {
		return nil, nil
	}
	text, ok := starlark.AsString(v)
	d, err := time.ParseDuration(text)
	if !ok || err != nil || d < 0 {
		return nil, s.call.errorf(arg, `must give %q a duration such as "20s", not %s`, name, show(v))
	}
	return &d, nil
}

// befall reads whose fate it is: "web@new", "web.2@old", or, where always,
// also "web".
func (s *scenario) befall(arg, target string, always bool, apply func(*simulate.Fate)) error {
	name, version, at := strings.Cut(target, "@")
	x := fated{service: name, version: simulate.Version(version), always: always, apply: apply}
	if i := strings.IndexByte(name, '.'); i >= 0 {
		x.service, x.slot = name[:i], name
	}
	if err := s.known(arg, x.service); err != nil {
		return err
	}
	old, new := simulate.VersionOf(s.play.Before.Spec, x.service), simulate.VersionOf(s.play.After.Spec, x.service)
	switch {
	case !at && always:
	case x.version != simulate.OldVersion && x.version != simulate.NewVersion:
		return s.call.errorf(arg, `names %q: write "%s@new" or "%s@old"`, target, name, name)
	case old == new:
		return s.call.errorf(arg, "names %q, but service %q is the same in both releases; before = {...} can make it differ", target, x.service)
	case x.version == simulate.OldVersion && old == "" || x.version == simulate.NewVersion && new == "":
		return s.call.errorf(arg, "names %q, but the %s release has no service %q", target, map[simulate.Version]string{simulate.OldVersion: "older", simulate.NewVersion: "new"}[x.version], x.service)
	}
	if err := s.slot(arg, target, x); err != nil {
		return err
	}
	s.fated = append(s.fated, x)
	return nil
}

// slot refuses slots that neither the service nor a surge beside it can have.
func (s *scenario) slot(arg, target string, x fated) error {
	n, err := strconv.Atoi(strings.TrimPrefix(x.slot, x.service+"."))
	if err != nil {
		return nil // a global service's, or none in particular
	}
	most := int32(0)
	for _, of := range []*api.StackSpec{s.play.Before.Spec, s.play.After.Spec} {
		for _, svc := range of.Services {
			if svc.Name == x.service {
				most = max(most, svc.Replicas)
			}
		}
	}
	if n < 1 || n > 2*int(most) {
		return s.call.errorf(arg, "names %q, but service %q has only %d slots", target, x.service, most)
	}
	return nil
}

func (s *scenario) nodeDown(name string, after *time.Duration) error {
	var names []string
	for _, n := range s.play.Nodes {
		names = append(names, n.Name)
	}
	if !slices.Contains(names, name) {
		return hinted(fmt.Errorf("t.simulate: crash names node %q, which there isn't", name), name, names)
	}
	if s.play.Down == nil {
		s.play.Down = map[string]time.Duration{}
	}
	s.play.Down[name] = -1
	if after != nil {
		s.play.Down[name] = *after
	}
	return nil
}

// known refuses services that neither release has.
func (s *scenario) known(arg, service string) error {
	names := map[string]bool{}
	for _, of := range []*api.StackSpec{s.play.Before.Spec, s.play.After.Spec} {
		for _, svc := range of.Services {
			names[svc.Name] = true
		}
	}
	if names[service] {
		return nil
	}
	return hinted(fmt.Errorf("t.simulate: %s names service %q, which there isn't", arg, service), service, slices.Sorted(maps.Keys(names)))
}

// probes reads what probes answer.
func (s *scenario) probes() error {
	all, err := s.call.named("probes")
	if err != nil {
		return err
	}
	s.play.Probes = map[string][]bool{}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if err := s.known("probes", name); err != nil {
			return err
		}
		list, ok := all[name].(starlark.Iterable)
		if one, is := all[name].(starlark.Bool); is {
			list, ok = starlark.NewList([]starlark.Value{one}), true
		}
		if !ok {
			return s.call.errorf("probes", "must give %q a list of True and False, not %s", name, show(all[name]))
		}
		for v := range starlark.Elements(list) {
			answer, ok := v.(starlark.Bool)
			if !ok {
				return s.call.errorf("probes", "must give %q a list of True and False, not of %s", name, show(v))
			}
			s.play.Probes[name] = append(s.play.Probes[name], bool(answer))
		}
	}
	return nil
}
