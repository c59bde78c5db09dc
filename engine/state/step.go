package state

import (
	"slices"

	"google.golang.org/protobuf/proto"

	"orch/engine/api"
	"orch/engine/spec"
)

// order says which steps of a release come before which: a service follows
// those that it depends on, also through ones that don't change. What is new
// doesn't have to be through first: depends_on is more precise there, unless
// only so many may be under way.
func order(r *api.Release) {
	steps := map[string]*api.ReleaseStep{}
	for _, s := range r.Steps {
		steps[s.Service] = s
	}
	needs := map[string][]string{}
	for _, s := range r.Spec.Services {
		for _, d := range s.DependsOn {
			needs[s.Name] = append(needs[s.Name], d.Service)
		}
	}
	for _, step := range r.Steps {
		seen := map[string]bool{step.Service: true}
		var visit func(name string)
		visit = func(name string) {
			for _, on := range needs[name] {
				if seen[on] {
					continue
				}
				seen[on] = true
				other := steps[on]
				switch {
				case other == nil:
					visit(on)
				case other.Action == "change", step.Action == "create" && other.Action == "create" && r.Spec.MaxParallel == 0:
				default:
					step.After = append(step.After, on)
				}
			}
		}
		visit(step.Service)
		slices.Sort(step.After)
	}
}

// Startable lists the steps of a release that may begin now: those whose
// predecessors are done, no more at once than max_parallel. Services go last.
func Startable(r *api.Release) []*api.ReleaseStep {
	if r.Phase != "forward" || r.Outcome != "" {
		return nil
	}
	done, under, waiting, failed := map[string]bool{}, 0, 0, false
	for _, s := range r.Steps {
		switch {
		case s.State == "done" || s.Tolerated:
			done[s.Service] = true
		case s.State == "begun":
			under++
		case s.State == "failed":
			failed = true
		}
		if s.State != "done" && s.State != "failed" && s.Action != "remove" {
			waiting++
		}
	}
	if failed && r.Spec.OnFailure != "continue" {
		return nil
	}
	var all []*api.ReleaseStep
	for _, s := range r.Steps {
		switch {
		case s.State != "":
		case s.Action == "remove":
			if waiting == 0 && !failed {
				all = append(all, s)
			}
		case r.Spec.MaxParallel > 0 && under+len(all) >= int(r.Spec.MaxParallel):
		case !slices.ContainsFunc(s.After, func(on string) bool { return !done[on] }):
			all = append(all, s)
		}
	}
	return all
}

// Step is what a release does with a service; nil: nothing.
func Step(r *api.Release, service string) *api.ReleaseStep {
	for _, s := range r.GetSteps() {
		if s.Service == service {
			return s
		}
	}
	return nil
}

// Underway is the stack's release that is being carried out; nil: none is.
func (v View) Underway(stack string) *api.Release {
	all := v.Releases(stack)
	for i := len(all) - 1; i >= 0; i-- {
		if all[i].Outcome == "" && all[i].Phase != "queued" {
			return all[i]
		}
	}
	return nil
}

// changeRelease moves a release on. Where a newer one came, nothing happens.
func (w *writer) changeRelease(c *api.ReleaseChange) {
	old := w.Release(c.GetStack(), c.GetNumber())
	st := w.Stack(c.GetStack())
	if old == nil || st == nil || old.Outcome != "" {
		return
	}
	if old.Phase == "queued" {
		if c.Phase == "forward" && w.Underway(c.Stack) == nil {
			r := shallowRelease(old)
			r.Phase = "forward"
			versions := map[string]string{}
			for _, s := range r.Spec.Services {
				versions[s.Name] = spec.Version(s.Task)
			}
			w.beginRelease(proto.CloneOf(st), r, versions)
		}
		return
	}
	r := shallowRelease(old)
	for _, s := range c.Steps {
		i := slices.IndexFunc(r.Steps, func(o *api.ReleaseStep) bool { return o.Service == s.Service })
		if i < 0 || rank[s.State] <= rank[r.Steps[i].State] && !(s.State == r.Steps[i].State && s.Reason != r.Steps[i].Reason) {
			continue
		}
		was := r.Steps[i].State
		step := proto.CloneOf(r.Steps[i])
		step.State, step.Reason, step.Tolerated, step.Skipped = s.State, s.Reason, s.Tolerated, s.Skipped
		r.Steps[i] = step
		switch {
		case s.State == "begun" && step.Action == "remove" && was == "":
			if svc := w.Service(spec.ServiceID(r.Stack, step.Service)); svc != nil && !svc.Removed {
				w.removeService(svc)
			}
		case s.State == "restoring":
			w.restore(r, step)
		}
	}
	if c.Phase == "rollback" {
		r.Phase = c.Phase
	}
	if c.Reason != "" {
		r.Reason = c.Reason
	}
	w.put(releaseTable, r)
	if c.Outcome != "" {
		w.endRelease(r, c.Outcome, r.Reason)
	}
}

// rank orders the states of a step; they only advance.
var rank = map[string]int{"begun": 1, "done": 2, "failed": 3, "restoring": 4, "restored": 5}

// endRelease writes what a release came to. One that succeeded is what later
// ones go back to.
func (w *writer) endRelease(r *api.Release, outcome, reason string) {
	r = shallowRelease(r)
	r.Outcome, r.Reason, r.EndedAt = outcome, reason, w.now
	w.put(releaseTable, r)
	if outcome != "succeeded" && outcome != "failed" {
		return
	}
	for _, old := range w.ServicesOf(r.Stack) {
		ro := w.Rollout(old.RolloutId)
		if ro.GetRelease() == r.Number && ro.Outcome == "" && len(ro.Journal) == 0 {
			w.endRollout(old, "failed", "it never began: release "+itoa(r.Number)+" failed")
			continue
		}
		if old.Removed || ro != nil && ro.Outcome != "succeeded" && ro.Outcome != "superseded" && !(ro.Outcome == "rolled_back" && outcome == "succeeded") {
			continue
		}
		if outcome == "failed" && Step(r, old.Name).GetState() == "failed" {
			continue
		}
		if old.StableSpec == old.Spec && old.StableRelease == old.Release {
			continue
		}
		svc := shallowService(old)
		svc.StableSpec, svc.StableVersion, svc.StableRelease = svc.Spec, svc.Version, svc.Release
		w.put(serviceTable, svc)
	}
	if st := w.Stack(r.Stack); outcome == "succeeded" && st != nil {
		st = proto.CloneOf(st)
		st.StableRelease = r.Number
		w.put(stackTable, st)
	}
}

// restore takes back what a release did with a service.
func (w *writer) restore(r *api.Release, step *api.ReleaseStep) {
	old := w.Service(spec.ServiceID(r.Stack, step.Service))
	if old == nil {
		return
	}
	svc := shallowService(old)
	ro := w.Rollout(old.RolloutId)
	switch {
	case step.Action == "rollout" && ro != nil && ro.Release == r.Number:
		w.takeBack(ro, r.Reason)
		return
	case step.Action == "remove":
		svc.Removed, svc.UpdatedAt = false, w.now
	case old.StableSpec == nil:
		if !old.Removed {
			w.removeService(old)
		}
		return
	case old.StableSpec.GetMode() != old.Spec.GetMode():
		w.createService(&api.Release{Stack: r.Stack, Number: old.StableRelease}, old, old.StableSpec, old.StableVersion, true)
		return
	default:
		svc.Spec, svc.Version, svc.Release, svc.UpdatedAt = old.StableSpec, old.StableVersion, old.StableRelease, w.now
		if svc.Run != nil && svc.Run.Version != svc.Version { // what it did then is done
			svc.Run = proto.CloneOf(svc.Run)
			svc.Run.Version, svc.Run.Outcome, svc.Run.Reason = svc.Version, "succeeded", "as before release "+itoa(r.Number)
		}
	}
	w.put(serviceTable, svc)
}
