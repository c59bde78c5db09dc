// Package release brings a release through as one thing: its services in the
// order of what they depend on, as many side by side as that and max_parallel
// allow. When one fails, what hasn't begun stops, and what was changed is
// taken back in the reverse order, so that a release is all or nothing.
//
// It decides from the state alone, may be asked at any time, and has nothing
// to say at the fixpoint. It is pure.
package release

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"orch/engine/api"
	"orch/engine/spec"
	"orch/engine/state"
	"orch/engine/status"
)

// Plan says how the stack's release under way moves on, given that only the
// services named may have changed since it was asked last; nil: it doesn't.
func Plan(v state.View, stack string, changed []string, now time.Time) *api.ReleaseChange {
	st := v.Stack(stack)
	if st == nil || st.Stopped || st.Removed {
		return nil
	}
	r := v.Underway(stack)
	if r == nil {
		return dequeue(v, stack)
	}
	p := plan{view: v, now: now, stack: st, r: r, out: &api.ReleaseChange{Stack: stack, Number: r.Number}}
	if r.Phase == "rollback" {
		p.back()
	} else {
		p.forward(changed)
	}
	if len(p.out.Steps) == 0 && p.out.Outcome == "" && p.out.Phase == "" {
		return nil
	}
	return p.out
}

// dequeue begins the release that waited for the one before.
func dequeue(v state.View, stack string) *api.ReleaseChange {
	for _, r := range v.Releases(stack) {
		if r.Outcome == "" && r.Phase == "queued" {
			return &api.ReleaseChange{Stack: stack, Number: r.Number, Phase: "forward"}
		}
	}
	return nil
}

type plan struct {
	view  state.View
	now   time.Time
	stack *api.Stack
	r     *api.Release
	out   *api.ReleaseChange
}

// forward notes which steps have come to their end, begins those that may
// begin now, and ends the release, well or not.
func (p *plan) forward(changed []string) {
	next := &api.Release{Phase: "forward", Spec: p.r.Spec}
	for _, s := range p.r.Steps {
		if s.State == "begun" && slices.Contains(changed, s.Service) {
			if state, why := p.judge(s); state != s.State {
				s = p.put(s, state, why)
				s.Tolerated = state == "failed" && p.tolerated(s)
			}
		}
		next.Steps = append(next.Steps, s)
	}
	if p.r.Spec.OnFailure == "continue" {
		p.skip(next)
	}
	for _, s := range state.Startable(next) {
		i := slices.Index(next.Steps, s)
		next.Steps[i] = p.put(s, "begun", "")
	}
	under, waiting := 0, 0
	var failed, tolerated *api.ReleaseStep
	for _, s := range next.Steps {
		switch s.State {
		case "begun":
			under++
		case "":
			waiting++
		case "failed":
			if s.Tolerated {
				tolerated = s
			} else if failed == nil {
				failed = s
			}
		}
	}
	switch {
	case failed == nil && under+waiting > 0:
	case failed == nil && tolerated == nil:
		p.out.Outcome = "succeeded"
	case failed == nil:
		p.out.Outcome, p.out.Reason = "failed", tolerated.Service+": "+tolerated.Reason
	case p.r.Spec.OnFailure == "continue" || p.r.Spec.OnFailure == "pause" || p.stack.StableRelease == 0:
		if under > 0 || p.r.Spec.OnFailure == "continue" && waiting > 0 && !onlyRemovals(next) {
			return
		}
		p.out.Outcome, p.out.Reason = "failed", failed.Service+": "+failed.Reason
		if p.r.Spec.OnFailure == "pause" && waiting > 0 {
			p.out.Outcome = "paused"
		}
	default:
		p.out.Phase, p.out.Reason = "rollback", failed.Service+": "+failed.Reason
	}
}

func onlyRemovals(r *api.Release) bool {
	return !slices.ContainsFunc(r.Steps, func(s *api.ReleaseStep) bool { return s.State == "" && s.Action != "remove" })
}

// skip gives steps up whose predecessors failed.
func (p *plan) skip(next *api.Release) {
	for again := true; again; {
		again = false
		for i, s := range next.Steps {
			on := slices.IndexFunc(s.After, func(on string) bool {
				before := state.Step(next, on)
				return before.GetState() == "failed" && !before.Tolerated
			})
			if s.State == "" && on >= 0 {
				next.Steps[i] = p.put(s, "failed", fmt.Sprintf("%q, which it depends on, failed", s.After[on]))
				next.Steps[i].Skipped = true
				again = true
			}
		}
	}
}

// put gives a step a new state.
func (p *plan) put(s *api.ReleaseStep, state, why string) *api.ReleaseStep {
	s = proto.CloneOf(s)
	s.State, s.Reason = state, why
	p.out.Steps = append(p.out.Steps, s)
	return s
}

// tolerated says that the policy of a step's rollout was to go on whatever
// failed.
func (p *plan) tolerated(s *api.ReleaseStep) bool {
	ro := p.view.Rollout(p.view.Service(spec.ServiceID(p.r.Stack, s.Service)).GetRolloutId())
	n := len(ro.GetJournal())
	return ro.GetRelease() == p.r.Number && n > 0 && ro.Journal[n-1].Kind == "fail" && ro.Journal[n-1].Policy == "continue"
}

// judge says what a step that has begun has come to.
func (p *plan) judge(s *api.ReleaseStep) (state, why string) {
	svc := p.view.Service(spec.ServiceID(p.r.Stack, s.Service))
	if s.Action == "remove" {
		return "done", ""
	}
	if svc == nil || svc.Removed {
		return "failed", "it was removed"
	}
	if ro := p.view.Rollout(svc.RolloutId); ro != nil && ro.Release == p.r.Number {
		switch ro.Outcome {
		case "succeeded":
			return "done", ""
		case "rolled_back", "failed":
			return "failed", ro.Reason
		}
		return "begun", ""
	}
	if s.Action == "rollout" {
		return "done", "" // there and back before it began
	}
	is := status.Service(p.view, svc, p.now)
	switch {
	case is.Converged:
		return "done", ""
	case is.Failed && p.stack.StableRelease > 0:
		return "failed", is.Reason
	}
	return "begun", ""
}

// back takes steps back whose successors have been.
func (p *plan) back() {
	next := &api.Release{Steps: slices.Clone(p.r.Steps)}
	for i, s := range next.Steps {
		if s.State != "restoring" {
			continue
		}
		state, why := p.restored(s)
		switch {
		case state == "stuck":
			p.out.Outcome, p.out.Reason = "paused", s.Service+": "+why
			return
		case state != s.State:
			next.Steps[i] = p.put(s, state, why)
		}
	}
	open := false
	for i, s := range next.Steps {
		if s.State == "restored" {
			continue
		}
		open = true
		after := func(o *api.ReleaseStep) bool {
			return o.State != "restored" && o.State != "" && slices.Contains(o.After, s.Service)
		}
		if s.State != "restoring" && !slices.ContainsFunc(next.Steps, after) {
			next.Steps[i] = p.put(s, "restoring", "")
		}
	}
	if !open {
		p.out.Outcome, p.out.Reason = "rolled_back", p.r.Reason
	}
}

// restored says whether a step has been taken back.
func (p *plan) restored(s *api.ReleaseStep) (state, why string) {
	svc := p.view.Service(spec.ServiceID(p.r.Stack, s.Service))
	if svc == nil || svc.Removed {
		if svc != nil && len(p.view.TasksOf(svc.Id)) > 0 {
			return "restoring", ""
		}
		return "restored", ""
	}
	ro := p.view.Rollout(svc.RolloutId)
	if ro == nil || ro.Release != p.r.Number || s.Action != "rollout" {
		return "restored", ""
	}
	switch ro.Outcome {
	case "":
		return "restoring", ""
	case "paused", "failed", "needs_operator":
		return "stuck", ro.Reason
	}
	return "restored", ""
}

// Text says how far a release is: "2 of 5 services done, web under way".
func Text(r *api.Release) string {
	done, under := 0, []string{}
	for _, s := range r.GetSteps() {
		switch s.State {
		case "done", "restored":
			done++
		case "begun", "restoring":
			under = append(under, s.Service)
		}
	}
	text := fmt.Sprintf("%d of %d services done", done, len(r.GetSteps()))
	if len(under) > 3 {
		under = append(under[:3], fmt.Sprintf("%d more", len(under)-3))
	}
	if len(under) > 0 {
		text += ", " + strings.Join(under, ", ") + " under way"
	}
	return text
}
